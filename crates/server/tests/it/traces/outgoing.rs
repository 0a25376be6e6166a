//! Requests that the server makes for traced ones go on with their traces.

use serde_json::json;

use super::collector::{Collector, Manner};
use super::{SAMPLED, TRACE, UNSAMPLED, hex, traced};
use crate::semantic::Embedder;
use crate::support::http::Client;
use crate::support::{Server, eventually};

fn search(client: &Client, query: &str, traceparent: (&str, &str)) {
    let query = json!({"query": query, "mode": "semantic"}).to_string();
    client.send("POST", "/v1/search", &[traceparent], query).ok();
}

#[test]
fn an_embedder_is_asked_within_the_trace_of_the_search_that_asks_it() {
    let (collector, embedder) = (Collector::start(Manner::Takes), Embedder::new());
    let config = embedder.config("") + "\n" + &traced(&collector.url, "sample_ratio: 0");
    let server = Server::with(&config);
    let client = server.client();
    search(&client, "who is traced", SAMPLED);
    search(&client, "who is not", UNSAMPLED);
    let span = collector.span("POST /v1/search");
    let from_it = format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!(embedder.traceparent("who is traced"), Some(from_it));
    assert_eq!(embedder.traceparent("who is not").as_deref(), Some(""));
    // Items are embedded in the background, for nobody's request.
    let new = json!({"id": "c", "agent_id": "a"}).to_string();
    client.send("POST", "/v1/contexts", &[SAMPLED], new).ok();
    let items = json!({"items": [{"role": "user", "content": "said in passing"}]}).to_string();
    client
        .send("POST", "/v1/contexts/c/items", &[SAMPLED], items)
        .ok();
    let asked = eventually("the item is embedded", || embedder.traceparent("said in passing"));
    assert_eq!(asked, "");
}
