//! What a model is told when a call cannot be done.

use serde_json::{Value, json};

use super::{Era, Server};

async fn each_is_refused(calls: &[(&'static str, Value, &str)]) {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &[]).await;
    for (tool, arguments, expected) in calls {
        let text = client.refusal(tool, arguments.clone()).await;
        assert!(text.contains(expected), "{tool} {arguments}: {text}");
    }
}

#[tokio::test]
async fn a_bad_write_names_the_field_and_what_would_work() {
    let wizard = json!([{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}]);
    each_is_refused(&[
        (
            "context_create",
            json!({}),
            "invalid: agent_id: is required. Next: Name of the agent",
        ),
        (
            "context_create",
            json!({"agent_id": "a", "tokenizer": "gpt"}),
            "tokenizer: is \"gpt\"; it must be one of",
        ),
        (
            "context_create",
            json!({"agent_id": "a", "expires_at": "soon"}),
            "\"soon\" is not an RFC 3339 time",
        ),
        (
            "context_create",
            json!({"agent_id": "a", "max_tokens": 0}),
            "max_tokens: is 0; it must be a whole number from 1",
        ),
        (
            "context_create",
            json!({"agent_id": "a", "tenant": "b"}),
            "tenant: is not an argument of this tool",
        ),
        (
            "context_append",
            json!({"id": "c", "items": []}),
            "items: has 0 entries; it must have 1 to 1000",
        ),
        (
            "context_append",
            json!({"id": "c", "items": ["hello"]}),
            "items[0]: is not a JSON object",
        ),
        (
            "context_append",
            json!({"id": "c", "items": wizard}),
            "invalid: items[1]",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_bad_read_names_the_field_and_what_would_work() {
    each_is_refused(&[
        ("context_window", json!({"id": "../c"}), "invalid: id: "),
        (
            "context_window",
            json!({"id": "c", "max_tokens": "many"}),
            "max_tokens: is \"many\"; it must be a whole number",
        ),
        (
            "context_list",
            json!({"limit": 101}),
            "limit: is 101; it must be a whole number from 1 to 100",
        ),
        (
            "context_list",
            json!({"id": "c", "agent_id": "a"}),
            "id: cannot be combined",
        ),
        ("context_list", json!({"cursor": "forged"}), "cursor: "),
        (
            "context_search",
            json!({"query": "x", "cursor": "l.1.c"}),
            "cursor: ",
        ),
        ("context_search", json!({"query": "\"open"}), "invalid: query: "),
        (
            "context_search",
            json!({"query": "x", "role": "wizard"}),
            "role: is \"wizard\"; it must be one of",
        ),
    ])
    .await;
}
