//! Summaries: placed in windows, the same on both faces; and by a model behind an endpoint that this test serves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use contextkeep_core::window::rules;
use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Server, eventually};

const KEY: &str = "sk-not-for-the-log";

fn talk(client: &Client, id: &str, turns: std::ops::Range<u32>) {
    if turns.start == 0 {
        let new = json!({"id": id, "agent_id": "a"}).to_string();
        client.post("/v1/contexts", new).ok();
        let system = r#"{"items": [{"role": "system", "content": "be brief"}]}"#;
        client.post(&format!("/v1/contexts/{id}/items"), system).ok();
    }
    for turn in turns {
        let body = json!({"items": [
            {"role": "user", "content": format!("please change flight HAT{turn:03} to another day in May")},
            {"role": "assistant", "content": null, "tool_calls": [{"id": format!("c{turn}"), "type": "function",
                "function": {"name": "change", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": format!("c{turn}"), "content": format!("changed for ${turn}50")},
            {"role": "assistant", "content": format!("I have confirmed the change for ${turn}50.")}]});
        client
            .post(&format!("/v1/contexts/{id}/items"), body.to_string())
            .ok();
    }
}

fn window(client: &Client, id: &str, query: &str) -> Value {
    client
        .get(&format!(
            "/v1/contexts/{id}/window?max_tokens=700&summary=true{query}"
        ))
        .ok()
}

pub(crate) fn tool(client: &Client, name: &str, arguments: &Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": name, "arguments": arguments}});
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let answer = client.send("POST", "/mcp", &headers, body.to_string());
    let text = String::from_utf8(answer.body).unwrap();
    let lines = text
        .lines()
        .map(|line| line.strip_prefix("data:").unwrap_or(line));
    let mut messages = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.next_back().unwrap_or_else(|| panic!("{text}"))["result"]["structuredContent"].clone()
}

#[test]
fn both_faces_put_the_same_summary_into_all_formats() {
    let server = Server::start();
    let client = server.client();
    talk(&client, "c", 0..40);
    for format in ["items", "openai.chat", "openai.responses", "anthropic"] {
        let rest = window(&client, "c", &format!("&format={format}"));
        let (placed, omitted) = (&rest["summary"], &rest["omitted"]);
        assert_eq!(placed["kind"], "extractive");
        assert_eq!(placed["seq"], omitted["last_seq"]);
        let list = |name: &str| rest[name].as_array().cloned().unwrap_or_default();
        let held = match format {
            "openai.chat" => rules::chat(&list("messages")),
            "openai.responses" => rules::responses(&list("input")),
            "anthropic" => rules::anthropic(&list("system"), &list("messages")),
            _ => Ok(()),
        };
        assert_eq!(held, Ok(()), "{format}");
        let name = ["items", "input", "messages"]
            .into_iter()
            .find(|name| !rest[*name].is_null())
            .unwrap();
        let index = usize::try_from(placed["index"].as_u64().unwrap()).unwrap();
        let shown = rest[name][index].to_string();
        assert!(
            shown.contains("[Summary of items 2 to ")
                && shown.contains("Goal [2]: please change flight HAT000"),
            "{shown}"
        );
        let arguments = json!({"id": "c", "max_tokens": 700, "format": format, "summary": true});
        let mcp = tool(&client, "context_window", &arguments);
        for field in [name, "summary", "omitted", "tokens", "prefix_hash", "reasons"] {
            assert_eq!(rest[field], mcp[field], "{format}: {field}");
        }
    }
    assert!(client.get("/v1/contexts/c/window?max_tokens=700").ok()["summary"].is_null());
    client
        .get("/v1/contexts/c/window?summary=yes")
        .problem(422, "invalid");
}

#[test]
fn the_beginning_stays_with_its_summary_until_the_cut_moves() {
    let server = Server::start();
    let client = server.client();
    talk(&client, "c", 0..20);
    let read = || client.get("/v1/contexts/c/window?max_tokens=700&summary=true");
    let mut before = read();
    let (mut moves, mut stays) = (0, 0);
    for turn in 20..60 {
        talk(&client, "c", turn..turn + 1);
        let now = read();
        let (old, new) = (before.json(), now.json());
        if old["omitted"] == new["omitted"] {
            stays += 1;
            assert_eq!(old["prefix_hash"], new["prefix_hash"]);
            let (old, new) = (old["items"].to_string(), new["items"].to_string());
            assert!(new.starts_with(old.trim_end_matches(']')), "{old}\n{new}");
        } else {
            moves += 1;
            assert_ne!(old["prefix_hash"], new["prefix_hash"]);
        }
        assert!(new["tokens"].as_u64().unwrap() <= 700);
        before = now;
    }
    assert!(
        moves > 1 && stays > moves,
        "{moves} moves, {stays} times it stayed"
    );
}

/// An endpoint that answers each request on a connection of its own with what `answer` makes of its body.
struct Model {
    url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Model {
    fn new(answer: impl Fn(usize) -> (&'static str, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let bodies: Arc<Mutex<Vec<Value>>> = Arc::default();
        let noted = bodies.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let (mut length, mut is_ours, mut line) = (0, false, String::new());
                while reader.read_line(&mut line).unwrap() > 2 {
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    is_ours |= line.trim() == format!("authorization: Bearer {KEY}");
                    line.clear();
                }
                assert!(is_ours, "the key is sent");
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let number = {
                    let mut bodies = noted.lock().unwrap();
                    bodies.push(serde_json::from_slice(&body).unwrap());
                    bodies.len()
                };
                let (status, body) = answer(number);
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                let mut stream = reader.into_inner();
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        Self { url, bodies }
    }

    fn config(&self) -> String {
        format!(
            "context_manager: {{ summaries: {{ endpoint: '{}', model: small, api_key: '{KEY}', max_retries: 0, \
             failure_threshold: 2, rest: 1ms }} }}",
            self.url
        )
    }

    fn asked(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }
}

fn says(text: &str) -> (&'static str, String) {
    let body = json!({"choices": [{"message": {"role": "assistant", "content": text}}]});
    ("200 OK", body.to_string())
}

#[test]
fn a_model_takes_over_from_the_extract_in_the_background() {
    let model = Model::new(|number| says(&format!("the {number}th summary")));
    let server = Server::with(&model.config());
    let client = server.client();
    talk(&client, "c", 0..40);
    assert_eq!(model.asked(), 0, "an append asks nobody");
    client.get("/v1/contexts/c/window?max_tokens=700").ok();
    assert_eq!(model.asked(), 0, "nor does a window without a summary");
    let first = window(&client, "c", "");
    let range = (&first["omitted"]["first_seq"], &first["omitted"]["last_seq"]);
    let path = format!(
        "/v1/contexts/c/summary?first_seq={}&last_seq={}",
        range.0, range.1
    );
    let summary = eventually("the model's summary is there", || {
        let summary = client.get(&path).ok()["summary"].clone();
        (summary["kind"] == "model").then_some(summary)
    });
    assert_eq!(summary["text"], "the 1th summary");
    let arguments = json!({"id": "c", "first_seq": range.0, "last_seq": range.1});
    assert_eq!(
        tool(&client, "context_summarize", &arguments)["summary"]["kind"],
        "model"
    );
    let second = window(&client, "c", "");
    assert_eq!(second["summary"]["kind"], "model");
    assert!(second["items"].to_string().contains("the 1th summary"));
    assert_ne!(first["prefix_hash"], second["prefix_hash"]);
    assert_eq!(
        window(&client, "c", "")["prefix_hash"],
        second["prefix_hash"],
        "and then it stays"
    );
    assert_eq!(model.asked(), 1);
    let sent = model.bodies.lock().unwrap()[0].clone();
    assert_eq!(
        (&sent["model"], &sent["max_tokens"]),
        (&json!("small"), &json!(800))
    );
    assert!(sent["messages"][1]["content"].to_string().contains("HAT000"));

    let put = json!({"first_seq": range.0, "last_seq": range.1, "text": "as I know it"});
    client
        .send(
            "PUT",
            "/v1/contexts/c/summary",
            &[("content-type", "application/json")],
            put.to_string(),
        )
        .ok();
    assert_eq!(window(&client, "c", "")["summary"]["kind"], "external");
    let figures = eventually("the figures are there", || {
        let text = client.get("/metrics").text();
        text.contains("contextkeep_core_background_summaries_total{outcome=\"kept\"} 1")
            .then_some(text)
    });
    assert!(
        figures.contains("contextkeep_server_summary_breaker_info{state=\"closed\"} 1"),
        "{figures}"
    );
    assert!(!server.log().contains(KEY), "{}", server.log());
}

#[test]
fn a_model_that_is_down_is_left_alone_and_the_extract_answers() {
    let model = Model::new(|_| ("500 Internal Server Error", String::new()));
    let server = Server::with(&model.config());
    let client = server.client();
    talk(&client, "c", 0..20);
    eventually("the breaker opens", || {
        let answer = window(&client, "c", "");
        assert_eq!(answer["summary"]["kind"], "extractive");
        let text = client.get("/metrics").text();
        text.contains("contextkeep_server_summary_breaker_info{state=\"open\"} 1")
            .then_some(())
    });
    assert_eq!(model.asked(), 2, "after two failures nobody asks");
    server.terminate();
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
}

#[test]
fn contradictions_are_named_at_the_start() {
    let start = crate::support::Start::with(
        "context_manager: { summaries: { endpoint: 'api.example.com', api_key: 'env:NO_SUCH', max_concurrent: 0 } }",
    );
    let folder = crate::support::folder();
    let (status, said) = start.refused(folder.path());
    assert!(!status.success());
    for key in ["endpoint", "model", "api_key", "max_concurrent"] {
        assert!(
            said.contains(&format!("context_manager.summaries.{key}")),
            "{key}: {said}"
        );
    }
}
