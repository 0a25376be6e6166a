use super::*;

fn parsed(bytes: &str) -> Result<Value> {
    parse(&mut bytes.as_bytes())
}

#[test]
fn every_kind_of_answer_is_read() {
    assert_eq!(parsed("+OK\r\n").unwrap(), Value::Text("OK".to_owned()));
    assert_eq!(parsed(":-7\r\n").unwrap(), Value::Int(-7));
    assert_eq!(parsed("$-1\r\n").unwrap(), Value::Nil);
    assert_eq!(
        parsed("$4\r\na\r\nb\r\n").unwrap(),
        Value::Text("a\r\nb".to_owned())
    );
    assert_eq!(
        parsed("*2\r\n:1\r\n*1\r\n$0\r\n\r\n").unwrap(),
        Value::Array(vec![
            Value::Int(1),
            Value::Array(vec![Value::Text(String::new())])
        ])
    );
}

#[test]
fn an_error_keeps_its_first_word_as_code() {
    let error = parsed("-CLUSTERDOWN The cluster is down\r\n").unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, .. } if code == "CLUSTERDOWN"),
        "{error}"
    );
}

#[test]
fn impossible_lengths_are_refused_before_memory_is_taken() {
    for line in ["$99999999999999\r\n", "*-2\r\n", "$x\r\n", "HTTP/1.1 400\r\n"] {
        assert!(matches!(parsed(line), Err(Error::Protocol { .. })), "{line}");
    }
}

#[test]
fn an_answer_that_ends_early_is_an_error() {
    assert!(matches!(parsed("$10\r\nabc"), Err(Error::Io { .. })));
    assert!(matches!(parsed(""), Err(Error::Io { .. })));
}
