use super::*;

#[test]
fn a_row_keeps_null_apart_from_empty() {
    let body = [0, 3, 0, 0, 0, 2, b'o', b'k', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(
        parse_row(&body).unwrap(),
        [Some("ok".to_owned()), None, Some(String::new())]
    );
}

#[test]
fn a_truncated_row_is_refused() {
    assert_eq!(parse_row(&[0, 1, 0, 0, 0, 9, b'x']), None);
    assert_eq!(parse_row(&[0]), None);
}

#[test]
fn an_error_carries_code_and_message_and_whether_it_is_fatal() {
    let body = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
    let error = parse_error(body);
    assert!(matches!(&error, Error::Refused { code, .. } if code == "57P03"));
    assert_eq!(
        error.to_string(),
        "Postgres refused: the database system is starting up (57P03)"
    );
    assert!(is_fatal(body) && !is_fatal(b"VERROR\0C42601\0\0"));
}

#[test]
fn a_server_that_speaks_something_else_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        stream
    });
    let error = Connection::open(addr, "u", "d", Duration::from_secs(20)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Postgres broke the protocol: impossible message length"
    );
    drop(server.join());
}
