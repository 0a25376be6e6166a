//! Contexts over REST: create, list, read, change, delete, fork.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::http::{Client, Response};
use crate::support::{ACME, OTHER, Server, TWO_TENANTS};

#[test]
fn a_context_reads_back_as_it_was_created() {
    let server = Server::start();
    let client = server.client();
    let sent = json!({
        "id": "trip-42", "agent_id": "planner", "session_id": "s", "model_id": "gpt-4o", "name": "A trip",
        "description": "d", "metadata": {"a": [1, {"b": null}]}, "labels": ["x", "y"], "max_tokens": 900,
        "tokenizer": "cl100k_base", "expires_at": "2999-01-31T12:00:00Z",
    });
    let created = client.post("/v1/contexts", sent.to_string());
    assert_eq!(created.status, 201);
    assert_eq!(created.header("location"), Some("/v1/contexts/trip-42"));
    assert_eq!(created.header("etag"), Some("\"1\""));
    assert_eq!(created.header("contextkeep-origin"), Some("primary"));
    let read = client.get("/v1/contexts/trip-42");
    assert_eq!(read.ok(), created.ok());
    for (field, value) in sent.as_object().unwrap() {
        if field == "expires_at" {
            assert_eq!(read.json()[field], "2999-01-31T12:00:00.000000Z");
        } else {
            assert_eq!(read.json()[field], *value, "{field}");
        }
    }
    assert_eq!(read.json()["version"], 1);
    assert_eq!(read.json()["next_seq"], 1);
}

#[test]
fn metadata_keeps_its_bytes() {
    let server = Server::start();
    let metadata = r#"{ "z" : 1.0,"a":  [1e3] }"#;
    let body = format!(r#"{{"id":"m","agent_id":"a","metadata":{metadata}}}"#);
    server.client().post("/v1/contexts", body).ok();
    let read = server.client().get("/v1/contexts/m").text();
    assert!(read.contains(metadata), "{read}");
}

#[test]
fn creating_the_same_context_twice_is_one_creation() {
    let server = Server::start();
    let client = server.client();
    let body = r#"{"id":"a","agent_id":"planner","metadata":{"k":1,"l":2}}"#;
    assert_eq!(client.post("/v1/contexts", body).status, 201);
    let reordered = r#"{"agent_id":"planner","metadata":{"l":2,"k":1},"id":"a"}"#;
    let again = client.post("/v1/contexts", reordered);
    assert_eq!((again.status, again.header("etag")), (200, Some("\"1\"")));
    client
        .post("/v1/contexts", r#"{"id":"a","agent_id":"writer"}"#)
        .problem_in(409, "context_differs", "agent_id");
}

#[test]
fn a_context_without_an_id_gets_one() {
    let server = Server::start();
    let create = || server.client().post("/v1/contexts", r#"{"agent_id":"a"}"#).ok()["id"].clone();
    let (first, second) = (create(), create());
    assert_ne!(first, second);
    let path = format!("/v1/contexts/{}", first.as_str().unwrap());
    server.client().get(&path).ok();
}

#[test]
fn a_patch_tells_null_from_absent() {
    let server = Server::start();
    let client = server.client();
    let body = r#"{"id":"p","agent_id":"a","name":"n","description":"d","labels":["x"],"metadata":{"k":1}}"#;
    client.post("/v1/contexts", body).ok();
    let patched = client.patch("/v1/contexts/p", r#"{"name":null,"max_tokens":77}"#);
    assert_eq!(patched.header("etag"), Some("\"2\""));
    let context = patched.ok();
    assert_eq!(context.get("name"), None);
    assert_eq!(context["description"], "d");
    assert_eq!(context["max_tokens"], 77);
    assert_eq!(context["labels"], json!(["x"]));
    let emptied = client
        .patch(
            "/v1/contexts/p",
            r#"{"labels":null,"metadata":null,"description":null}"#,
        )
        .ok();
    assert_eq!(
        (&emptied["labels"], &emptied["metadata"]),
        (&json!([]), &json!({}))
    );
    assert_eq!(emptied.get("description"), None);
    assert_eq!(client.get("/v1/contexts/p").ok(), emptied);
}

#[test]
fn a_write_that_names_an_old_version_changes_nothing() {
    let server = Server::start();
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"v","agent_id":"a"}"#).ok();
    let item = r#"{"items":[{"role":"user","content":"hi"}]}"#;
    let first = client.send("POST", "/v1/contexts/v/items", &[("if-match", "\"1\"")], item);
    assert_eq!(first.header("etag"), Some("\"2\""));
    let writes = [
        ("POST", "/v1/contexts/v/items", item),
        ("POST", "/v1/contexts/v/replace", item),
        (
            "POST",
            "/v1/contexts/v/truncate",
            r#"{"max_tokens":100,"dry_run":true}"#,
        ),
        ("POST", "/v1/contexts/v/truncate", r#"{"max_tokens":100}"#),
        ("PATCH", "/v1/contexts/v", r#"{"name":"n"}"#),
        ("DELETE", "/v1/contexts/v", ""),
    ];
    for (method, path, body) in writes {
        let refused = client.send(method, path, &[("if-match", "\"1\"")], body);
        let problem = refused.problem(412, "version_mismatch");
        assert_eq!(problem["current_version"], 2, "{method} {path}");
    }
    assert_eq!(client.get("/v1/contexts/v").ok()["version"], 2);
    let any = client.send("PATCH", "/v1/contexts/v", &[("if-match", "*")], r#"{"name":"n"}"#);
    assert_eq!(any.ok()["version"], 3);
}

#[test]
fn a_deleted_context_is_gone_and_its_id_starts_above_its_last_version() {
    let server = Server::start();
    let client = server.client();
    let body = r#"{"id":"d","agent_id":"a"}"#;
    client.post("/v1/contexts", body).ok();
    let deleted = client.delete("/v1/contexts/d");
    assert_eq!((deleted.status, deleted.header("etag")), (204, Some("\"2\"")));
    client.get("/v1/contexts/d").problem(404, "not_found");
    client.delete("/v1/contexts/d").problem(404, "not_found");
    let again = client.post("/v1/contexts", body);
    assert_eq!((again.status, again.header("etag")), (201, Some("\"3\"")));
    assert_eq!(again.ok()["item_count"], 0);
}

#[test]
fn an_expired_context_is_gone() {
    let server = Server::start();
    let client = server.client();
    client.post("/v1/contexts", r#"{"id":"e","agent_id":"a"}"#).ok();
    client.patch("/v1/contexts/e", r#"{"expires_at":"2001-01-01T00:00:00Z"}"#);
    client.get("/v1/contexts/e").problem(404, "not_found");
    assert_eq!(client.get("/v1/contexts").ok()["contexts"], json!([]));
}

#[test]
fn a_list_is_paged_to_its_end_without_gaps_or_repetitions() {
    let server = Server::start();
    let client = server.client();
    for n in 0..25 {
        let body = json!({"id": format!("c{n:02}"), "agent_id": "a"}).to_string();
        client.post("/v1/contexts", body).ok();
    }
    let ids = list(&client, "limit=4");
    let newest_first: Vec<String> = (0..25).rev().map(|n| format!("c{n:02}")).collect();
    assert_eq!(ids, newest_first);
}

#[test]
fn a_list_is_filtered_by_agent_session_and_every_label() {
    let server = Server::start();
    let client = server.client();
    for (id, agent, session, labels) in [
        ("1", "a", Some("s"), vec!["x", "y"]),
        ("2", "a", None, vec!["x"]),
        ("3", "b", Some("s"), vec![]),
    ] {
        let body = json!({"id": id, "agent_id": agent, "session_id": session, "labels": labels});
        client.post("/v1/contexts", body.to_string()).ok();
    }
    assert_eq!(list(&client, "agent_id=a"), ["2", "1"]);
    assert_eq!(list(&client, "session_id=s&limit=1"), ["3", "1"]);
    assert_eq!(list(&client, "label=x"), ["2", "1"]);
    assert_eq!(list(&client, "label=x&label=y"), ["1"]);
    assert_eq!(list(&client, "agent_id=nobody"), Vec::<String>::new());
}

/// The ids of all pages.
fn list(client: &Client, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/v1/contexts?{query}{cursor}")).ok();
        let contexts = page["contexts"].as_array().unwrap();
        ids.extend(
            contexts
                .iter()
                .map(|context| context["id"].as_str().unwrap().to_owned()),
        );
        match &page["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return ids,
        }
    }
}

#[test]
fn a_fork_shares_the_past_and_goes_its_own_way() {
    let server = Server::start();
    let client = server.client();
    client
        .post(
            "/v1/contexts",
            r#"{"id":"parent","agent_id":"a","model_id":"m","max_tokens":500}"#,
        )
        .ok();
    let say = |id: &str, text: &str| {
        let body = json!({"items": [{"role": "user", "content": text}]}).to_string();
        client.post(&format!("/v1/contexts/{id}/items"), body).ok()
    };
    for text in ["one", "two", "three"] {
        say("parent", text);
    }
    let fork = r#"{"at":2,"context":{"id":"child","agent_id":"b"}}"#;
    let created = client.post("/v1/contexts/parent/fork", fork);
    assert_eq!(created.status, 201);
    let head = created.ok();
    assert_eq!(
        (&head["model_id"], &head["max_tokens"]),
        (&json!("m"), &json!(500))
    );
    assert_eq!((&head["item_count"], &head["next_seq"]), (&json!(2), &json!(3)));
    assert_eq!(say("child", "other")["first_seq"], 3);
    assert_eq!(contents(&client, "child"), ["one", "two", "other"]);
    assert_eq!(contents(&client, "parent"), ["one", "two", "three"]);
    assert_eq!(client.delete("/v1/contexts/parent").status, 204);
    assert_eq!(contents(&client, "child"), ["one", "two", "other"]);
    let whole = client.post(
        "/v1/contexts/child/fork",
        r#"{"context":{"id":"grandchild","agent_id":"b"}}"#,
    );
    assert_eq!(whole.ok()["item_count"], 3);
}

fn contents(client: &Client, id: &str) -> Vec<String> {
    let page = client.get(&format!("/v1/contexts/{id}/items")).ok();
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["item"]["content"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn forks_know_their_parent_and_are_listed_under_it() {
    let server = Server::start();
    let client = server.client();
    client
        .post("/v1/contexts", r#"{"id":"trunk","agent_id":"a"}"#)
        .ok();
    let items = r#"{"items":[{"role":"user","content":"1"},{"role":"user","content":"2"}]}"#;
    client.post("/v1/contexts/trunk/items", items).ok();
    for (id, at) in [("twig-1", 1), ("twig-2", 2)] {
        let body = json!({"at": at, "context": {"id": id, "agent_id": "a"}}).to_string();
        let fork = client.post("/v1/contexts/trunk/fork", body).ok();
        assert_eq!(fork["forked_from"], json!({"id": "trunk", "at_seq": at}));
    }
    assert_eq!(client.get("/v1/contexts/trunk").ok().get("forked_from"), None);
    assert_eq!(client.delete("/v1/contexts/trunk").status, 204);
    let first = client.get("/v1/contexts?forked_from=trunk&limit=1").ok();
    assert_eq!(first["contexts"][0]["id"], "twig-2");
    let cursor = first["next_cursor"].as_str().unwrap();
    let path = format!("/v1/contexts?forked_from=trunk&limit=1&cursor={cursor}");
    let second = client.get(&path).ok();
    assert_eq!(
        (&second["contexts"][0]["id"], &second["next_cursor"]),
        (&json!("twig-1"), &Value::Null)
    );
    let elsewhere = format!("/v1/contexts?forked_from=twig-1&limit=1&cursor={cursor}");
    client.get(&elsewhere).problem_in(422, "invalid", "cursor");
    client
        .get("/v1/contexts?forked_from=not%20an%20id")
        .problem_in(422, "invalid", "forked_from");
}

#[test]
fn a_context_truncates_itself_after_appends_and_says_by_which_strategy() {
    let server = Server::start();
    let client = server.client();
    let body = r#"{"id":"c","agent_id":"a","max_tokens":200,"truncation":"preserving_user"}"#;
    assert_eq!(
        client.post("/v1/contexts", body).ok()["truncation"],
        "preserving_user"
    );
    client
        .post("/v1/contexts", r#"{"id":"c","agent_id":"a","truncation":"none"}"#)
        .problem_in(409, "context_differs", "truncation");
    let item =
        json!({"items": [{"role": "assistant", "content": "a few words to fill it up, and some more"}]})
            .to_string();
    let mut last_seq = 0;
    // Each append is answered whether or not the context is being truncated meanwhile.
    let shrunk = (0..500).any(|_| {
        last_seq = client.post("/v1/contexts/c/items", item.clone()).ok()["last_seq"]
            .as_u64()
            .unwrap();
        client.get("/v1/contexts/c").ok()["item_count"].as_u64().unwrap() < last_seq
    });
    assert!(shrunk, "{last_seq} appends and nothing was dropped");
    let patched = client
        .send("PATCH", "/v1/contexts/c", &[], r#"{"truncation":null}"#)
        .ok();
    assert_eq!(patched["truncation"], "none");
    let wrong = client.send("PATCH", "/v1/contexts/c", &[], r#"{"truncation":"often"}"#);
    let problem = wrong.problem_in(422, "invalid", "truncation");
    assert!(
        problem["hint"].as_str().unwrap().contains("none, oldest_first"),
        "{problem}"
    );
}

/// A head is answered in front of the router; with a question mark behind it the router answers.
#[test]
fn a_head_is_the_same_with_and_without_the_router() {
    // From memory, and by a store that has to be waited for.
    for (config, origin) in [
        ("", "l1"),
        (
            "context_manager: { cache: { in_memory: { enabled: false } } }\n",
            "primary",
        ),
    ] {
        let server = Server::with(&format!("{TWO_TENANTS}{config}"));
        let client = server.client_with(ACME);
        let new = r#"{"id":"c","agent_id":"a","description":"\"quoted\"\nüber","metadata":{ "z" : 1.0 },"labels":["x"]}"#;
        client.post("/v1/contexts", new).ok();
        client
            .post("/v1/contexts", r#"{"id":"gone","agent_id":"a"}"#)
            .ok();
        assert_eq!(client.delete("/v1/contexts/gone").status, 204);
        client.get("/v1/contexts/c").ok();
        let read = client.get("/v1/contexts/c");
        assert_eq!(read.header("contextkeep-origin"), Some(origin));
        let seen = read.header("contextkeep-token").unwrap().to_owned();
        let asked: [&[(&str, &str)]; 8] = [
            &[],
            &[("contextkeep-token", &seen)],
            &[("contextkeep-consistency", "strong")],
            &[("contextkeep-consistency", "any"), ("contextkeep-token", &seen)],
            &[("contextkeep-consistency", "sometimes")],
            &[("contextkeep-token", "?")],
            &[("x-request-id", "mine")],
            &[("content-length", "2")],
        ];
        let clients = [
            client,
            server.client_with(OTHER),
            server.client(),
            server.client_with("nobody's"),
        ];
        let mut statuses = BTreeSet::new();
        for (who, headers) in clients
            .iter()
            .flat_map(|who| asked.iter().map(move |headers| (who, headers)))
        {
            for id in ["c", "gone", "never", "no id!", "c%20d", ""] {
                let path = format!("/v1/contexts/{}", id.replace(' ', "+"));
                let body: &[u8] = if headers.contains(&("content-length", "2")) {
                    b"{}"
                } else {
                    b""
                };
                let [front, routed] =
                    [path.clone(), format!("{path}?")].map(|path| who.send("GET", &path, headers, body));
                statuses.insert(front.status);
                assert_eq!(said(&front), said(&routed), "{path} {headers:?} {config}");
            }
        }
        assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [200, 401, 404, 422]);
    }
}

/// An answer without what is another one for each request.
fn said(response: &Response) -> (u16, String, Vec<(String, String)>) {
    let mut headers = response.headers.clone();
    headers.retain(|(name, value)| name != "date" && (name != "x-request-id" || value == "mine"));
    headers.sort();
    (response.status, response.text(), headers)
}
