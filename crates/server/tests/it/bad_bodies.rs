//! Bodies that cannot be accepted: which code, which field, and the server goes on.

use serde_json::json;

use crate::support::Server;
use crate::support::http::{Client, Response};

/// A server with one empty context `c`.
pub(crate) fn server() -> Server {
    let server = Server::start();
    server
        .client()
        .post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#)
        .ok();
    server
}

/// Appends one item, given as text.
pub(crate) fn item(client: &Client, item: &str) -> Response {
    client.post("/v1/contexts/c/items", format!(r#"{{"items":[{item}]}}"#))
}

/// Asserts that the server serves and that nothing was written.
pub(crate) fn assert_unharmed(server: &Server) {
    server.assert_serves();
    assert_eq!(server.client().get("/v1/contexts/c").ok()["version"], 1);
    assert_eq!(
        server.client().get("/v1/contexts").ok()["contexts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn an_unknown_field_is_named() {
    let server = server();
    let client = server.client();
    for (method, path, body, field) in [
        ("POST", "/v1/contexts", r#"{"agent_id":"a","agnet":1}"#, "agnet"),
        ("PATCH", "/v1/contexts/c", r#"{"nmae":"x"}"#, "nmae"),
        ("PATCH", "/v1/contexts/c", r#"{"id":"x"}"#, "id"),
        (
            "POST",
            "/v1/contexts/c/items",
            r#"{"items":[],"tenant":"x"}"#,
            "tenant",
        ),
        (
            "POST",
            "/v1/contexts/c/truncate",
            r#"{"max_tokens":1,"dryrun":true}"#,
            "dryrun",
        ),
        (
            "POST",
            "/v1/contexts/c/fork",
            r#"{"context":{"agent_id":"a","tenant":"x"}}"#,
            "context.tenant",
        ),
        ("POST", "/v1/search", r#"{"query":"a","tenant":"x"}"#, "tenant"),
    ] {
        let problem = client
            .send(method, path, &[], body)
            .problem_in(422, "invalid", field);
        assert!(
            problem["detail"].as_str().unwrap().contains("unknown field"),
            "{problem}"
        );
    }
    assert_unharmed(&server);
}

/// Method, path, body, the field to blame.
const WRONG_TYPES: &[(&str, &str, &str, &str)] = &[
    ("POST", "/v1/contexts", r#"{"agent_id":7}"#, "agent_id"),
    (
        "POST",
        "/v1/contexts",
        r#"{"agent_id":"a","labels":["x",7]}"#,
        "labels[1]",
    ),
    (
        "POST",
        "/v1/contexts",
        r#"{"agent_id":"a","metadata":[]}"#,
        "metadata",
    ),
    (
        "POST",
        "/v1/contexts",
        r#"{"agent_id":"a","expires_at":"tomorrow"}"#,
        "expires_at",
    ),
    (
        "POST",
        "/v1/contexts",
        r#"{"agent_id":"a","expires_at":5}"#,
        "expires_at",
    ),
    ("PATCH", "/v1/contexts/c", r#"{"name":{}}"#, "name"),
    ("POST", "/v1/contexts/c/items", r#"{"items":{}}"#, "items"),
    ("POST", "/v1/contexts/c/items", r#"{"items":[7]}"#, "items[0]"),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"user","content":7}]}"#,
        "items[0].content",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"user"},{"role":7}]}"#,
        "items[1].role",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"content":"x"}]}"#,
        "items[0].role",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"king","content":"x"}]}"#,
        "items[0].role",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"user","pinned":1}]}"#,
        "items[0].pinned",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"user","importance":2}]}"#,
        "items[0].importance",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"user","metadata":[]}]}"#,
        "items[0].metadata",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"tool","content":"x"}]}"#,
        "items[0].tool_call_id",
    ),
    (
        "POST",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"assistant","tool_calls":[{"id":7}]}]}"#,
        "items[0].tool_calls[0].id",
    ),
    (
        "POST",
        "/v1/contexts/c/truncate",
        r#"{"max_tokens":1,"dry_run":"yes"}"#,
        "dry_run",
    ),
    (
        "POST",
        "/v1/contexts/c/truncate",
        r#"{"max_tokens":1,"strategy":"random"}"#,
        "strategy",
    ),
];

#[test]
fn a_wrong_type_is_named_with_its_path() {
    let server = server();
    let client = server.client();
    for (method, path, body, field) in WRONG_TYPES {
        client
            .send(method, path, &[], body)
            .problem_in(422, "invalid", field);
    }
    assert_unharmed(&server);
}

#[test]
fn a_missing_field_is_named() {
    let server = server();
    let client = server.client();
    for (path, body, field) in [
        ("/v1/contexts", "{}", "agent_id"),
        ("/v1/contexts/c/items", "{}", "items"),
        ("/v1/contexts/c/truncate", "{}", "max_tokens"),
        ("/v1/contexts/c/fork", r#"{"context":{}}"#, "context.agent_id"),
        ("/v1/search", "{}", "query"),
        ("/v1/batch", r#"{"append":[{"id":"c"}]}"#, "append[0].items"),
    ] {
        client.post(path, body).problem_in(422, "invalid", field);
    }
    client
        .post("/v1/contexts", r#"{"agent_id":""}"#)
        .problem_in(422, "invalid", "agent_id");
    client
        .post("/v1/contexts/c/items", r#"{"items":[]}"#)
        .problem_in(422, "invalid", "items");
    client.patch("/v1/contexts/c", "{}").problem(422, "invalid");
    assert_unharmed(&server);
}

#[test]
fn negative_fractional_and_huge_numbers_are_refused() {
    let server = server();
    let client = server.client();
    for number in [
        "-1",
        "1.5",
        "1e3",
        "18446744073709551616",
        "99999999999999999999999999999999",
        "0",
        "1099511627777",
    ] {
        let body = format!(r#"{{"agent_id":"a","max_tokens":{number}}}"#);
        client
            .post("/v1/contexts", body)
            .problem_in(422, "invalid", "max_tokens");
    }
    for number in ["-1", "1.5", "18446744073709551616"] {
        let body = format!(r#"{{"max_tokens":{number}}}"#);
        client
            .post("/v1/contexts/c/truncate", body)
            .problem_in(422, "invalid", "max_tokens");
        let body = format!(r#"{{"at":{number},"context":{{"agent_id":"a"}}}}"#);
        client
            .post("/v1/contexts/c/fork", body)
            .problem_in(422, "invalid", "at");
    }
    for (query, field) in [
        ("after=-1", "after"),
        ("after=1.5", "after"),
        ("before=18446744073709551616", "before"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=99999999999", "limit"),
        ("limit=", "limit"),
        ("order=up", "order"),
        ("nonsense=1", "nonsense"),
        ("limit=1&limit=2", "limit"),
    ] {
        client
            .get(&format!("/v1/contexts/c/items?{query}"))
            .problem_in(422, "invalid", field);
    }
    for (query, field) in [
        ("max_tokens=x", "max_tokens"),
        ("reserve=-5", "reserve"),
        ("format=yaml", "format"),
    ] {
        client
            .get(&format!("/v1/contexts/c/window?{query}"))
            .problem_in(422, "invalid", field);
    }
    assert_unharmed(&server);
}

#[test]
fn a_seq_that_is_not_there_is_an_empty_page_and_no_place_to_fork() {
    let server = server();
    let client = server.client();
    for query in [
        "after=99",
        "after=18446744073709551615",
        "before=0",
        "before=1",
        "after=5&before=3",
    ] {
        let page = client.get(&format!("/v1/contexts/c/items?{query}")).ok();
        assert_eq!(page, json!({"items": [], "next_cursor": null}), "{query}");
    }
    let body = r#"{"at":1,"context":{"id":"f","agent_id":"a"}}"#;
    client
        .post("/v1/contexts/c/fork", body)
        .problem_in(422, "invalid", "at");
    assert_unharmed(&server);
}

#[test]
fn a_body_that_is_not_json_is_malformed() {
    let server = server();
    let client = server.client();
    for body in [
        "",
        " ",
        "{",
        r#"{"agent_id":"a""#,
        r#"{"agent_id":"a"}}"#,
        r#"{"agent_id":"a"} {}"#,
        "nonsense",
        "{'a':1}",
        r#"{"agent_id":"a",}"#,
        "\u{feff}{}",
        "{\"agent_id\":\"a\u{1}\"}",
        "{\"agent_id\":\"a\0\"}",
    ] {
        client.post("/v1/contexts", body).problem(400, "malformed_json");
    }
    for body in ["[]", "7", "null", "\"text\""] {
        client.post("/v1/contexts", body).problem(422, "invalid");
    }
    assert_unharmed(&server);
}

#[test]
fn invalid_utf8_is_refused_at_its_byte() {
    let server = server();
    let client = server.client();
    for bytes in [
        b"\xff".as_slice(),
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\xf8\x88\x80\x80\x80",
    ] {
        let before = br#"{"items":[{"role":"user","content":""#.as_slice();
        let body = [before, bytes, br#""}]}"#].concat();
        let byte = format!("byte {}", before.len());
        let problem = client
            .post("/v1/contexts/c/items", body)
            .problem(400, "malformed_request");
        assert!(problem["detail"].as_str().unwrap().contains(&byte), "{problem}");
    }
    assert_unharmed(&server);
}

#[test]
fn a_duplicate_key_is_refused_at_the_top_and_inside_items() {
    let server = server();
    let client = server.client();
    client
        .post("/v1/contexts", r#"{"agent_id":"a","agent_id":"b"}"#)
        .problem(422, "invalid");
    client
        .post("/v1/contexts", r#"{"agent_id":"a","metadata":{"k":1,"k":2}}"#)
        .problem_in(422, "invalid", "metadata");
    client
        .post("/v1/contexts/c/items", r#"{"items":[],"items":[]}"#)
        .problem(422, "invalid");
    for twice in [
        r#"{"role":"user","role":"system","content":"x"}"#,
        r#"{"role":"user","r\u006fle":"system","content":"x"}"#,
        r#"{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}"#,
    ] {
        let problem = item(&client, twice).problem_in(422, "invalid", "items[0]");
        assert!(problem["detail"].as_str().unwrap().contains("twice"), "{problem}");
    }
    assert_unharmed(&server);
}

#[test]
fn deep_json_is_refused_wherever_it_stands() {
    let server = server();
    let client = server.client();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    for value in [&deep, &objects] {
        item(&client, value).problem_in(422, "invalid", "items[0]");
        item(&client, &format!(r#"{{"role":"user","content":{value}}}"#))
            .problem_in(422, "invalid", "items[0]");
        let body = format!(r#"{{"agent_id":"a","metadata":{value}}}"#);
        client
            .post("/v1/contexts", body)
            .problem_in(422, "invalid", "metadata");
        let status = client.post("/v1/contexts", value).status;
        assert!(matches!(status, 400 | 422), "{status}");
        let status = client
            .post("/v1/contexts", format!(r#"{{"agent_id":{value}}}"#))
            .status;
        assert!(matches!(status, 400 | 422), "{status}");
    }
    item(&client, &"[".repeat(1_000_000)).problem(400, "malformed_json");
    assert_unharmed(&server);
}

#[test]
fn nul_and_unpaired_surrogates() {
    let server = server();
    let client = server.client();
    for lone in [r"\ud800", r"\udc00", r"\ud800x", r"\udc00\ud800"] {
        let body = format!(r#"{{"role":"user","content":"{lone}"}}"#);
        item(&client, &body).problem_in(422, "invalid", "items[0]");
    }
    for (field, value) in [("agent_id", r#""a\u0000""#), ("name", r#""\u0000""#)] {
        let body = if field == "agent_id" {
            format!(r#"{{"agent_id":{value}}}"#)
        } else {
            format!(r#"{{"agent_id":"a","{field}":{value}}}"#)
        };
        client
            .post("/v1/contexts", body)
            .problem_in(422, "invalid", field);
    }
    client
        .post("/v1/contexts", r#"{"agent_id":"a","labels":["a\u0000"]}"#)
        .problem_in(422, "invalid", "labels[0]");
    item(&client, r#"{"role":"user","content":"x","client_id":"a\u0000"}"#).problem_in(
        422,
        "invalid",
        "items[0].client_id",
    );
    item(&client, r#"{"role":"user","content":1e400}"#).problem_in(422, "invalid", "items[0]");
    assert_unharmed(&server);
    // NUL in what is said is text like any other.
    let said = r#"{"role":"user","content":"before\u0000after"}"#;
    item(&client, said).ok();
    assert!(client.get("/v1/contexts/c/items").text().contains(said));
}
