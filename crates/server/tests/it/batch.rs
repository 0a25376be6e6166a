//! Batches over REST: many contexts in one request, each element with its own result.

use serde_json::{Value, json};

use crate::support::http::{Client, Response};
use crate::support::{ACME, OTHER, Server, TWO_TENANTS};

fn create(client: &Client, ids: &[&str]) {
    for id in ids {
        let body = json!({"id": id, "agent_id": "a", "tokenizer": "estimate"});
        client.post("/v1/contexts", body.to_string()).ok();
    }
}

fn batch(client: &Client, body: &Value) -> Response {
    client.post("/v1/batch", body.to_string())
}

/// The results of a batch, and that there are as many.
fn results(client: &Client, body: &Value, count: usize) -> Vec<Value> {
    let answer = batch(client, body).ok();
    let results = answer["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), count, "{answer}");
    results
}

fn statuses(results: &[Value]) -> Vec<u64> {
    results
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect()
}

fn said(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[test]
fn many_are_read_appended_to_and_deleted_in_one_request_each() {
    let server = Server::start();
    let client = server.client();
    create(&client, &["a", "b", "c"]);
    let appends = json!({"append": [
        {"id": "a", "items": [said("1"), said("2")]},
        {"id": "b", "items": [said("3")], "idempotency_key": "k", "if_match": 1},
        {"id": "a", "items": [said("4")]},
    ]});
    let appended = results(&client, &appends, 3);
    assert_eq!(statuses(&appended), [200, 200, 200]);
    let places: Vec<_> = appended
        .iter()
        .map(|result| {
            let appended = &result["appended"];
            (appended["first_seq"].clone(), appended["version"].clone())
        })
        .collect();
    assert_eq!(
        places,
        [(json!(1), json!(2)), (json!(1), json!(2)), (json!(3), json!(3))]
    );
    // The element that has a key is done once; the others are done again.
    let again = results(&client, &appends, 3);
    assert_eq!(again[1], appended[1]);
    assert_eq!(again[0]["appended"]["first_seq"], 4);

    let answer = batch(&client, &json!({"get": ["c", "a", "c"]}));
    assert_eq!(answer.header("contextkeep-origin"), Some("primary"));
    assert!(answer.header("contextkeep-token").is_some());
    let read = answer.ok()["results"].clone();
    for (result, id) in read.as_array().unwrap().iter().zip(["c", "a", "c"]) {
        assert_eq!(result["status"], 200);
        assert_eq!(result["context"], client.get(&format!("/v1/contexts/{id}")).ok());
    }

    let deletes = json!({"delete": [{"id": "a", "if_match": 5}, {"id": "c"}, {"id": "c"}]});
    let deleted = results(&client, &deletes, 3);
    assert_eq!(statuses(&deleted), [204, 204, 404]);
    assert_eq!(
        (&deleted[0]["version"], &deleted[1]["version"]),
        (&json!(6), &json!(2))
    );
    client.get("/v1/contexts/a").problem(404, "not_found");
    assert_eq!(client.get("/v1/contexts/b").ok()["item_count"], 1);
}

#[test]
fn items_of_a_batch_come_back_byte_for_byte() {
    let server = Server::start();
    let client = server.client();
    create(&client, &["a"]);
    let item = r#"{ "content" : "ü\u00fc\n😀","role":"user" , "x":1e30,"y":-0.0,"z":1.10}"#;
    let body = format!(r#"{{"append":[{{"id":"a","items":[{item}]}}]}}"#);
    client.post("/v1/batch", body).ok();
    let page = client.get("/v1/contexts/a/items");
    assert!(page.text().contains(item), "{}", page.text());
}

#[test]
fn a_bad_element_has_the_problem_of_the_single_request_and_stops_no_other() {
    let server = Server::with("context_manager: { limits: { item_size: 1KiB, append_items: 3 } }");
    let client = server.client();
    create(&client, &["a"]);
    let bad_role = json!({"role": 7, "content": "x"});
    let appends = json!({"append": [
        {"id": "no spaces please", "items": [said("x")]},
        {"id": "a", "items": []},
        {"id": "a", "items": [said("x"), bad_role]},
        {"id": "a", "items": [said(&"x".repeat(1024))]},
        {"id": "a", "items": [said("x"), said("x"), said("x"), said("x")]},
        {"id": "a", "items": [said("x")], "if_match": 9},
        {"id": "a", "items": [said("x")], "idempotency_key": ""},
        {"id": "a", "items": [{"role": "user", "content": "x", "client_id": "m"}, {"role": "user", "content": "y", "client_id": "m"}]},
        {"id": "never", "items": [said("x")]},
        {"id": "a", "items": [said("good")]},
    ]});
    let appended = results(&client, &appends, 10);
    assert_eq!(
        statuses(&appended),
        [422, 422, 422, 413, 413, 412, 422, 422, 404, 200]
    );
    let codes: Vec<_> = appended
        .iter()
        .map(|result| result["problem"]["code"].as_str())
        .collect();
    let (invalid, large) = (Some("invalid"), Some("too_large"));
    assert_eq!(
        codes,
        [
            invalid,
            invalid,
            invalid,
            large,
            large,
            Some("version_mismatch"),
            invalid,
            invalid,
            Some("not_found"),
            None
        ]
    );
    // Each is what the single request answers.
    for (index, append) in appends["append"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .take(5)
        .skip(1)
    {
        let single = client.post(
            "/v1/contexts/a/items",
            json!({ "items": append["items"] }).to_string(),
        );
        assert_eq!(appended[index]["problem"], single.json(), "element {index}");
    }
    assert_eq!(client.get("/v1/contexts/a").ok()["item_count"], 1);

    let read = results(&client, &json!({"get": ["never", "no spaces please", "a"]}), 3);
    assert_eq!(statuses(&read), [404, 422, 200]);
    let deletes = json!({"delete": [{"id": "never"}, {"id": ""}, {"id": "a", "if_match": 1}, {"id": "a"}]});
    let deleted = results(&client, &deletes, 4);
    assert_eq!(statuses(&deleted), [404, 422, 412, 204]);
    assert_eq!(deleted[2]["problem"]["current_version"], 2);
}

#[test]
fn a_batch_that_is_not_one_is_refused_as_a_whole() {
    let server = Server::start();
    let client = server.client();
    create(&client, &["a"]);
    for body in [
        json!({}),
        json!({"get": ["a"], "delete": [{"id": "a"}]}),
        json!({"get": null}),
        json!({"get": ["a"], "put": []}),
        json!({"get": "a"}),
        json!({"get": [1]}),
        json!({"append": [{"id": "a"}]}),
        json!({"append": [{"id": "a", "items": [said("x")], "pinned": true}]}),
        json!({"delete": [{"id": "a", "if_match": -1}]}),
        json!({"delete": ["a"]}),
    ] {
        batch(&client, &body).problem(422, "invalid");
    }
    client.post("/v1/batch", "{").problem(400, "malformed_json");
    let read = client.get("/v1/contexts/a").ok();
    assert_eq!((&read["version"], &read["item_count"]), (&json!(1), &json!(0)));
    for operation in ["get", "append", "delete"] {
        results(&client, &json!({ operation: [] }), 0);
    }
}

#[test]
fn a_batch_is_bounded() {
    let server = Server::with("context_manager: { limits: { batch_max: 3 } }");
    let client = server.client();
    create(&client, &["a"]);
    let delete = json!({"id": "a"});
    let append = json!({"id": "a", "items": [said("x")]});
    for (operation, element) in [("get", json!("a")), ("append", append), ("delete", delete)] {
        let four = json!({ operation: vec![&element; 4] });
        let problem = batch(&client, &four).problem_in(422, "invalid", operation);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains('4') && detail.contains('3'), "{detail}");
        assert_eq!(
            client.get("/v1/contexts/a").ok()["version"],
            if operation == "delete" { 4 } else { 1 }
        );
        if operation != "get" {
            results(&client, &json!({ operation: vec![&element; 3] }), 3);
        }
    }
    client.get("/v1/contexts/a").problem(404, "not_found");
}

#[test]
fn ids_of_another_tenant_look_like_missing_ones() {
    let server = Server::with(TWO_TENANTS);
    let (acme, other) = (server.client_with(ACME), server.client_with(OTHER));
    create(&acme, &["a"]);
    let batches = |id: &str| {
        [
            json!({"get": [id]}),
            json!({"append": [{"id": id, "items": [said("x")]}]}),
            json!({"delete": [{"id": id}]}),
        ]
    };
    for (foreign, missing) in batches("a").iter().zip(&batches("never")) {
        let foreign = results(&other, foreign, 1);
        assert_eq!(statuses(&foreign), [404]);
        assert_eq!(foreign, results(&other, missing, 1));
    }
    let read = acme.get("/v1/contexts/a").ok();
    assert_eq!((&read["version"], &read["item_count"]), (&json!(1), &json!(0)));
}
