//! Items over REST: append, exactly once, pages, replace, truncate, window.

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::http::Client;

/// A server with one empty context `c`.
fn server() -> Server {
    let server = Server::start();
    server
        .client()
        .post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#)
        .ok();
    server
}

fn append(client: &Client, headers: &[(&str, &str)], items: &Value) -> crate::support::http::Response {
    let body = json!({ "items": items }).to_string();
    client.send("POST", "/v1/contexts/c/items", headers, body)
}

/// Appends user messages `0`, `1`, … one by one.
fn fill(client: &Client, items: usize) {
    for n in 0..items {
        append(client, &[], &json!([{"role": "user", "content": n.to_string()}])).ok();
    }
}

#[test]
fn items_come_back_byte_for_byte_at_gap_free_seqs() {
    let server = server();
    let client = server.client();
    let items = [
        r#"{"role":"user","content":"hi"}"#,
        r#"{ "content" : "ü\u00fc\n😀 \u0000 <|endoftext|>","role":"user" , "x":1e30,"y":-0.0,"z":1.10}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"role":"tool","tool_call_id":"call_1","content":""}"#,
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}},{"type":"text","text":"see"}]}"#,
        r#"{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"opaque"}"#,
        r#"{"type":"function_call","call_id":"c2","name":"f","arguments":"{}"}"#,
        r#"{"type":"function_call_output","call_id":"c2","output":"42"}"#,
        r#"{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{"a":[1]}}]}"#,
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"r"}]}"#,
    ];
    let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
    let answer = client.post("/v1/contexts/c/items", body);
    let answer = answer.ok();
    assert_eq!(
        (&answer["first_seq"], &answer["last_seq"]),
        (&json!(1), &json!(10))
    );
    assert_eq!(
        (&answer["version"], &answer["over_budget"]),
        (&json!(2), &json!(false))
    );
    let page = client.get("/v1/contexts/c/items");
    for (index, item) in items.iter().enumerate() {
        assert_eq!(page.json()["items"][index]["seq"], index + 1);
        assert!(page.text().contains(item), "{item} is not in {}", page.text());
    }
}

#[test]
fn a_retry_with_the_same_idempotency_key_adds_nothing_and_answers_the_same() {
    let server = server();
    let client = server.client();
    let items = json!([{"role": "user", "content": "once"}]);
    let key = [("idempotency-key", "k 1")];
    let first = append(&client, &key, &items);
    fill(&client, 2);
    let again = append(&client, &key, &items);
    assert_eq!(again.ok(), first.ok());
    assert_eq!(again.header("etag"), first.header("etag"));
    let other = json!([{"role": "user", "content": "other"}]);
    append(&client, &key, &other).problem(409, "idempotency_key_reused");
    assert_eq!(client.get("/v1/contexts/c").ok()["item_count"], 3);
}

#[test]
fn a_retried_append_wins_over_its_own_condition() {
    let server = server();
    let items = json!([{"role": "user", "content": "once"}]);
    let headers = [("idempotency-key", "k"), ("if-match", "\"1\"")];
    let first = append(&server.client(), &headers, &items);
    let again = append(&server.client(), &headers, &items);
    assert_eq!(
        again.ok(),
        first.ok(),
        "the first try is what changed the version"
    );
}

#[test]
fn items_with_known_client_ids_are_stored_once() {
    let server = server();
    let client = server.client();
    let items = json!([
        {"role": "user", "content": "a", "client_id": "m1"},
        {"role": "user", "content": "b", "client_id": "m2"},
    ]);
    let first = append(&client, &[], &items);
    let again = append(&client, &[], &items);
    assert_eq!(again.ok(), first.ok());
    let mixed = json!([
        {"role": "user", "content": "b", "client_id": "m2"},
        {"role": "user", "content": "c", "client_id": "m3"},
    ]);
    let grown = append(&client, &[], &mixed).ok();
    assert_eq!((&grown["first_seq"], &grown["last_seq"]), (&json!(2), &json!(3)));
    let changed = json!([{"role": "user", "content": "changed", "client_id": "m1"}]);
    let problem = append(&client, &[], &changed).problem(409, "client_id_reused");
    assert_eq!(problem["seq"], 1);
    assert_eq!(client.get("/v1/contexts/c").ok()["item_count"], 3);
}

#[test]
fn pages_go_to_the_end_in_both_directions() {
    let server = server();
    let client = server.client();
    fill(&client, 23);
    let up: Vec<u64> = (1..=23).collect();
    let down: Vec<u64> = (1..=23).rev().collect();
    assert_eq!(seqs(&client, "limit=5"), up);
    assert_eq!(seqs(&client, "limit=1000"), up);
    assert_eq!(seqs(&client, "limit=5&order=desc"), down);
    assert_eq!(seqs(&client, "after=10&before=13&limit=1"), [11, 12]);
    assert_eq!(seqs(&client, "after=10&before=13&limit=1&order=desc"), [12, 11]);
    assert_eq!(seqs(&client, "after=23"), Vec::<u64>::new());
}

fn seqs(client: &Client, query: &str) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/v1/contexts/c/items?{query}{cursor}")).ok();
        let items = page["items"].as_array().unwrap();
        seqs.extend(items.iter().map(|item| item["seq"].as_u64().unwrap()));
        match &page["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return seqs,
        }
    }
}

#[test]
fn replace_goes_on_with_the_seqs_and_frees_the_client_ids() {
    let server = server();
    let client = server.client();
    let items = json!([{"role": "user", "content": "old", "client_id": "m"}]);
    append(&client, &[], &items).ok();
    let body = r#"{"items":[{"role":"user","content":"new","client_id":"m"}]}"#;
    let key = [("idempotency-key", "r")];
    let replaced = client.send("POST", "/v1/contexts/c/replace", &key, body);
    assert_eq!(replaced.ok()["first_seq"], 2);
    let again = client.send("POST", "/v1/contexts/c/replace", &key, body);
    assert_eq!(again.ok(), replaced.ok());
    let head = client.get("/v1/contexts/c").ok();
    assert_eq!((&head["first_seq"], &head["item_count"]), (&json!(2), &json!(1)));
    assert_eq!(seqs(&client, ""), [2]);
}

#[test]
fn a_dry_truncation_only_says_what_a_real_one_does() {
    let server = server();
    let client = server.client();
    append(&client, &[], &json!([{"role": "system", "content": "be brief"}])).ok();
    fill(&client, 30);
    let before = client.get("/v1/contexts/c").ok();
    let truncate = |body: &str| client.post("/v1/contexts/c/truncate", body).ok();
    let dry = truncate(r#"{"max_tokens":60,"dry_run":true}"#);
    assert_eq!(dry["context"], before);
    let done = truncate(r#"{"max_tokens":60}"#);
    assert_eq!(done["dropped_items"], dry["dropped_items"]);
    assert_eq!(done["dropped_tokens"], dry["dropped_tokens"]);
    let head = &done["context"];
    assert_eq!(head["version"], before["version"].as_u64().unwrap() + 1);
    assert!(head["tokens"].as_u64().unwrap() <= 60, "{head}");
    let left = seqs(&client, "");
    assert_eq!(left[0], 1, "instructions stay");
    assert_eq!(left.len() as u64, head["item_count"].as_u64().unwrap());
    assert_eq!(*left.last().unwrap(), 31, "the newest stays");
    let again = truncate(r#"{"max_tokens":60}"#);
    assert_eq!((&again["dropped_items"], &again["context"]), (&json!(0), head));
}

#[test]
fn each_strategy_drops_what_it_names_and_a_wrong_one_is_told_all_five() {
    let server = server();
    let client = server.client();
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "t", "type": "function",
        "function": {"name": "look", "arguments": "{}"}}]});
    let conversation = json!([
        {"role": "user", "content": "where is my order"}, call,
        {"role": "tool", "tool_call_id": "t", "content": "on a ship"},
        {"role": "assistant", "content": "it is on a ship", "importance": 0.1},
        {"role": "user", "content": "thanks"}, {"role": "assistant", "content": "bye"}
    ]);
    append(&client, &[], &conversation).ok();
    let tokens = client.get("/v1/contexts/c").ok()["tokens"].as_u64().unwrap();
    for (strategy, query, gone) in [
        ("oldest_first", "", (1, 4)),
        ("preserving_user", "", (2, 3)),
        ("tool_results_first", "", (2, 3)),
        ("importance", "", (4, 4)),
        ("relevance", r#","query":"order it is""#, (2, 3)),
    ] {
        let body = format!(
            r#"{{"max_tokens":{},"strategy":"{strategy}","dry_run":true{query}}}"#,
            tokens - 1
        );
        let done = client.post("/v1/contexts/c/truncate", body).ok();
        let range = json!([{"first_seq": gone.0, "last_seq": gone.1}]);
        assert_eq!(
            (&done["dropped_ranges"], &done["more_ranges"]),
            (&range, &json!(false)),
            "{strategy}"
        );
    }
    let wrong = client.post(
        "/v1/contexts/c/truncate",
        r#"{"max_tokens":9,"strategy":"newest"}"#,
    );
    let hint = wrong.problem_in(422, "invalid", "strategy")["hint"].to_string();
    for name in [
        "oldest_first",
        "preserving_user",
        "tool_results_first",
        "importance",
        "relevance",
    ] {
        assert!(hint.contains(name), "{hint}");
    }
    for body in [
        r#"{"max_tokens":9,"strategy":"relevance"}"#,
        r#"{"max_tokens":9,"query":"order"}"#,
        r#"{"max_tokens":9,"strategy":"relevance","query":"?"}"#,
    ] {
        client
            .post("/v1/contexts/c/truncate", body)
            .problem_in(422, "invalid", "query");
    }
}

#[test]
fn a_window_keeps_instructions_and_pins_and_fits() {
    let server = server();
    let client = server.client();
    append(&client, &[], &json!([{"role": "system", "content": "be brief"}])).ok();
    append(
        &client,
        &[],
        &json!([{"role": "user", "content": "remember me", "pinned": true}]),
    )
    .ok();
    fill(&client, 50);
    let window = client.get("/v1/contexts/c/window?max_tokens=100&reserve=20");
    assert_eq!(window.header("etag"), Some("\"53\""));
    let window = window.ok();
    let items = window["items"].as_array().unwrap();
    let tokens: u64 = items.iter().map(|item| item["tokens"].as_u64().unwrap()).sum();
    assert_eq!(window["tokens"], tokens);
    assert!(tokens <= 80, "{tokens}");
    assert_eq!((&items[0]["seq"], &items[1]["seq"]), (&json!(1), &json!(2)));
    assert_eq!(items.last().unwrap()["seq"], 52);
    let omitted = &window["omitted"];
    assert_eq!(omitted["first_seq"], 3);
    assert_eq!(omitted["items"], 52 - items.len());
    let reasons = window["reasons"].as_array().unwrap();
    assert!(
        reasons.starts_with(&[json!("cut_at_turn"), json!("kept_pinned")]),
        "{reasons:?}"
    );
    let whole = client.get("/v1/contexts/c/window?format=items").ok();
    assert_eq!(
        (&whole["omitted"], &whole["reasons"]),
        (&Value::Null, &json!(["everything_fits"]))
    );
}

#[test]
fn a_window_that_cannot_be_says_what_would_do() {
    let server = server();
    let client = server.client();
    append(
        &client,
        &[],
        &json!([{"role": "system", "content": "word ".repeat(100)}]),
    )
    .ok();
    fill(&client, 3);
    let problem = client
        .get("/v1/contexts/c/window?max_tokens=5")
        .problem(422, "budget_too_small");
    let minimum = problem["minimum"].as_u64().unwrap();
    client
        .get(&format!("/v1/contexts/c/window?max_tokens={minimum}"))
        .ok();
    let less = format!("/v1/contexts/c/window?max_tokens={}", minimum - 1);
    client.get(&less).problem(422, "budget_too_small");
}

#[test]
fn a_summary_is_made_kept_and_replaced_by_the_clients_own() {
    let server = server();
    let client = server.client();
    fill(&client, 3);
    assert_eq!(
        client.get("/v1/contexts/c/summary").ok(),
        json!({"summary": null})
    );
    let talk = json!([
        {"role": "user", "content": "Please book the flight HAT136 for me on 2024-05-20."},
        {"role": "assistant", "content": "I have booked it; the total is $120."},
        {"role": "user", "content": "Thank you, and send me the receipt."}
    ]);
    append(&client, &[], &talk).ok();
    let path = "/v1/contexts/c/summary?first_seq=4&last_seq=6";
    let made = client.get(path).ok()["summary"].clone();
    assert_eq!(
        (&made["kind"], &made["first_seq"], &made["last_seq"]),
        (&json!("extractive"), &json!(4), &json!(6))
    );
    let text = made["text"].as_str().unwrap();
    assert!(
        text.starts_with("Goal [4]: Please book the flight HAT136"),
        "{text}"
    );
    assert!(
        text.contains("$120") && text.contains("Last request [6]"),
        "{text}"
    );
    assert_eq!(client.get(path).ok()["summary"], made, "made once");
    client
        .post("/v1/contexts/c/truncate", r#"{"max_tokens":30}"#)
        .ok();
    assert_eq!(client.get(path).ok()["summary"], made, "its items are gone");
    let own = r#"{"first_seq":4,"last_seq":6,"text":"booked"}"#;
    let put = client.send("PUT", "/v1/contexts/c/summary", &[], own).ok()["summary"].clone();
    assert_eq!(
        (&put["kind"], &put["text"]),
        (&json!("external"), &json!("booked"))
    );
    assert_eq!(client.get(path).ok()["summary"], put);
    for (query, field) in [
        ("first_seq=4", "last_seq"),
        ("last_seq=4", "first_seq"),
        ("first_seq=0&last_seq=4", "first_seq"),
        ("first_seq=1&last_seq=7", "last_seq"),
    ] {
        client
            .get(&format!("/v1/contexts/c/summary?{query}"))
            .problem_in(422, "invalid", field);
    }
    let empty = r#"{"first_seq":4,"last_seq":6,"text":" "}"#;
    client
        .send("PUT", "/v1/contexts/c/summary", &[], empty)
        .problem_in(422, "invalid", "text");
    let gone = client.get("/v1/contexts/never/summary");
    gone.problem(404, "not_found");
}
