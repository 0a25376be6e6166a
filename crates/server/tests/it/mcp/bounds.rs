//! Caps on results, and on the time that a call may take.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_core::semantic::{SemanticPage, SemanticQuery};
use contextkeep_core::store::{
    Appended, ContextPage, Created, ItemPage, ItemQuery, ListQuery, SearchPage, SearchQuery, StoreHealth,
};
use contextkeep_core::summary::{PutSummary, Summary, SummaryRequest};
use contextkeep_core::{
    Answer, AppendRequest, Context, ContextId, ContextKey, ContextManager, ContextPatch, Head, NewContext,
    Result, Seq, TenantId, TruncateRequest, Truncation, Version, Window, WindowRequest,
};
use contextkeep_server::mcp::McpSettings;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Client, Era, Server, manager};

const CHARS_MAX: usize = 4000;

async fn capped() -> (Server, Client) {
    let settings = McpSettings {
        max_result_chars: CHARS_MAX,
        ..McpSettings::default()
    };
    let server = Server::with(manager(), settings).await;
    let client = server.client(Era::Modern, "acme").await;
    (server, client)
}

// M3
#[tokio::test]
async fn a_window_over_the_cap_is_cut_between_turns_and_says_so() {
    let (_server, client) = capped().await;
    client.context("c", &[]).await;
    for number in 0..10 {
        let call = format!("call_{number}");
        let items = json!([
            {"role": "user", "content": format!("question {number}")},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": call, "content": "word ".repeat(100)},
        ]);
        client
            .call("context_append", json!({"id": "c", "items": items}))
            .await;
    }
    let text = client.text("context_window", json!({"id": "c"})).await;
    assert!(text.chars().count() <= CHARS_MAX);
    let window: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(window["truncated"], true);
    assert!(
        window["hint"].as_str().unwrap().contains("max_tokens"),
        "{window}"
    );
    let items = window["items"].as_array().unwrap();
    assert!(items.len() >= 6, "room for two turns at least");
    assert_eq!(items.len() % 3, 0, "whole turns");
    assert_eq!(items[0]["item"]["role"], "user");
    assert_eq!(items.last().unwrap()["seq"], 30);
    assert_eq!(window["omitted"]["items"], 30 - items.len());
}

// M3
#[tokio::test]
async fn a_window_that_cannot_be_cut_to_the_cap_is_refused_with_a_way_out() {
    let (_server, client) = capped().await;
    client.context("c", &[&"word ".repeat(2000)]).await;
    let text = client.refusal("context_window", json!({"id": "c"})).await;
    assert!(text.starts_with("result_too_large: "), "{text}");
    assert!(text.contains("4000") && text.contains("context_search"), "{text}");
}

#[tokio::test]
async fn a_budget_that_is_too_small_says_what_would_do() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &["one two three four five six seven"]).await;
    let text = client
        .refusal("context_window", json!({"id": "c", "max_tokens": 2}))
        .await;
    assert!(text.starts_with("budget_too_small: "), "{text}");
    assert!(text.contains("ask for max_tokens of at least"), "{text}");
}

// M3
#[tokio::test]
async fn pages_over_the_cap_end_early_and_go_on_with_their_cursor() {
    let (_server, client) = capped().await;
    for number in 0..12 {
        let labels = json!([format!("{number:0>250}"), "long"]);
        let id = format!("c{number}");
        client
            .call(
                "context_create",
                json!({"id": id, "agent_id": "a", "labels": labels}),
            )
            .await;
        let item = json!({"role": "user", "content": format!("needle {}", "x".repeat(900))});
        client
            .call("context_append", json!({"id": id, "items": [item]}))
            .await;
    }
    for (tool, field, mut arguments) in [
        ("context_list", "contexts", json!({})),
        (
            "context_search",
            "hits",
            json!({"query": "needle", "detail": "item", "limit": 20}),
        ),
    ] {
        let (mut seen, mut pages) = (std::collections::BTreeSet::new(), 0);
        loop {
            let text = client.text(tool, arguments.clone()).await;
            assert!(text.chars().count() <= CHARS_MAX, "{tool}");
            let page: serde_json::Value = serde_json::from_str(&text).unwrap();
            for entry in page[field].as_array().unwrap() {
                assert!(
                    seen.insert(entry["id"].as_str().unwrap().to_owned()),
                    "{tool} repeats {entry}"
                );
            }
            pages += 1;
            let Some(cursor) = page.get("next_cursor") else {
                break;
            };
            assert!(page["hint"].as_str().unwrap().contains("next_cursor"));
            arguments["cursor"] = cursor.clone();
        }
        assert_eq!(seen.len(), 12, "{tool}");
        assert!(pages > 1, "{tool}");
    }
}

// M3
#[tokio::test]
async fn an_item_that_is_too_large_for_a_page_of_hits_is_named_as_left_out() {
    let (_server, client) = capped().await;
    client
        .context("c", &[&format!("needle {}", "word ".repeat(1000))])
        .await;
    let page = client
        .call("context_search", json!({"query": "needle", "detail": "item"}))
        .await;
    assert_eq!(page["hits"][0]["item_omitted"], true);
    assert!(page["hits"][0]["snippet"].as_str().unwrap().contains("needle"));
}

// M3
#[tokio::test]
async fn metadata_over_the_cap_is_left_out_with_a_hint() {
    let (_server, client) = capped().await;
    let metadata = json!({"text": "x".repeat(5000)});
    client
        .call(
            "context_create",
            json!({"id": "c", "agent_id": "a", "metadata": metadata}),
        )
        .await;
    let page = client.call("context_list", json!({"id": "c"})).await;
    assert!(page["contexts"][0].get("metadata").is_none());
    assert!(page["hint"].as_str().unwrap().contains("metadata"));
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_ended() {
    let settings = McpSettings {
        call_timeout: Duration::from_millis(20),
        ..McpSettings::default()
    };
    let (stuck, mut seen) = Stuck::new();
    let server = Server::with(Arc::new(stuck), settings).await;
    let client = server.client(Era::Modern, "acme").await;
    let text = client.refusal("context_window", json!({"id": "c"})).await;
    assert!(text.starts_with("timed_out: "), "{text}");
    assert_eq!(seen.recv().await, Some(Seen::Began));
    assert_eq!(seen.recv().await, Some(Seen::Dropped));
}

#[tokio::test]
async fn a_call_whose_client_goes_away_is_dropped() {
    let (stuck, mut seen) = Stuck::new();
    let server = Server::with(Arc::new(stuck), McpSettings::default()).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"context_window","arguments":{"id":"c"}}}"#;
    let call = super::wire::post(&server, body);
    tokio::select! {
        _ = call => panic!("a stuck call was answered"),
        began = seen.recv() => assert_eq!(began, Some(Seen::Began)),
    }
    assert_eq!(seen.recv().await, Some(Seen::Dropped));
}

#[derive(Debug, PartialEq)]
enum Seen {
    Began,
    Dropped,
}

/// A manager that never answers, and tells when it was asked and when it was given up.
#[derive(Debug)]
struct Stuck(mpsc::UnboundedSender<Seen>);

struct TellOnDrop(mpsc::UnboundedSender<Seen>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.send(Seen::Dropped).unwrap();
    }
}

impl Stuck {
    fn new() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    async fn forever<T>(&self) -> T {
        self.0.send(Seen::Began).unwrap();
        let _tell = TellOnDrop(self.0.clone());
        std::future::pending().await
    }
}

#[async_trait::async_trait]
impl ContextManager for Stuck {
    async fn create(&self, _: &TenantId, _: NewContext) -> Result<Answer<Created>> {
        self.forever().await
    }
    async fn get(&self, _: &ContextKey) -> Result<Answer<Arc<Head>>> {
        self.forever().await
    }
    async fn get_many(&self, _: &TenantId, _: &[ContextId]) -> Result<Answer<Vec<Option<Context>>>> {
        self.forever().await
    }
    async fn update(&self, _: &ContextKey, _: ContextPatch, _: Option<Version>) -> Result<Answer<Context>> {
        self.forever().await
    }
    async fn delete(&self, _: &ContextKey, _: Option<Version>) -> Result<Answer<Version>> {
        self.forever().await
    }
    async fn delete_many(
        &self,
        _: &TenantId,
        _: Vec<(ContextId, Option<Version>)>,
    ) -> Answer<Vec<Result<Version>>> {
        self.forever().await
    }
    async fn append(&self, _: &ContextKey, _: AppendRequest) -> Result<Answer<Appended>> {
        self.forever().await
    }
    async fn append_many(
        &self,
        _: &TenantId,
        _: Vec<(ContextId, AppendRequest)>,
    ) -> Answer<Vec<Result<Appended>>> {
        self.forever().await
    }
    async fn replace(&self, _: &ContextKey, _: AppendRequest) -> Result<Answer<Appended>> {
        self.forever().await
    }
    async fn truncate(&self, _: &ContextKey, _: TruncateRequest) -> Result<Answer<Truncation>> {
        self.forever().await
    }
    async fn fork(&self, _: &ContextKey, _: Option<Seq>, _: NewContext) -> Result<Answer<Created>> {
        self.forever().await
    }
    async fn items(&self, _: &ContextKey, _: ItemQuery) -> Result<Answer<ItemPage>> {
        self.forever().await
    }
    async fn window(&self, _: &ContextKey, _: WindowRequest) -> Result<Answer<Arc<Window>>> {
        self.forever().await
    }
    async fn summary(&self, _: &ContextKey, _: SummaryRequest) -> Result<Answer<Option<Summary>>> {
        self.forever().await
    }
    async fn put_summary(&self, _: &ContextKey, _: PutSummary) -> Result<Answer<Summary>> {
        self.forever().await
    }
    async fn list(&self, _: &TenantId, _: ListQuery) -> Result<Answer<ContextPage>> {
        self.forever().await
    }
    async fn search_semantic(&self, _: &TenantId, _: SemanticQuery) -> Result<Answer<SemanticPage>> {
        self.forever().await
    }
    async fn search(&self, _: &TenantId, _: SearchQuery) -> Result<Answer<SearchPage>> {
        self.forever().await
    }
    async fn check(&self) -> Result<StoreHealth> {
        self.forever().await
    }
}
