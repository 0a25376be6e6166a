//! The main job on real data: 60 real conversations go in, come out as windows, and leave as they came.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use contextkeep_core::window::rules;
use serde_json::Value;

use crate::support::{Server, folder, run, text};

/// Beside the repository: real conversations of a tool-calling agent, MIT licence; see the file's README.
const TRANSCRIPTS: &str = "../shared/data/airline-transcripts.jsonl";
/// Names another file instead.
const VARIABLE: &str = "CONTEXTKEEP_TEST_TRANSCRIPTS";
/// The budget of the windows.
const BUDGET: u64 = 2000;

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap().to_owned()
}

fn transcripts() -> PathBuf {
    let path = contextkeep_config::env::var(VARIABLE).map_or_else(|| root().join(TRANSCRIPTS), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there; the tests of real conversations need it: name another file of OpenAI chat lines in {VARIABLE}",
        path.display()
    );
    path
}

#[test]
fn sixty_transcripts_are_imported_windowed_and_exported_byte_for_byte() {
    let file = fs::read(transcripts()).unwrap();
    let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    let server = Server::start();
    let client = server.client();
    let report = client.post("/v1/import", &file).ok();
    assert_eq!(
        (&report["created"], &report["failed"]),
        (&Value::from(lines.len()), &Value::from(0)),
        "{report}"
    );
    for line in lines {
        let conversation: Value = serde_json::from_slice(line).unwrap();
        let id = conversation["id"].as_str().unwrap();
        let export = client.get(&format!("/v1/contexts/{id}/export?format=openai-chat"));
        assert_eq!(text(&export.body), text(line));
        let window = |budget: u64| client.get(&format!("/v1/contexts/{id}/window?max_tokens={budget}"));
        let answer = window(BUDGET);
        if answer.status == 200 {
            check_window(&conversation, &answer.json(), BUDGET);
        } else {
            let minimum = answer.problem(422, "budget_too_small")["minimum"]
                .as_u64()
                .unwrap();
            assert!(minimum > BUDGET, "{minimum}");
            check_window(&conversation, &window(minimum).ok(), minimum);
        }
    }
    let again = client.post("/v1/import", &file).ok();
    assert_eq!(
        (&again["created"], &again["items"]),
        (&Value::from(0), &Value::from(0))
    );
}

#[test]
fn every_window_of_the_transcripts_is_one_that_the_providers_take() {
    let file = fs::read(transcripts()).unwrap();
    let server = Server::start();
    let client = server.client();
    client.post("/v1/import", &file).ok();
    let mut cut = 0;
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        let conversation: Value = serde_json::from_slice(line).unwrap();
        let id = conversation["id"].as_str().unwrap();
        let mut whole = false;
        for budget in [1024, 2048, 4096, 8192, 16_384, 32_768] {
            if whole {
                // A larger budget shows the same.
                break;
            }
            for format in ["openai.chat", "openai.responses", "anthropic"] {
                let path =
                    |budget: u64| format!("/v1/contexts/{id}/window?max_tokens={budget}&format={format}");
                let mut answer = client.get(&path(budget));
                if answer.status != 200 {
                    let minimum = answer.problem(422, "budget_too_small")["minimum"]
                        .as_u64()
                        .unwrap();
                    answer = client.get(&path(minimum));
                }
                let window = answer.ok();
                whole = window["omitted"].is_null();
                cut += u64::from(!whole);
                check_format(&window, format);
            }
        }
    }
    assert!(cut > 0, "all of them fit");
}

/// Eight conversations, put behind each other item by item.
#[test]
fn a_summary_stays_within_the_budget_and_the_same_until_the_cut_moves() {
    let file = fs::read(transcripts()).unwrap();
    let server = Server::start();
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    let lines = file.split_inclusive(|byte| *byte == b'\n').take(8);
    let mut messages: Vec<Value> = Vec::new();
    for line in lines {
        let conversation: Value = serde_json::from_slice(line).unwrap();
        let own = conversation["messages"].as_array().unwrap().iter();
        // The instructions are the same in all of them.
        let more = own.filter(|message| messages.is_empty() || message["role"] != "system");
        messages.extend(more.cloned().collect::<Vec<_>>());
    }
    let mut before: [Option<Value>; 2] = [None, None];
    let (mut moves, mut stays, mut left_out) = (0, 0, 0);
    for message in messages {
        let body = serde_json::json!({ "items": [message] }).to_string();
        client.post("/v1/contexts/c/items", body).ok();
        for (before, budget) in before.iter_mut().zip([4096, 8192]) {
            let path = format!("/v1/contexts/c/window?max_tokens={budget}&summary=true");
            let window = client.get(&path).ok();
            assert!(window["tokens"].as_u64().unwrap() <= budget, "{window}");
            check_calls(window["items"].as_array().unwrap());
            // A step that nearly fills the budget leaves no room for one, and the answer says so.
            let is_left_out = window["reasons"].to_string().contains("summary_left_out");
            left_out += u64::from(is_left_out);
            let has_none = window["omitted"].is_null() || is_left_out;
            assert_eq!(window["summary"].is_null(), has_none, "{}", window["reasons"]);
            if let Some(before) = before
                .take()
                .filter(|before| !before["summary"].is_null() && !window["summary"].is_null())
            {
                if before["omitted"] == window["omitted"] {
                    stays += 1;
                    assert_eq!(before["prefix_hash"], window["prefix_hash"]);
                    let text = |window: &Value| window["items"].to_string();
                    assert!(text(&window).starts_with(text(&before).trim_end_matches(']')));
                } else {
                    moves += 1;
                    for format in ["openai.chat", "openai.responses", "anthropic"] {
                        check_format(&client.get(&format!("{path}&format={format}")).ok(), format);
                    }
                }
            }
            *before = Some(window);
        }
    }
    assert!(
        moves > 2 && stays > 5 * moves && stays > 10 * left_out,
        "{moves} moves, {stays} times it stayed, {left_out} times there was no room"
    );
}

fn check_format(window: &Value, format: &str) {
    let list = |name: &str| window[name].as_array().unwrap().clone();
    let held = match format {
        "openai.chat" => rules::chat(&list("messages")),
        "openai.responses" => rules::responses(&list("input")),
        _ => rules::anthropic(&list("system"), &list("messages")),
    };
    assert_eq!(held, Ok(()), "{format}");
}

/// Fits, keeps instructions, and is a piece of conversation that a provider accepts.
fn check_window(conversation: &Value, window: &Value, budget: u64) {
    let items = window["items"].as_array().unwrap();
    let tokens: u64 = items.iter().map(|item| item["tokens"].as_u64().unwrap()).sum();
    assert_eq!(window["tokens"], tokens);
    assert!(tokens <= budget, "{tokens}");
    let seqs: Vec<u64> = items.iter().map(|item| item["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    let messages = conversation["messages"].as_array().unwrap();
    for (index, message) in messages.iter().enumerate() {
        let there = seqs.contains(&(index as u64 + 1));
        assert!(
            there || message["role"] != "system",
            "a system message is missing"
        );
    }
    assert_eq!(
        seqs.last(),
        Some(&(messages.len() as u64)),
        "the newest message is missing"
    );
    check_calls(items);
}

/// A call has its results right after it, and a result has its call.
fn check_calls(items: &[Value]) {
    let mut open = BTreeSet::new();
    for item in items {
        let message = &item["item"];
        if message["role"] == "tool" {
            let call = message["tool_call_id"].as_str().unwrap();
            assert!(
                open.remove(call),
                "the result of {call} has no call in the window"
            );
            continue;
        }
        assert!(open.is_empty(), "{open:?} have no result in the window");
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        open.extend(calls.map(|call| call["id"].as_str().unwrap().to_owned()));
    }
}

#[test]
fn the_command_line_does_the_same() {
    let folder = folder();
    let path = transcripts();
    let imported = run(folder.path(), &["import", path.to_str().unwrap()], b"");
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    let args = [
        "export",
        "--all",
        "--format",
        "openai-chat",
        "--output",
        "out.jsonl",
    ];
    let exported = run(folder.path(), &args, b"");
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    let out = fs::read(folder.path().join("out.jsonl")).unwrap();
    assert!(
        out == fs::read(path).unwrap(),
        "the export differs from what was imported"
    );
}

#[test]
fn the_script_of_the_documentation_works() {
    let server = Server::start();
    let output = Command::new("sh")
        .arg(root().join("docs/examples/transcripts.sh"))
        .arg(transcripts())
        .env("CONTEXTKEEP_URL", format!("http://{}", server.address()))
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("60 conversations"), "{said}");
}
