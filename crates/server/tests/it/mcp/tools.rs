//! What the tools do.

use serde_json::{Value, json};

use super::{Client, Era, Server, manager, stdio_client};

/// A question, a tool call with its result, and an answer.
fn turn(number: usize) -> Vec<Value> {
    let call_id = format!("call_{number}");
    vec![
        json!({"role": "user", "content": format!("How is the weather on day {number}?")}),
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}),
        json!({"role": "tool", "tool_call_id": call_id, "content": format!("rain, {}", "wet ".repeat(200))}),
        json!({"role": "assistant", "content": format!("It rains on day {number}.")}),
    ]
}

async fn remembers(client: &Client) {
    let created = client
        .call(
            "context_create",
            json!({"id": "trip-42", "agent_id": "planner", "metadata": {"b": 1, "a": 2}, "labels": ["travel"]}),
        )
        .await;
    assert_eq!(created["created"], true);
    assert_eq!(created["context"]["id"], "trip-42");
    assert_eq!(created["context"]["version"], 1);

    let appended = client
        .call(
            "context_append",
            json!({"id": "trip-42", "items": turn(1), "idempotency_key": "k1"}),
        )
        .await;
    assert_eq!(
        (&appended["first_seq"], &appended["last_seq"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(appended["over_budget"], false);

    let window = client.call("context_window", json!({"id": "trip-42"})).await;
    let items: Vec<Value> = window["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["item"].clone())
        .collect();
    assert_eq!(items, turn(1));
    assert_eq!(window["truncated"], false);
    assert!(window.get("omitted").is_none());
    assert_eq!(window["tokens"], appended["tokens"]);

    let found = client
        .call("context_search", json!({"query": "rains", "role": "assistant"}))
        .await;
    assert_eq!(found["hits"][0]["id"], "trip-42");
    assert_eq!(found["hits"][0]["seq"], 4);
    assert!(found["hits"][0].get("item").is_none());

    let listed = client.call("context_list", json!({"labels": ["travel"]})).await;
    assert_eq!(listed["contexts"][0]["item_count"], 4);
    assert!(listed["contexts"][0].get("metadata").is_none());
    let one = client.call("context_list", json!({"id": "trip-42"})).await;
    assert_eq!(one["contexts"][0]["metadata"], json!({"a": 2, "b": 1}));
}

#[tokio::test]
async fn an_agent_gets_back_what_it_stored_in_both_revisions_over_both_transports() {
    for era in Era::BOTH {
        let server = Server::start().await;
        remembers(&server.client(era, "acme").await).await;
        remembers(&stdio_client(manager(), era).await).await;
    }
}

// M4
#[tokio::test]
async fn an_item_comes_back_byte_for_byte_over_both_transports() {
    // Not the order or the spelling that a tree of values would give back.
    let item = r#"{"role":"user",  "content":"é \u00e9","a_number":1.50e1,"z":12345678901234567890123,"aa":{"b":1,"a":2}}"#;
    let server = Server::start().await;
    let request = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"context_append","arguments":{{"id":"raw","items":[{item}]}}}}}}"#
    );
    let client = server.client(Era::Modern, "acme").await;
    client.context("raw", &[]).await;
    let answer = super::wire::post(&server, request.clone()).await;
    assert_eq!(answer.status(), 200);
    let text = client.text("context_window", json!({"id": "raw"})).await;
    assert!(text.contains(item), "{text}");

    let manager = manager();
    let client = stdio_client(manager.clone(), Era::Legacy).await;
    client.context("raw", &[]).await;
    super::wire::stdio_exchange(manager, &[request]).await;
    let text = client.text("context_window", json!({"id": "raw"})).await;
    assert!(text.contains(item), "{text}");
}

#[tokio::test]
async fn a_retried_append_adds_nothing_and_answers_the_same() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &[]).await;
    let append = json!({"id": "c", "items": turn(1), "idempotency_key": "k"});
    let first = client.call("context_append", append.clone()).await;
    assert_eq!(client.call("context_append", append).await, first);

    let other = json!({"id": "c", "items": turn(2), "idempotency_key": "k"});
    let text = client.refusal("context_append", other).await;
    assert!(text.starts_with("idempotency_key_reused: "), "{text}");
}

#[tokio::test]
async fn a_conditional_write_on_an_old_version_says_which_version_is_there() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &["one"]).await;
    for (tool, mut arguments) in [
        ("context_append", json!({"items": turn(1)})),
        ("context_update", json!({"name": "n"})),
        ("context_truncate", json!({"max_tokens": 1000})),
        ("context_delete", json!({})),
    ] {
        arguments["id"] = "c".into();
        arguments["expected_version"] = 1.into();
        let text = client.refusal(tool, arguments).await;
        assert!(text.starts_with("version_mismatch: "), "{tool}: {text}");
        assert!(text.contains("expected_version 2"), "{tool}: {text}");
    }
}

#[tokio::test]
async fn an_update_changes_clears_and_leaves_alone() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client
        .call(
            "context_create",
            json!({"id": "c", "agent_id": "a", "name": "old", "session_id": "s"}),
        )
        .await;
    let patch =
        json!({"id": "c", "labels": ["x"], "metadata": {"k": [1]}, "clear": ["name"], "max_tokens": 5000});
    let updated = client.call("context_update", patch).await;
    assert_eq!(updated["context"]["version"], 2);
    let full = client.call("context_list", json!({"id": "c"})).await["contexts"][0].clone();
    assert!(full.get("name").is_none());
    assert_eq!(full["session_id"], "s");
    assert_eq!(full["labels"], json!(["x"]));
    assert_eq!(full["metadata"], json!({"k": [1]}));
    assert_eq!(full["max_tokens"], 5000);

    let both = json!({"id": "c", "name": "n", "clear": ["name"]});
    let text = client.refusal("context_update", both).await;
    assert!(text.contains("name: is set and cleared at once"), "{text}");
    let nothing = client.refusal("context_update", json!({"id": "c"})).await;
    assert!(nothing.contains("changes nothing"), "{nothing}");
}

#[tokio::test]
async fn a_truncation_drops_whole_turns_and_a_dry_run_drops_nothing() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &[]).await;
    for number in 1..=3 {
        client
            .call("context_append", json!({"id": "c", "items": turn(number)}))
            .await;
    }
    let one_turn = client.call("context_list", json!({"id": "c"})).await["contexts"][0]["tokens"]
        .as_u64()
        .unwrap()
        / 3;
    let mut arguments = json!({"id": "c", "max_tokens": one_turn + one_turn / 2, "dry_run": true});
    let planned = client.call("context_truncate", arguments.clone()).await;
    assert_eq!(
        (&planned["dropped_items"], &planned["dry_run"]),
        (&json!(8), &json!(true))
    );
    assert_eq!(planned["context"]["item_count"], 12);
    arguments["dry_run"] = false.into();
    let done = client.call("context_truncate", arguments).await;
    assert_eq!(done["dropped_tokens"], planned["dropped_tokens"]);
    assert_eq!(done["context"]["item_count"], 4);
}

#[tokio::test]
async fn a_fork_shares_the_past_and_not_the_future() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &["one", "two", "three"]).await;
    let forked = client
        .call("context_fork", json!({"id": "c", "at": 2, "new_id": "branch"}))
        .await;
    assert_eq!(forked["context"]["agent_id"], "planner");
    assert_eq!(forked["context"]["item_count"], 2);
    let item = json!({"role": "user", "content": "another way"});
    client
        .call("context_append", json!({"id": "branch", "items": [item]}))
        .await;
    let original = client.call("context_list", json!({"id": "c"})).await;
    assert_eq!(original["contexts"][0]["item_count"], 3);

    let text = client
        .refusal("context_fork", json!({"id": "c", "new_id": "a/b"}))
        .await;
    assert!(text.starts_with("invalid: new_id: "), "{text}");
}

#[tokio::test]
async fn a_deleted_context_is_gone() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &["one"]).await;
    let deleted = client.call("context_delete", json!({"id": "c"})).await;
    assert_eq!(
        (&deleted["deleted"], &deleted["version"]),
        (&json!(true), &json!(3))
    );
    let text = client.refusal("context_window", json!({"id": "c"})).await;
    assert!(text.starts_with("not_found: "), "{text}");
}

#[tokio::test]
async fn pages_of_a_list_and_of_a_search_hold_everything_once() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    for number in 0..7 {
        client.context(&format!("c{number}"), &["a needle here"]).await;
    }
    for (tool, field, mut arguments) in [
        ("context_list", "contexts", json!({"limit": 3})),
        ("context_search", "hits", json!({"query": "needle", "limit": 3})),
    ] {
        let mut seen = Vec::new();
        loop {
            let page = client.call(tool, arguments.clone()).await;
            let entries = page[field].as_array().unwrap();
            seen.extend(
                entries
                    .iter()
                    .map(|entry| entry["id"].as_str().unwrap().to_owned()),
            );
            let Some(cursor) = page.get("next_cursor") else {
                break;
            };
            arguments["cursor"] = cursor.clone();
        }
        seen.sort();
        assert_eq!(seen, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"], "{tool}");
    }
}

#[tokio::test]
async fn a_summary_is_made_or_kept() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client
        .context("c", &["one", "please look at src/main.rs line 42"])
        .await;
    assert_eq!(
        client.call("context_summarize", json!({"id": "c"})).await,
        json!({})
    );
    let range = json!({"id": "c", "first_seq": 1, "last_seq": 2});
    let made = client.call("context_summarize", range.clone()).await;
    let text = made["summary"]["text"].as_str().unwrap();
    assert!(text.contains("src/main.rs"), "{text}");
    let mut own = range.clone();
    own["text"] = "they asked for main".into();
    let kept = client.call("context_summarize", own).await;
    assert_eq!(kept["summary"]["kind"], "external");
    assert_eq!(client.call("context_summarize", range).await, kept);
}

#[tokio::test]
async fn a_truncation_goes_by_the_strategy_that_is_named() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client
        .context("c", &["about cats", "about dogs", "about birds"])
        .await;
    let tokens = client.call("context_list", json!({"id": "c"})).await["contexts"][0]["tokens"]
        .as_u64()
        .unwrap();
    let arguments = json!({"id": "c", "max_tokens": tokens - 1, "strategy": "relevance", "query": "cats", "dry_run": true});
    let planned = client.call("context_truncate", arguments).await;
    assert_eq!(
        planned["dropped_ranges"],
        json!([{"first_seq": 2, "last_seq": 2}])
    );
    assert_eq!(planned["more_ranges"], false);
}
