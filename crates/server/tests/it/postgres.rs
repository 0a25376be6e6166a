//! The binary on Postgres: two servers over one database, one that comes late, a move from the embedded store.

use contextkeep_test_support::services::{unique_name, with_database};
use contextkeep_test_support::{PgCluster, Services, Stop};
use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Folder, Server, Start, contextkeep, eventually, folder, run_ok, text};

/// A database of its own on the shared server; it goes with the server's.
pub(crate) fn database() -> String {
    let services = Services::attach();
    let name = unique_name("server");
    let primary = &services.urls.pg_primary;
    let created = services
        .postgres()
        .map(|cluster| cluster.primary().sql(&format!("CREATE DATABASE {name}")));
    match created {
        Some(created) => drop(created.unwrap()),
        None => panic!("these tests need the local harness"),
    }
    with_database(primary, &name)
}

fn on(dsn: &str) -> Start {
    let config = json!({"context_manager": {"database": {"dsn": dsn, "max_open_conns": 10}}});
    Start::with(&config.to_string())
}

fn append(client: &Client, context: &str, content: &str, headers: &[(&str, &str)]) -> Value {
    let body = json!({"items": [{"role": "user", "content": content}]}).to_string();
    client
        .send("POST", &format!("/v1/contexts/{context}/items"), headers, body)
        .ok()
}

#[test]
#[ignore = "needs services"]
fn two_servers_over_one_database_are_one() {
    let dsn = database();
    let one = on(&dsn).up(Folder::Own(folder()));
    let two = on(&dsn).up(Folder::Own(folder()));
    one.client()
        .post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#)
        .ok();
    let clients = [one.client(), two.client()];
    for n in 0..20u64 {
        let appended = append(&clients[usize::from(n % 2 == 1)], "c", &format!("item {n}"), &[]);
        assert_eq!(appended["first_seq"], n + 1);
    }
    for client in &clients {
        let window = client.get("/v1/contexts/c/window").ok();
        assert_eq!(window["items"].as_array().unwrap().len(), 20);
        assert_eq!(window["version"], 21);
        assert_eq!(client.get("/v1/contexts").ok()["contexts"][0]["id"], "c");
        let ready = client.get("/readyz").ok();
        assert_eq!(ready["store"], "postgres");
    }
    let found = eventually("the search index catches up", || {
        let found = two.client().post("/v1/search", r#"{"query":"\"item 7\""}"#).ok();
        (found["hits"].as_array().unwrap().len() == 1).then_some(found)
    });
    assert_eq!(found["hits"][0]["context_id"], "c");
}

#[test]
#[ignore = "needs services"]
fn an_append_is_kept_when_its_server_is_killed_and_done_once_when_it_is_repeated() {
    let dsn = database();
    let one = on(&dsn).up(Folder::Own(folder()));
    one.client()
        .post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#)
        .ok();
    let first = append(&one.client(), "c", "once", &[("idempotency-key", "k1")]);
    one.kill();
    let two = on(&dsn).up(Folder::Own(folder()));
    let again = append(&two.client(), "c", "once", &[("idempotency-key", "k1")]);
    assert_eq!(first, again);
    assert_eq!(two.client().get("/v1/contexts/c").ok()["item_count"], 1);
}

#[test]
#[ignore = "needs services"]
fn a_token_is_given_and_bad_ones_are_refused() {
    let server = on(&database()).up(Folder::Own(folder()));
    let client = server.client();
    let created = client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#);
    let token = created.header("contextkeep-token").unwrap().to_owned();
    let read = client.send("GET", "/v1/contexts/c", &[("contextkeep-token", &token)], "");
    assert_eq!(read.status, 200);
    assert!(read.header("contextkeep-token").is_some());
    assert_eq!(read.header("contextkeep-origin").unwrap(), "primary");
    for bad in ["nonsense!", "AAAA", &"A".repeat(5000)] {
        let refused = client.send("GET", "/v1/contexts/c", &[("contextkeep-token", bad)], "");
        refused.problem(422, "invalid");
    }
    for good in ["strong", "session", "bounded", "any"] {
        let read = client.send("GET", "/v1/contexts/c", &[("contextkeep-consistency", good)], "");
        assert_eq!(read.status, 200);
    }
    let refused = client.send(
        "GET",
        "/v1/contexts/c",
        &[("contextkeep-consistency", "eventual")],
        "",
    );
    refused.problem(422, "invalid");
}

#[test]
#[ignore = "needs server binaries"]
fn a_server_waits_for_its_database_and_survives_its_absence() {
    let cluster = PgCluster::builder().start().unwrap();
    let dsn = cluster.primary().dsn();
    cluster.primary().stop(Stop::Graceful).unwrap();
    let server = on(&dsn).up(Folder::Own(folder()));
    let client = server.client();
    assert_eq!(client.get("/healthz").status, 200);
    let refused = client.get("/readyz");
    refused.problem(503, "unavailable");
    assert!(refused.header("retry-after").is_some());
    client.get("/v1/contexts/c").problem(503, "unavailable");
    cluster.primary().start().unwrap();
    eventually("the server is ready", || {
        (client.get("/readyz").status == 200).then_some(())
    });
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    cluster.primary().restart(Stop::Immediate).unwrap();
    let kept = eventually("the server recovers", || {
        let answer = client.get("/v1/contexts/c");
        (answer.status == 200).then(|| answer.ok())
    });
    assert_eq!(kept["id"], "c");
}

// With and without the router.
#[test]
#[ignore = "needs server binaries"]
fn a_head_that_does_not_come_is_answered_timeout() {
    let cluster = PgCluster::builder().start().unwrap();
    let config = json!({
        "server": {"request_timeout": "300ms"}, "context_manager": {"database": {"dsn": cluster.primary().dsn()}}
    });
    let server = Start::with(&config.to_string()).up(Folder::Own(folder()));
    let client = server.client();
    eventually("the server is ready", || {
        (client.get("/readyz").status == 200).then_some(())
    });
    client.get("/v1/contexts/c").problem(404, "not_found");
    cluster.primary().freeze().unwrap();
    let told = ["/v1/contexts/never", "/v1/contexts/never?"].map(|path| {
        let answer = client.get(path);
        assert_eq!(answer.header("retry-after"), Some("1"));
        answer.problem(503, "timeout")["detail"].clone()
    });
    cluster.primary().thaw().unwrap();
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], "the request took longer than 300ms");
}

/// What a client sees of an installation.
fn shown(client: &Client) -> [Value; 4] {
    [
        "/v1/contexts/c",
        "/v1/contexts/c/items",
        "/v1/contexts/f/items",
        "/v1/contexts",
    ]
    .map(|path| client.get(path).ok())
}

/// A body with what text can be hard with.
fn item(n: u64) -> (String, String) {
    (format!("item {n} \u{1F600} \\u0000"), format!("k{n}"))
}

/// An embedded installation with keys, a truncated context, a fork and a deleted one; answers what clients see.
fn installation(home: &std::path::Path) -> [Value; 4] {
    let server = Server::in_folder(home);
    let client = server.client();
    let context = r#"{"id":"c","agent_id":"a","labels":["x"],"metadata":{"b":1}}"#;
    client.post("/v1/contexts", context).ok();
    for n in 0..30 {
        let (content, key) = item(n);
        append(&client, "c", &content, &[("idempotency-key", &key)]);
    }
    client
        .post("/v1/contexts/c/truncate", r#"{"max_tokens":120}"#)
        .ok();
    client
        .post("/v1/contexts/c/fork", r#"{"context":{"id":"f","agent_id":"b"}}"#)
        .ok();
    append(&client, "f", "only in the fork", &[]);
    client
        .post("/v1/contexts", r#"{"id":"gone","agent_id":"a"}"#)
        .ok();
    assert_eq!(client.delete("/v1/contexts/gone").status, 204);
    let shown = shown(&client);
    server.stop();
    shown
}

#[test]
#[ignore = "needs services"]
fn an_embedded_installation_moves_with_one_command() {
    let home = folder();
    let before = installation(home.path());
    let dsn = database();
    let into = |folder: &std::path::Path| {
        contextkeep(folder)
            .env("CONTEXTKEEP_CONTEXT_MANAGER__DATABASE__DSN", &dsn)
            .args(["import", "--from-embedded", "data"])
            .output()
            .unwrap()
    };
    let moved = into(home.path());
    assert!(moved.status.success(), "{}", text(&moved.stderr));
    assert!(
        text(&moved.stderr).contains("found equal"),
        "{}",
        text(&moved.stderr)
    );
    let server = on(&dsn).up(Folder::Own(folder()));
    let client = server.client();
    assert_eq!(before, shown(&client));
    // Keys of before are known, numbers go on.
    let (content, key) = item(3);
    let again = append(&client, "c", &content, &[("idempotency-key", &key)]);
    assert_eq!(again["first_seq"], 4);
    assert_eq!(append(&client, "c", "after the move", &[])["first_seq"], 31);
    let found = eventually("what was moved is found", || {
        let found = client.post("/v1/search", r#"{"query":"fork"}"#).ok();
        (!found["hits"].as_array().unwrap().is_empty()).then_some(found)
    });
    assert_eq!(found["hits"][0]["context_id"], "f");
    // A second time there is something in the way, and nothing is lost.
    let refused = text(&into(home.path()).stderr);
    assert!(refused.contains("has contexts already"), "{refused}");
    let mistyped = text(&into(folder().path()).stderr);
    assert!(mistyped.contains("no contextkeep.db"), "{mistyped}");
    run_ok(home.path(), &["ctx", "list"]);
}
