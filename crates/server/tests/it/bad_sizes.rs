//! Bodies and items over their limits, other media types, conditions and keys that are none.

use serde_json::{Value, json};

use crate::bad_bodies::{assert_unharmed, server};
use crate::support::{Server, text};

#[test]
fn bodies_over_the_limit_are_refused_declared_or_not() {
    let server = Server::with("server: { max_body: 64KiB }");
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    let limit = 64 * 1024;
    let body = vec![b' '; limit + 1];
    let declared = client.post("/v1/contexts", &body).problem(413, "too_large");
    assert_eq!(
        (&declared["limit"], &declared["actual"]),
        (&json!(limit), &json!(limit + 1))
    );
    // Refused by what it declares: the body never comes.
    let head = "POST /v1/contexts HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999999\r\n\r\n";
    client.raw_response(head.as_bytes()).problem(413, "too_large");
    let chunk = format!("{:x}\r\n{}\r\n", body.len(), text(&body));
    let chunked = client.send(
        "POST",
        "/v1/contexts",
        &[("transfer-encoding", "chunked")],
        chunk + "0\r\n\r\n",
    );
    chunked.problem(413, "too_large");
    let endless = "1000\r\n".to_owned() + &" ".repeat(4096) + "\r\n";
    let endless = client.send(
        "POST",
        "/v1/contexts",
        &[("transfer-encoding", "chunked")],
        endless.repeat(64),
    );
    endless.problem(413, "too_large");
    assert_unharmed(&server);
}

#[test]
fn items_over_the_limit_are_refused_by_index() {
    let server = Server::with("context_manager: { limits: { item_size: 1KiB, append_items: 3 } }");
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    let big = json!({"role": "user", "content": "x".repeat(1024)});
    let small = json!({"role": "user", "content": "x"});
    let append =
        |items: &[&Value]| client.post("/v1/contexts/c/items", json!({ "items": items }).to_string());
    let problem = append(&[&small, &big]).problem(413, "too_large");
    assert!(
        problem["detail"].as_str().unwrap().contains("items[1]"),
        "{problem}"
    );
    assert_eq!(problem["limit"], 1024);
    let problem = append(&[&small; 4]).problem(413, "too_large");
    assert_eq!((&problem["actual"], &problem["limit"]), (&json!(4), &json!(3)));
    assert_unharmed(&server);
    append(&[&small; 3]).ok();
}

#[test]
fn texts_over_their_limits_are_refused_by_field() {
    let server = server();
    let client = server.client();
    let long = "x".repeat(257);
    for field in ["agent_id", "session_id", "model_id", "name"] {
        let mut body = json!({"agent_id": "a"});
        body[field] = json!(long);
        client
            .post("/v1/contexts", body.to_string())
            .problem_in(422, "invalid", field);
    }
    let description = json!({"agent_id": "a", "description": "x".repeat(8193)});
    client
        .post("/v1/contexts", description.to_string())
        .problem_in(422, "invalid", "description");
    let labels: Vec<String> = (0..33).map(|n| n.to_string()).collect();
    let labels = json!({"agent_id": "a", "labels": labels}).to_string();
    client
        .post("/v1/contexts", labels)
        .problem_in(422, "invalid", "labels");
    let twice = r#"{"agent_id":"a","labels":["x","x"]}"#;
    client
        .post("/v1/contexts", twice)
        .problem_in(422, "invalid", "labels[1]");
    let metadata = json!({"agent_id": "a", "metadata": {"k": "x".repeat(65_536)}}).to_string();
    client.post("/v1/contexts", metadata).problem(413, "too_large");
    client
        .post("/v1/contexts", r#"{"agent_id":"a","tokenizer":"gpt-9"}"#)
        .problem_in(422, "invalid", "tokenizer");
    let twice = r#"{"items":[{"role":"user","client_id":"m"},{"role":"user","client_id":"m"}]}"#;
    client
        .post("/v1/contexts/c/items", twice)
        .problem_in(422, "invalid", "items[1].client_id");
    assert_unharmed(&server);
}

#[test]
fn other_media_types_are_refused() {
    let server = server();
    let client = server.client();
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "json",
    ] {
        client
            .send(
                "POST",
                "/v1/contexts",
                &[("content-type", media)],
                r#"{"agent_id":"a"}"#,
            )
            .problem(415, "unsupported_media_type");
    }
    assert_unharmed(&server);
    let media = [("content-type", "Application/JSON; charset=utf-8")];
    client
        .send("POST", "/v1/contexts", &media, r#"{"agent_id":"a"}"#)
        .ok();
}

#[test]
fn conditions_and_keys_that_are_none_are_refused() {
    let server = server();
    let client = server.client();
    for tag in [
        "1",
        "\"\"",
        "\"x\"",
        "W/\"1\"",
        "\"-1\"",
        "\"+1\"",
        "\"1\", \"2\"",
        "\"99999999999999999999\"",
        "",
    ] {
        client
            .send("PATCH", "/v1/contexts/c", &[("if-match", tag)], r#"{"name":"n"}"#)
            .problem_in(422, "invalid", "If-Match");
    }
    let item = r#"{"items":[{"role":"user","content":"x"}]}"#;
    let long = "k".repeat(129);
    for key in ["", "\u{fc}", "a\tb", long.as_str()] {
        client
            .send("POST", "/v1/contexts/c/items", &[("idempotency-key", key)], item)
            .problem_in(422, "invalid", "Idempotency-Key");
    }
    assert_unharmed(&server);
}
