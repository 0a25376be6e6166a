//! SIGTERM: what was begun ends, nothing new begins, and the exit code is 0.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::json;

use crate::support::http::{Client, Response};
use crate::support::{Server, contextkeep, eventually, folder, listening_on};

#[test]
fn a_request_in_flight_ends_and_what_it_wrote_is_kept() {
    let folder = folder();
    let server = Server::in_folder(folder.path());
    let held = server.client().hold();
    server.terminate();
    await_refusal(server.address());
    held.finish();
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("draining") && log.contains("stopped"), "{log}");
    let server = Server::in_folder(folder.path());
    let contexts = server.client().get("/v1/contexts").ok();
    assert_eq!(contexts["contexts"][0]["agent_id"], "held");
}

#[test]
fn a_request_that_does_not_end_is_broken_off_after_the_grace() {
    let server = Server::with("server: { shutdown_grace: 100ms }");
    let held = server.client().hold();
    server.terminate();
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("server.shutdown_grace"), "{log}");
    drop(held);
}

#[test]
fn a_server_whose_log_nobody_reads_any_more_serves_and_stops() {
    let folder = folder();
    let mut server = contextkeep(folder.path())
        .args(["serve", "--bind", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(server.stderr.take().unwrap());
    let mut lines = log.lines().map_while(Result::ok);
    let address = lines.find_map(|line| listening_on(&line)).unwrap();
    // Whoever read the log is gone, and each line of it fails to be written.
    drop(lines);
    let client = Client::new(address);
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    rustix::process::kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    let status = eventually("the server ends", || server.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let server = Server::start();
    let mut kept = server.client().connect().unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let mut reader = BufReader::new(&kept);
    assert_eq!(Response::read(&mut reader, false).unwrap().status, 200);
    server.terminate();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the connection is closed");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("server.shutdown_grace"), "{log}");
}

#[test]
#[cfg(target_os = "linux")]
fn readiness_turns_before_the_end() {
    let server = Server::start();
    // A request whose head has begun to arrive when the signal comes is still answered.
    let mut begun = server.client().connect().unwrap();
    begun
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n")
        .unwrap();
    await_read(&begun);
    server.terminate();
    await_refusal(server.address());
    begun.write_all(b"\r\n").unwrap();
    let answer = Response::read(&mut BufReader::new(begun), false).unwrap();
    answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn readers_see_whole_appends_until_the_end() {
    let folder = folder();
    let server = Server::in_folder(folder.path());
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    let batch = json!({"items": vec![json!({"role": "user", "content": "x"}); 10]}).to_string();
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let send = || client.try_send("POST", "/v1/contexts/c/items", &[], batch.as_bytes());
            std::iter::from_fn(|| send().ok())
                .filter(|answer| answer.status == 200)
                .count()
        });
        let reader = scope.spawn(|| {
            let read = || client.try_send("GET", "/v1/contexts/c", &[], b"");
            while let Ok(head) = read() {
                let items = head.ok()["item_count"].as_u64().unwrap();
                assert_eq!(items % 10, 0, "half an append was seen");
            }
        });
        eventually("some appends", || {
            (client.get("/v1/contexts/c").ok()["item_count"].as_u64()? >= 50).then_some(())
        });
        server.terminate();
        reader.join().unwrap();
        writer.join().unwrap()
    });
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let server = Server::in_folder(folder.path());
    let items = server.client().get("/v1/contexts/c").ok()["item_count"]
        .as_u64()
        .unwrap();
    assert_eq!(items % 10, 0);
    assert!(
        items >= acknowledged as u64 * 10,
        "{items} items of {acknowledged} acknowledged appends"
    );
}

#[test]
fn stopping_leaves_one_file_behind() {
    let folder = folder();
    let server = Server::in_folder(folder.path());
    server.client().post("/v1/contexts", r#"{"agent_id":"a"}"#).ok();
    server.stop();
    let names: Vec<String> = std::fs::read_dir(folder.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("contextkeep.db"))
        .collect();
    assert_eq!(
        names,
        ["contextkeep.db"],
        "the write-ahead log is moved into the file"
    );
}

/// Waits until nobody listens any more.
fn await_refusal(address: SocketAddr) {
    eventually("new connections are refused", || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1))
            .is_err()
            .then_some(())
    });
}

/// Waits until the other end has read all that was written, by what the system says of its socket.
#[cfg(target_os = "linux")]
fn await_read(stream: &TcpStream) {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => panic!("the tests listen on 127.0.0.1"),
    };
    let (server, client) = (
        hex(stream.peer_addr().unwrap()),
        hex(stream.local_addr().unwrap()),
    );
    eventually("the server reads", || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let row = sockets
            .lines()
            .find(|row| row.contains(&format!(" {server} {client} ")))?;
        let queues = row.split_whitespace().nth(4)?;
        queues.ends_with(":00000000").then_some(())
    });
}
