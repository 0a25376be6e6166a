//! What one client has seen: M5.

use std::sync::atomic::{AtomicU64, Ordering};

use contextkeep_cache::observe::Observer;
use contextkeep_cache::{Cache, Origin};
use contextkeep_core::cached::{CACHE_NAME, CachedStore, HeldLimits};
use contextkeep_core::rollout::Rollout;
use contextkeep_core::settings::RolloutSettings;
use contextkeep_core::{ContextId, ContextKey, ContextManagerFactory, ContextPatch, ContextStore};
use serde_json::json;

use super::*;
use crate::support::http::{Client as Http, Response};

/// Answers from the process' memory.
#[derive(Debug, Default)]
struct FromMemory(AtomicU64);

impl Observer for FromMemory {
    fn answered(&self, origin: Origin) {
        self.0
            .fetch_add(u64::from(origin == Origin::L1), Ordering::Relaxed);
    }
}

/// A manager with a cache that nobody tells what others do.
fn cached(store: &Arc<FakeStore>) -> (Arc<dyn ContextManager>, Arc<FromMemory>) {
    let counts = Arc::new(FromMemory::default());
    let cache = Cache::builder(CACHE_NAME)
        .observer(counts.clone())
        .build()
        .unwrap();
    let limits = HeldLimits {
        contexts: 100,
        bytes: 8 << 20,
        context_bytes: 1 << 20,
        cold_percent: 30,
    };
    let cached = CachedStore::new(store.clone(), cache, Some(limits), Arc::new(SystemClock));
    let rollout = Arc::new(Rollout::new(RolloutSettings::default()));
    let factory = ContextManagerFactory::new(store.clone(), LimitSettings::default());
    (factory.cached(cached, rollout).build().0, counts)
}

#[tokio::test]
async fn a_client_over_stdio_reads_from_memory_and_never_goes_back() {
    for era in Era::BOTH {
        let store = Arc::new(FakeStore::new(Arc::new(SystemClock)));
        let (manager, from_memory) = cached(&store);
        let client = stdio_client(manager.clone(), era).await;
        client.context("c", &["1"]).await;
        for said in 2..5 {
            let items = json!([{"role": "user", "content": "again"}]);
            client
                .call("context_append", json!({"id": "c", "items": items}))
                .await;
            let window = client.call("context_window", json!({"id": "c"})).await;
            assert_eq!(window["items"].as_array().unwrap().len(), said, "its own writes");
        }
        assert!(from_memory.0.load(Ordering::Relaxed) >= 2);
        // What it has seen of others is a floor for what it sees next, in whichever request.
        let key = ContextKey::new(TenantId::parse("acme").unwrap(), ContextId::parse("c").unwrap());
        let patch = ContextPatch {
            name: Some(Some("elsewhere".to_owned())),
            ..ContextPatch::default()
        };
        let version = store.update(&key, patch, None).await.unwrap().version;
        let listed = client.call("context_list", json!({})).await;
        assert_eq!(listed["contexts"][0]["name"], "elsewhere");
        let window = client.call("context_window", json!({"id": "c"})).await;
        assert_eq!(window["version"], version, "it went back in time");
    }
}

#[tokio::test]
async fn without_a_session_over_http_reads_are_the_store_s() {
    let store = Arc::new(FakeStore::new(Arc::new(SystemClock)));
    let (manager, from_memory) = cached(&store);
    let server = Server::with(manager, McpSettings::default()).await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("c", &["1"]).await;
    // A write goes on from what is in memory, if it is.
    let before = from_memory.0.load(Ordering::Relaxed);
    for _ in 0..3 {
        client.call("context_window", json!({"id": "c"})).await;
    }
    assert_eq!(from_memory.0.load(Ordering::Relaxed), before);
}

fn call(client: &Http, tool: &str, arguments: &Value, headers: &[(&str, &str)]) -> Response {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments}});
    let mut all = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    all.extend_from_slice(headers);
    client.send("POST", "/mcp", &all, body.to_string())
}

fn said(response: &Response) -> usize {
    let result = &response.ok()["result"]["structuredContent"];
    let items = result["items"].as_array();
    items.unwrap_or_else(|| panic!("{}", response.text())).len()
}

#[test]
fn a_header_puts_calls_over_http_into_a_session() {
    let server = crate::support::Server::start();
    let client = server.client();
    call(
        &client,
        "context_create",
        &json!({"id": "c", "agent_id": "a"}),
        &[],
    )
    .ok();
    let items = json!({"id": "c", "items": [{"role": "user", "content": "x"}]});
    assert!(
        call(&client, "context_append", &items, &[])
            .header("contextkeep-token")
            .is_none(),
        "nobody asked for one"
    );
    let from_memory = || {
        let page = client.get("/metrics").text();
        let series = "contextkeep_cache_reads_total{origin=\"l1\"} ";
        let value = page.lines().find_map(|line| line.strip_prefix(series));
        value.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    let bounded = [("contextkeep-consistency", "bounded")];
    crate::support::eventually("a window from memory", || {
        let before = from_memory();
        let window = call(&client, "context_window", &json!({"id": "c"}), &bounded);
        assert_eq!(said(&window), 1);
        assert!(window.header("contextkeep-token").is_some());
        (from_memory() > before).then_some(())
    });
    for odd in [
        ("contextkeep-consistency", "eventual"),
        ("contextkeep-token", "garbage"),
    ] {
        let refused = call(&client, "context_window", &json!({"id": "c"}), &[odd]);
        assert_eq!(refused.status, 400, "{}", refused.text());
        let error: Value = serde_json::from_str(&refused.text()).unwrap();
        assert_eq!(
            (&error["id"], &error["error"]["code"]),
            (&json!(1), &json!(-32600))
        );
    }
}

// G4 over MCP: the token that one server gave is a floor at another one.
#[test]
#[ignore = "needs services"]
fn a_token_is_honoured_by_another_server() {
    let dsn = crate::postgres::database();
    let start = || {
        let manager = json!({"database": {"dsn": dsn, "max_open_conns": 10}});
        crate::support::Start::with(&json!({"context_manager": manager}).to_string())
            .up(crate::support::Folder::Own(crate::support::folder()))
    };
    let (one, two) = (start(), start());
    let clients = [one.client(), two.client()];
    let create = json!({"id": "c", "agent_id": "a"});
    let created = call(
        &clients[0],
        "context_create",
        &create,
        &[("contextkeep-consistency", "session")],
    );
    let mut token = created.header("contextkeep-token").unwrap().to_owned();
    for n in 1..=10 {
        let items = json!({"id": "c", "items": [{"role": "user", "content": "x"}]});
        let appended = call(
            &clients[n % 2],
            "context_append",
            &items,
            &[("contextkeep-token", &token)],
        );
        appended
            .header("contextkeep-token")
            .unwrap()
            .clone_into(&mut token);
        let window = call(
            &clients[(n + 1) % 2],
            "context_window",
            &json!({"id": "c"}),
            &[("contextkeep-token", &token)],
        );
        assert_eq!(said(&window), n);
        window.header("contextkeep-token").unwrap().clone_into(&mut token);
    }
}
