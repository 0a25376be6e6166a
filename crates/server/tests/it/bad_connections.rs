//! Connections that stall, break off or talk nonsense, and too many of them.

use std::io::Write as _;
use std::net::Shutdown;

use serde_json::json;

use crate::support::http::{Held, read_to_end};
use crate::support::{Server, eventually, text};

const IMPATIENT: &str = "server: { request_timeout: 300ms, header_timeout: 300ms }";
const CREATE: &str = "POST /v1/contexts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

/// Asserts that nothing was created and that the server serves.
fn assert_unharmed(server: &Server) {
    server.assert_serves();
    assert_eq!(server.client().get("/v1/contexts").ok()["contexts"], json!([]));
}

#[test]
fn a_half_closed_upload_creates_nothing() {
    let server = Server::start();
    for (framing, body) in [
        ("content-length: 100\r\n\r\n", r#"{"agent_id":"a"}"#),
        ("content-length: 17\r\n\r\n", r#"{"agent_id":"a"}"#),
        (
            "transfer-encoding: chunked\r\n\r\n",
            "10\r\n{\"agent_id\":\"a\"}\r\n",
        ),
        ("transfer-encoding: chunked\r\n\r\n", "ff\r\n{\"agent_id\":\"a\"}"),
    ] {
        let answer = server
            .client()
            .raw(format!("{CREATE}{framing}{body}").as_bytes(), true);
        // The other side no longer says anything: an answer is a courtesy, a 2xx would be a lie.
        assert!(
            answer.is_empty() || text(&answer).starts_with("HTTP/1.1 400"),
            "{}",
            text(&answer)
        );
    }
    assert_unharmed(&server);
}

#[test]
fn an_upload_that_is_broken_off_creates_nothing() {
    let server = Server::start();
    for _ in 0..20 {
        let mut stream = server.client().connect().unwrap();
        let cut = format!("{CREATE}content-length: 100\r\n\r\n{{\"agent_id\":\"a\"}}");
        stream.write_all(cut.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_unharmed(&server);
}

#[test]
fn a_stalled_upload_is_answered_timeout() {
    let server = Server::with(IMPATIENT);
    let stalled = format!("{CREATE}content-length: 100\r\n\r\n{{");
    let answer = server.client().raw_response(stalled.as_bytes());
    answer.problem(503, "timeout");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let import = "POST /v1/import HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    server
        .client()
        .raw_response(import.as_bytes())
        .problem(503, "timeout");
    assert_unharmed(&server);
}

#[test]
fn slow_headers_and_idle_connections_are_hung_up_on() {
    let server = Server::with(IMPATIENT);
    for begun in [
        "",
        "G",
        "GET /v1/contexts HTTP/1.1\r\n",
        "GET /v1/contexts HTTP/1.1\r\nhost: localhost\r\nx-",
    ] {
        let answer = server.client().raw(begun.as_bytes(), false);
        assert!(
            answer.is_empty() || text(&answer).starts_with("HTTP/1.1 408"),
            "{}",
            text(&answer)
        );
    }
    let kept = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = server.client().raw(kept, false);
    assert!(
        text(&answer).starts_with("HTTP/1.1 200"),
        "served, then idle, then hung up on"
    );
    assert_unharmed(&server);
}

#[test]
fn garbage_is_refused_and_what_came_before_it_is_served() {
    let server = Server::start();
    let client = server.client();
    let good = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for garbage in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}",
        "GARBAGE\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: a\0b\r\n\r\n",
        "POST /v1/contexts HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/contexts HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /v1/contexts HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        let answer = text(&client.raw(garbage.as_bytes(), true));
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{garbage:?}: {answer}"
        );
        let answer = text(&client.raw(format!("{good}{good}{garbage}").as_bytes(), true));
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{garbage:?}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 3, "{garbage:?}: {answer}");
    }
    let answer = client.raw(
        b"POST /v1/contexts HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        true,
    );
    assert!(!text(&answer).contains("HTTP/1.1 2"), "{}", text(&answer));
    assert_unharmed(&server);
}

#[test]
fn a_request_that_two_readers_see_differently_is_one_request() {
    let server = Server::start();
    // Both framings at once: the classic of request smuggling.
    let smuggled = format!(
        "{CREATE}content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    );
    let answer = text(&server.client().raw(smuggled.as_bytes(), true));
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_unharmed(&server);
}

#[test]
fn heads_that_are_too_big_are_refused() {
    let server = Server::start();
    let many = format!(
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );
    assert_eq!(server.client().raw_response(many.as_bytes()).status, 431);
    let long = format!(
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    let answer = server.client().raw(long.as_bytes(), false);
    assert!(
        answer.is_empty() || text(&answer).starts_with("HTTP/1.1 431"),
        "{}",
        text(&answer)
    );
    assert_unharmed(&server);
}

#[test]
fn requests_over_the_limit_are_shed_and_health_is_not() {
    let server = Server::with("server: { max_requests: 2 }");
    let mut held: Vec<Held> = (0..2).map(|_| server.client().hold()).collect();
    let shed = server.client().get("/v1/contexts");
    shed.problem(503, "busy");
    assert_eq!(shed.header("retry-after"), Some("1"));
    // Heads have a way of their own.
    let shed = server.client().get("/v1/contexts/c");
    shed.problem(503, "busy");
    assert_eq!(shed.header("retry-after"), Some("1"));
    server.assert_serves();
    held.remove(0).finish();
    eventually("a place is free again", || {
        (server.client().get("/v1/contexts").status == 200).then_some(())
    });
}

#[test]
fn connections_over_the_limit_wait_for_their_turn() {
    let server = Server::with("server: { max_connections: 2 }");
    let mut held: Vec<Held> = (0..2).map(|_| server.client().hold()).collect();
    let mut waiting = server.client().connect().unwrap();
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    held.remove(0).finish();
    let answer = read_to_end(&mut waiting);
    assert!(text(&answer).starts_with("HTTP/1.1 200"), "{}", text(&answer));
}
