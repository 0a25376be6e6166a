//! Windows in the providers' words, and their cut: over REST, over MCP, and from the shell.

use contextkeep_core::window::rules;
use serde_json::{Value, json};

use crate::support::http::{Client, Response};
use crate::support::{Server, eventually, run_ok};

const FORMATS: [&str; 4] = ["items", "openai.chat", "openai.responses", "anthropic"];

/// Turns in three dialects, one after the other.
fn turn(number: usize) -> [Value; 8] {
    let id = |letter: char| format!("call_{letter}{number}");
    let (a, b) = (id('a'), id('b'));
    [
        json!({"role": "user", "content": format!("how is day {number}?"), "client_id": format!("m{number}")}),
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": a, "type": "function", "function": {"name": "weather", "arguments": "{\"day\": 1}"}}]}),
        json!({"role": "tool", "tool_call_id": a, "content": "rain"}),
        json!({"type": "reasoning", "id": "r", "summary": []}),
        json!({"type": "function_call", "call_id": b, "name": "weather", "arguments": "{\"day\": 2}"}),
        json!({"type": "function_call_output", "call_id": b, "output": "sun"}),
        json!({"role": "assistant", "content": [{"type": "text", "text": "rain, then sun"}]}),
        json!({"role": "user", "content": [{"type": "text", "text": "thank you"}], "metadata": {"ours": true}}),
    ]
}

fn conversation(client: &Client, turns: usize) {
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    let mut items = vec![json!({"role": "system", "content": "be brief"})];
    items.extend((0..turns).flat_map(turn));
    let body = json!({ "items": items }).to_string();
    client.post("/v1/contexts/c/items", body).ok();
}

fn over_mcp(client: &Client, arguments: &Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "context_window", "arguments": arguments}});
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let answer = client.send("POST", "/mcp", &headers, body.to_string());
    let text = String::from_utf8(answer.body).unwrap();
    let json = text
        .lines()
        .map(|line| line.strip_prefix("data:").unwrap_or(line));
    let message = json
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .next_back();
    message.unwrap_or_else(|| panic!("{text}"))["result"].clone()
}

fn check(format: &str, window: &Value) {
    let list = |name: &str| {
        window[name]
            .as_array()
            .unwrap_or_else(|| panic!("no {name}: {window}"))
            .clone()
    };
    let held = match format {
        "items" => Ok(()),
        "openai.chat" => rules::chat(&list("messages")),
        "openai.responses" => rules::responses(&list("input")),
        _ => rules::anthropic(&list("system"), &list("messages")),
    };
    assert_eq!(held, Ok(()), "{format}");
}

#[test]
fn both_faces_and_the_shell_say_the_same_in_all_formats() {
    let server = Server::start();
    let client = server.client();
    conversation(&client, 12);
    for format in FORMATS {
        let rest = client
            .get(&format!("/v1/contexts/c/window?max_tokens=300&format={format}"))
            .ok();
        check(format, &rest);
        assert!(rest["cut_seq"].as_u64().unwrap() > 2, "{rest}");
        let mcp = over_mcp(&client, &json!({"id": "c", "max_tokens": 300, "format": format}));
        let mcp = &mcp["structuredContent"];
        let shell = run_ok(
            server.folder(),
            &["ctx", "window", "c", "--max-tokens", "300", "--format", format],
        );
        let shell: Value = serde_json::from_str(&shell).unwrap();
        assert_eq!(rest, shell, "{format}");
        let fields = [
            "items",
            "messages",
            "input",
            "system",
            "tokens",
            "omitted",
            "prefix_hash",
            "cut_seq",
        ];
        for field in fields.iter().chain(&["version", "reasons"]) {
            assert_eq!(rest[field], mcp[field], "{format}: {field}");
        }
        let breakpoints = |window: &Value| -> Vec<(u64, Option<u64>)> {
            let all = window["cache_breakpoints"].as_array().unwrap().iter();
            all.map(|at| (at["seq"].as_u64().unwrap(), at["index"].as_u64()))
                .collect()
        };
        assert_eq!(breakpoints(&rest), breakpoints(mcp), "{format}");
        assert_eq!(
            breakpoints(&rest)[0],
            (1, (format != "anthropic").then_some(0)),
            "{format}"
        );
    }
}

#[test]
fn a_format_or_a_cut_that_is_not_known_is_refused_by_name() {
    let server = Server::start();
    let client = server.client();
    conversation(&client, 1);
    let refused = client
        .get("/v1/contexts/c/window?format=gemini")
        .problem(422, "invalid");
    let said = refused.to_string();
    for format in FORMATS {
        assert!(said.contains(format), "{said}");
    }
    client
        .get("/v1/contexts/c/window?cut=deep")
        .problem(422, "invalid");
    let refused = over_mcp(&client, &json!({"id": "c", "format": "gemini"}));
    assert_eq!(refused["isError"], true);
    for format in FORMATS {
        assert!(refused.to_string().contains(format), "{refused}");
    }
}

#[test]
fn the_beginning_stays_while_a_conversation_grows() {
    let server = Server::start();
    let client = server.client();
    conversation(&client, 12);
    let window = |cut: &str| {
        client
            .get(&format!("/v1/contexts/c/window?max_tokens=600&cut={cut}"))
            .ok()
    };
    let mut moves = [0, 0];
    let mut before: Option<[Value; 2]> = None;
    for number in 100..110 {
        let body = json!({ "items": turn(number) }).to_string();
        client.post("/v1/contexts/c/items", body).ok();
        let now = ["sticky", "tight"].map(window);
        for ((now, then), moves) in now.iter().zip(before.iter().flatten()).zip(&mut moves) {
            let items = |window: &Value| window["items"].as_array().unwrap().clone();
            let stays = items(now).starts_with(&items(then));
            assert_eq!(stays, now["prefix_hash"] == then["prefix_hash"]);
            *moves += u64::from(!stays);
        }
        before = Some(now);
    }
    let [sticky, tight] = moves;
    assert_eq!(tight, 9, "a tight cut moves with every turn here");
    assert!((1..=5).contains(&sticky), "{sticky}");
}

const TWO_TENANTS: &str = "auth:
  keys:
    - {name: a, tenant: acme, secret: 0123456789abcdef-a}
    - {name: b, tenant: other, secret: 0123456789abcdef-b}
";

/// A window that is kept ready is answered in front of the router: as the router would have, and to the same callers.
#[test]
fn a_ready_window_is_answered_as_its_route_would_and_to_nobody_else() {
    let server = Server::with(TWO_TENANTS);
    let client = server.client_with("0123456789abcdef-a");
    conversation(&client, 3);
    let ready = "/v1/contexts/c/window?max_tokens=300";
    // An escape in the path sends it past the front.
    let routed = "/v1/contexts/%63/window?max_tokens=300";
    let first = eventually("the window is ready", || {
        let answer = client.get(ready);
        (answer.header("contextkeep-origin") == Some("l1")).then_some(answer)
    });
    let second = client.get(routed);
    let said = |answer: &Response| {
        let mut headers = answer.headers.clone();
        headers.retain(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"));
        headers.sort();
        (answer.status, headers, answer.text())
    };
    assert_eq!(said(&first), said(&second));
    for header in ["x-request-id", "etag", "contextkeep-token", "content-length"] {
        assert!(first.header(header).is_some(), "{header}");
    }
    server
        .client_with("0123456789abcdef-b")
        .get(ready)
        .problem(404, "not_found");
    server.client().get(ready).problem(401, "unauthorized");
    client
        .get(&format!("{ready}&max_tokens=1"))
        .problem_in(422, "invalid", "max_tokens");
    assert_eq!(client.delete("/v1/contexts/c").status, 204);
    client.get(ready).problem(404, "not_found");
}

#[test]
fn a_slow_request_has_a_line_in_the_log_with_where_its_time_went() {
    let server = Server::with("context_manager: {monitoring: {slow_request_threshold: 0s}}");
    let client = server.client();
    conversation(&client, 1);
    eventually("the append is in the log", || {
        let log = server.log();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines
            .find(|line| line["message"] == "slow request" && line["route"] == "/v1/contexts/{id}/items")?;
        assert!(line["commit_ms"].as_f64().unwrap() > 0.0, "{line}");
        assert!(
            line["duration_ms"].as_f64() >= line["commit_ms"].as_f64(),
            "{line}"
        );
        assert!(!log.contains("how is day"), "the log holds no content");
        Some(())
    });
    // A head that is waited for, on its way in front of the routes.
    client.get("/v1/contexts/never").problem(404, "not_found");
    eventually("the read is in the log", || {
        let log = server.log();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line =
            lines.find(|line| line["message"] == "slow request" && line["route"] == "/v1/contexts/{id}")?;
        assert_eq!(
            (&line["status"], &line["method"]),
            (&json!(404), &json!("GET")),
            "{line}"
        );
        Some(())
    });
}
