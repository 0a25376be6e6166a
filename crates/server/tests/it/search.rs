//! Full text search over REST.

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Server, eventually};

fn server() -> Server {
    let server = Server::start();
    let client = server.client();
    for (id, words) in [("one", "paris"), ("two", "rome")] {
        let body = json!({"id": id, "agent_id": "a"}).to_string();
        client.post("/v1/contexts", body).ok();
        let items: Vec<Value> = (0..7)
            .map(|n| json!({"role": "user", "content": format!("flight {n} to {words}")}))
            .chain([json!({"role": "assistant", "content": "a train instead"})])
            .collect();
        let body = json!({ "items": items }).to_string();
        client.post(&format!("/v1/contexts/{id}/items"), body).ok();
    }
    settle(&client);
    server
}

/// Waits until the index has everything.
fn settle(client: &Client) {
    eventually("the index catches up", || {
        (client.get("/readyz").ok()["search_lag_items"] == 0).then_some(())
    });
}

/// All hits of all pages, as context and seq.
fn hits(client: &Client, path: &str, query: &Value) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut query = query.clone();
    loop {
        let page = client.post(path, query.to_string()).ok();
        found.extend(page["hits"].as_array().unwrap().iter().map(|hit| {
            let context = hit["context_id"].as_str().unwrap().to_owned();
            (context, hit["seq"].as_u64().unwrap())
        }));
        if page["next_cursor"].is_null() {
            return found;
        }
        query["cursor"] = page["next_cursor"].clone();
    }
}

#[test]
fn a_search_is_paged_to_its_end() {
    let server = server();
    let client = server.client();
    let mut all = hits(&client, "/v1/search", &json!({"query": "flight", "limit": 3}));
    all.sort();
    let expected: Vec<(String, u64)> = ["one", "two"]
        .iter()
        .flat_map(|id| (1..=7).map(|seq| ((*id).to_owned(), seq)))
        .collect();
    assert_eq!(all, expected);
}

#[test]
fn a_search_stays_inside_its_context_role_and_words() {
    let server = server();
    let client = server.client();
    let inside = hits(
        &client,
        "/v1/contexts/two/search",
        &json!({"query": "flight", "limit": 2}),
    );
    assert_eq!(inside.len(), 7);
    assert!(inside.iter().all(|(id, _)| id == "two"));
    let said = hits(
        &client,
        "/v1/search",
        &json!({"query": "train", "role": "assistant"}),
    );
    assert_eq!(said.len(), 2);
    assert_eq!(
        hits(&client, "/v1/search", &json!({"query": "train", "role": "user"})),
        []
    );
    assert_eq!(
        hits(&client, "/v1/search", &json!({"query": "\"to rome\" -3"})).len(),
        6
    );
}

#[test]
fn a_hit_shows_what_was_found() {
    let server = server();
    let page = server.client().post("/v1/search", r#"{"query":"rome 4"}"#).ok();
    let hit = &page["hits"][0];
    assert_eq!(hit["snippet"], "flight «4» to «rome»");
    assert_eq!(
        hit["item"],
        json!({"role": "user", "content": "flight 4 to rome"})
    );
    assert_eq!(page["lag_items"], 0);
}

#[test]
fn a_deleted_context_is_not_found() {
    let server = server();
    let client = server.client();
    assert_eq!(client.delete("/v1/contexts/one").status, 204);
    assert_eq!(hits(&client, "/v1/search", &json!({"query": "paris"})), []);
    let gone = client.post("/v1/contexts/one/search", r#"{"query":"paris"}"#);
    gone.problem(404, "not_found");
}

#[test]
fn bad_queries_are_refused_by_field() {
    let server = server();
    let client = server.client();
    for (body, field) in [
        (r#"{"query":""}"#, "query"),
        (r#"{"query":"\"open"}"#, "query"),
        (r#"{"query":"-only"}"#, "query"),
        (r#"{"query":"a","role":"king"}"#, "role"),
        (r#"{"query":"a","limit":0}"#, "limit"),
        (r#"{"query":"a","limit":101}"#, "limit"),
        (r#"{"query":"a","limit":-1}"#, "limit"),
        (r#"{"query":"a","cursor":"x"}"#, "cursor"),
    ] {
        client.post("/v1/search", body).problem_in(422, "invalid", field);
    }
    let long = json!({"query": "x".repeat(2000)}).to_string();
    client
        .post("/v1/search", long)
        .problem_in(422, "invalid", "query");
}

#[test]
fn a_cursor_of_another_search_is_refused() {
    let server = server();
    let client = server.client();
    let page = client.post("/v1/search", r#"{"query":"flight","limit":2}"#).ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let other = json!({"query": "train", "cursor": cursor}).to_string();
    client
        .post("/v1/search", other)
        .problem_in(422, "invalid", "cursor");
    let inside = json!({"query": "flight", "cursor": cursor}).to_string();
    client
        .post("/v1/contexts/one/search", inside)
        .problem_in(422, "invalid", "cursor");
}

#[test]
fn a_search_stays_inside_its_span_of_time() {
    let server = server();
    let client = server.client();
    let found = |span: Value| {
        let mut body = json!({"query": "fli*"});
        body.as_object_mut()
            .unwrap()
            .extend(span.as_object().unwrap().clone());
        hits(&client, "/v1/search", &body).len()
    };
    let all = found(json!({}));
    assert!(all > 0);
    assert_eq!(
        found(json!({"since": "2020-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"})),
        all
    );
    assert_eq!(found(json!({"since": "2999-01-01T00:00:00Z"})), 0);
    assert_eq!(found(json!({"until": "2020-01-01T00:00:00Z"})), 0);
    for (body, field) in [
        (r#"{"query":"a","since":"yesterday"}"#, "since"),
        (
            r#"{"query":"a","since":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:00Z"}"#,
            "until",
        ),
    ] {
        client.post("/v1/search", body).problem_in(422, "invalid", field);
    }
}
