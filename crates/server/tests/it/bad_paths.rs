//! Ids, cursors and query strings that play tricks.

use serde_json::json;

use crate::support::Server;
use crate::support::http::Client;

/// A server with a context `c` of five items.
fn server() -> Server {
    let server = Server::start();
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    let items = [r#"{"role":"user","content":"x"}"#; 5].join(",");
    client
        .post("/v1/contexts/c/items", format!(r#"{{"items":[{items}]}}"#))
        .ok();
    server
}

/// A request line as it is, without the care that clients take.
fn line(client: &Client, target: &str) -> crate::support::http::Response {
    let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    client.raw_response(request.as_bytes())
}

#[test]
fn encoded_tricks_in_the_path_are_no_ids() {
    let server = server();
    let client = server.client();
    let long = "x".repeat(129);
    for id in [
        "%2e",
        "%2e%2e",
        "%2E%2e%2f",
        "..%2f..%2fetc%2fpasswd",
        "a%2fb",
        "a%5cb",
        "a%00",
        "%00",
        "a%0d%0ab",
        "a%20b",
        "%c3%bc",
        "c;x",
        "c%3fx",
        "c%23x",
        long.as_str(),
    ] {
        for rest in ["", "/items", "/window", "/export"] {
            let answer = line(&client, &format!("/v1/contexts/{id}{rest}"));
            answer.problem_in(422, "invalid", "id");
        }
    }
    for broken in ["%ff", "%c3%28", "%ed%a0%80"] {
        line(&client, &format!("/v1/contexts/{broken}")).problem(400, "malformed_request");
    }
    for id in ["../a", ".", "..", "a/b", "", "a\\b", "a b"] {
        let body = json!({"id": id, "agent_id": "a"}).to_string();
        client.post("/v1/contexts", body).problem_in(422, "invalid", "id");
    }
    server.assert_serves();
}

#[test]
fn dot_segments_lead_nowhere() {
    let server = server();
    let client = server.client();
    for target in [
        "/v1/contexts/../../healthz",
        "/v1/contexts/c/../c",
        "/v1/contexts/./c",
        "/v1/contexts//c",
        "/v1/contexts/c/",
        "/V1/contexts",
    ] {
        line(&client, target).problem(404, "route_not_found");
    }
    server.assert_serves();
}

#[test]
fn an_id_that_only_looks_odd_is_served() {
    let server = server();
    let client = server.client();
    for id in ["...a", "a.b~c", "user:7@host", "-"] {
        let body = json!({"id": id, "agent_id": "a"}).to_string();
        client.post("/v1/contexts", body).ok();
        assert_eq!(client.get(&format!("/v1/contexts/{id}")).ok()["id"], id);
    }
    assert_eq!(
        line(&client, "/v1/contexts/%63").ok()["id"],
        "c",
        "an encoded c is a c"
    );
}

#[test]
fn a_forged_cursor_is_refused() {
    let server = server();
    let client = server.client();
    let page = client.get("/v1/contexts/c/items?limit=2").ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let flipped: String = cursor.chars().rev().collect();
    let long = "A".repeat(5000);
    for forged in [
        "x",
        "!!!",
        "e30",
        "bnVsbA",
        flipped.as_str(),
        cursor.strip_prefix(|_: char| true).unwrap(),
        &format!("{cursor}A"),
        &long,
        "",
    ] {
        for path in ["/v1/contexts/c/items?limit=2&", "/v1/contexts?"] {
            let answer = client.get(&format!("{path}cursor={forged}"));
            answer.problem_in(422, "invalid", "cursor");
        }
    }
    server.assert_serves();
}

#[test]
fn a_cursor_belongs_to_its_question() {
    let server = server();
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"d","agent_id":"b"}"#).ok();
    let items = client.get("/v1/contexts/c/items?limit=2").ok();
    let items = items["next_cursor"].as_str().unwrap();
    let list = client.get("/v1/contexts?limit=1").ok();
    let list = list["next_cursor"].as_str().unwrap();
    for path in [
        format!("/v1/contexts/d/items?cursor={items}"),
        format!("/v1/contexts/c/items?order=desc&cursor={items}"),
        format!("/v1/contexts/c/items?after=1&cursor={items}"),
        format!("/v1/contexts?cursor={items}"),
        format!("/v1/contexts/c/items?cursor={list}"),
        format!("/v1/contexts?agent_id=a&cursor={list}"),
        format!("/v1/contexts?label=x&cursor={list}"),
    ] {
        client.get(&path).problem_in(422, "invalid", "cursor");
    }
    // Another page size is the same question.
    client
        .get(&format!("/v1/contexts/c/items?limit=3&cursor={items}"))
        .ok();
}

#[test]
fn a_cursor_past_a_truncation_goes_on_with_what_is_there() {
    let server = server();
    let client = server.client();
    let page = client.get("/v1/contexts/c/items?limit=2").ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    client
        .post(
            "/v1/contexts/c/replace",
            r#"{"items":[{"role":"user","content":"new"}]}"#,
        )
        .ok();
    let rest = client
        .get(&format!("/v1/contexts/c/items?limit=2&cursor={cursor}"))
        .ok();
    assert_eq!(rest["items"][0]["seq"], 6);
    assert_eq!(rest["next_cursor"], json!(null));
}

#[test]
fn a_huge_query_string_is_refused() {
    let server = server();
    let client = server.client();
    let parameter = line(&client, &format!("/v1/contexts?agent_id={}", "x".repeat(20_000)));
    assert_eq!(parameter.status, 200, "long, but a filter like any other");
    let many = line(&client, &format!("/v1/contexts?{}", "label=x&".repeat(4_000)));
    many.problem_in(422, "invalid", "label");
    let target = line(&client, &format!("/v1/contexts?agent_id={}", "x".repeat(70_000)));
    assert_eq!(target.status, 414);
    server.assert_serves();
}

#[test]
fn parameters_that_are_not_text_are_harmless() {
    let server = server();
    let client = server.client();
    for query in [
        "agent_id=%ff%fe",
        "agent_id=%00",
        "label=%27%20OR%201%3D1%20--",
        "session_id=%25%5f",
    ] {
        let page = line(&client, &format!("/v1/contexts?{query}")).ok();
        assert_eq!(page["contexts"], json!([]), "{query}");
    }
    server.assert_serves();
}
