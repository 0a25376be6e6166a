//! What is on the wire, where the SDK's client would not go wrong by itself.

use std::sync::Arc;

use axum::http::header;
use contextkeep_core::ContextManager;
use contextkeep_core::settings::LimitSettings;
use contextkeep_server::mcp::{self, McpSettings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Server, manager, principal};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;

fn request(server: &Server, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(&server.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream")
        .body(body)
}

/// A request of a client of revision 2025-11-25.
pub(super) async fn post(server: &Server, body: impl Into<reqwest::Body>) -> reqwest::Response {
    request(server, body)
        .header("mcp-protocol-version", "2025-11-25")
        .send()
        .await
        .unwrap()
}

/// Writes an initialization and lines to a stdio server, ends the input, and answers with what came out.
pub(super) async fn stdio_exchange(manager: Arc<dyn ContextManager>, lines: &[String]) -> Vec<Value> {
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let mut input = format!("{INITIALIZE}\n{initialized}\n");
    for line in lines {
        input.push_str(line);
        input.push('\n');
    }
    let (mut ours, theirs) = tokio::io::duplex(1024 * 1024);
    let (reader, writer) = tokio::io::split(theirs);
    let settings = McpSettings {
        max_request_size: bytesize::ByteSize(2000),
        ..McpSettings::default()
    };
    let server = mcp::serve_streams(
        manager,
        LimitSettings::default(),
        settings,
        principal("acme"),
        None,
        reader,
        writer,
    );
    let talk = async {
        ours.write_all(input.as_bytes()).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut output = String::new();
        ours.read_to_string(&mut output).await.unwrap();
        output
    };
    let (served, output) = tokio::join!(server, talk);
    served.unwrap();
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn what_is_no_message_gets_a_json_rpc_error() {
    let server = Server::start().await;
    for (body, code, id) in [
        ("{\"jsonrpc\":", -32700, None),
        ("", -32700, None),
        (
            "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
            -32600,
            None,
        ),
        ("{\"id\":5,\"method\":\"ping\"}", -32600, Some(json!(5))),
        ("{\"jsonrpc\":\"2.0\",\"id\":\"x\"}", -32600, Some(json!("x"))),
        ("42", -32600, None),
    ] {
        let response = post(&server, body).await;
        assert_eq!(response.status(), 400, "{body}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], code, "{body}");
        assert_eq!(error.get("id"), id.as_ref(), "{body}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_gets_a_json_rpc_error() {
    let settings = McpSettings {
        max_request_size: bytesize::ByteSize(1000),
        ..McpSettings::default()
    };
    let server = Server::with(manager(), settings).await;
    let response = post(&server, "x".repeat(1001)).await;
    assert_eq!(response.status(), 413);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["code"], -32600);
    assert!(
        error["error"]["message"].as_str().unwrap().contains("1000 bytes"),
        "{error}"
    );
    // At the limit, it is read.
    assert_eq!(post(&server, format!("{LIST:<1000}")).await.status(), 200);
}

#[tokio::test]
async fn pages_and_hosts_that_are_not_allowed_are_refused() {
    let server = Server::start().await;
    let call = || request(&server, LIST).header("mcp-protocol-version", "2025-11-25");
    for (name, value, status) in [
        (header::ORIGIN, "https://evil.example", 403),
        (header::ORIGIN, "null", 403),
        (header::ORIGIN, "http://localhost:3000", 200),
        (header::HOST, "evil.example", 403),
        (header::HOST, "evil.example:80", 403),
        (header::HOST, "localhost:7400", 200),
    ] {
        let response = call().header(name.clone(), value).send().await.unwrap();
        assert_eq!(response.status(), status, "{name}: {value}");
    }
    assert_eq!(
        call().send().await.unwrap().status(),
        200,
        "no Origin is not a page"
    );
}

#[tokio::test]
async fn an_empty_list_of_origins_refuses_every_page() {
    let settings = McpSettings {
        allowed_origins: Vec::new(),
        ..McpSettings::default()
    };
    let server = Server::with(manager(), settings).await;
    let call = request(&server, LIST).header(header::ORIGIN, "http://localhost");
    assert_eq!(call.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn no_session_is_begun_and_answers_are_plain_json() {
    let server = Server::start().await;
    let response = request(&server, INITIALIZE).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("mcp-session-id").is_none());
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(answer["result"]["serverInfo"]["name"], "contextkeep");
    // The next request needs nothing of the first: it may as well go to another node.
    let elsewhere = Server::start().await;
    let answer: Value = post(&elsewhere, LIST).await.json().await.unwrap();
    assert_eq!(answer["id"], 7);
    assert_eq!(answer["result"]["tools"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn there_is_no_stream_to_get_and_no_session_to_delete() {
    let server = Server::start().await;
    let client = reqwest::Client::new();
    for method in [axum::http::Method::GET, axum::http::Method::DELETE] {
        let call = client
            .request(method.clone(), &server.url)
            .header(header::ACCEPT, "text/event-stream");
        assert_eq!(call.send().await.unwrap().status(), 405, "{method}");
    }
}

#[tokio::test]
async fn methods_that_are_not_declared_do_not_exist() {
    let server = Server::start().await;
    for method in ["logging/setLevel", "resources/subscribe", "nonsense/method"] {
        let params = match method {
            "logging/setLevel" => json!({"level": "info"}),
            _ => json!({"uri": "context://a"}),
        };
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer: Value = post(&server, body.to_string()).await.json().await.unwrap();
        assert_eq!(answer["error"]["code"], -32601, "{method}: {answer}");
    }
}

#[tokio::test]
async fn the_same_key_twice_in_a_request_is_refused() {
    let server = Server::start().await;
    for arguments in [
        r#"{"id":"c","items":[{"role":"user","content":"a"}],"items":[{"role":"user","content":"b"}]}"#,
        r#"{"id":"c","items":[{"role":"user","role":"system","content":"a"}]}"#,
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"context_append","arguments":{arguments}}}}}"#
        );
        let answer: Value = post(&server, body).await.json().await.unwrap();
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.starts_with("invalid: "), "{text}");
    }
}

#[tokio::test]
async fn a_stdio_server_answers_what_it_cannot_read_and_goes_on() {
    let lines = [
        "{not json".to_owned(),
        "[]".to_owned(),
        "x".repeat(3000),
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"context_create","arguments":{"id":"kept","agent_id":"a"}}}"#.to_owned(),
    ];
    let manager = manager();
    let answers = stdio_exchange(manager.clone(), &lines).await;
    let codes: Vec<i64> = answers
        .iter()
        .filter_map(|answer| answer["error"]["code"].as_i64())
        .collect();
    assert_eq!(codes, [-32700, -32600, -32600]);
    // The input ended right after the call; it was answered all the same.
    let created = answers.iter().find(|answer| answer["id"] == 3).unwrap();
    assert_eq!(created["result"]["structuredContent"]["created"], true);
}

#[tokio::test]
async fn a_stdio_server_whose_client_says_nothing_ends_well() {
    let (reader, writer) = (tokio::io::empty(), tokio::io::sink());
    let (limits, settings) = (LimitSettings::default(), McpSettings::default());
    let served = mcp::serve_streams(
        manager(),
        limits,
        settings,
        principal("acme"),
        None,
        reader,
        writer,
    )
    .await;
    assert!(served.is_ok(), "{served:?}");
}
