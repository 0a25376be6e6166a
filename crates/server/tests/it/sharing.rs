//! Two processes on one data folder: a server, and the command line beside it.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Server, run, run_ok, text};

/// Appends of the command line, each a process of its own.
const COMMANDS: usize = 20;
/// Appends of each client of the server.
const REQUESTS: usize = 40;

#[test]
fn a_server_and_the_command_line_append_to_the_same_contexts() {
    let server = Server::start();
    let client = server.client();
    client
        .post("/v1/contexts", r#"{"id":"shared","agent_id":"a"}"#)
        .ok();
    let said = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|number| {
                let client = client.clone();
                scope.spawn(move || {
                    (0..REQUESTS)
                        .map(|n| {
                            let content = format!("client {number} {n}");
                            let body = json!({"items": [{"role": "user", "content": content}]}).to_string();
                            let answer = client.post("/v1/contexts/shared/items", body).ok();
                            (answer["first_seq"].as_u64().unwrap(), content)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut said: Vec<(u64, String)> = (0..COMMANDS)
            .map(|n| {
                let content = format!("command {n}");
                let output = run(
                    server.folder(),
                    &["ctx", "append", "shared", "--text", &content],
                    b"",
                );
                assert!(output.status.success(), "{}", text(&output.stderr));
                let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                (answer["first_seq"].as_u64().unwrap(), content)
            })
            .collect();
        said.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
        said
    });
    let page = client.get("/v1/contexts/shared/items?limit=1000").ok();
    let stored: Vec<(u64, String)> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["seq"].as_u64().unwrap(),
                item["item"]["content"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let seqs: Vec<u64> = stored.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=(COMMANDS + 2 * REQUESTS) as u64).collect::<Vec<_>>());
    let sorted = |pairs: Vec<(u64, String)>| pairs.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(stored), sorted(said));
}

#[test]
fn what_one_process_did_the_other_sees_at_once() {
    let server = Server::start();
    let client = server.client();
    // Without the header it may be `cache.coherence.bound` behind (G5).
    let strong = [("contextkeep-consistency", "strong")];
    let strongly = || client.send("GET", "/v1/contexts/c", &strong, b"");
    run_ok(server.folder(), &["ctx", "create", "c", "--agent", "shell"]);
    assert_eq!(client.get("/v1/contexts/c").ok()["agent_id"], "shell");
    client
        .post(
            "/v1/contexts/c/items",
            r#"{"items":[{"role":"user","content":"a flight"}]}"#,
        )
        .ok();
    let window = run_ok(server.folder(), &["ctx", "window", "c"]);
    assert!(window.contains("a flight"), "{window}");
    let key = ["ctx", "append", "c", "--text", "once", "--key", "k"];
    assert_eq!(run_ok(server.folder(), &key), run_ok(server.folder(), &key));
    assert_eq!(strongly().ok()["item_count"], 2);
    // The command indexed it before it ended: nobody else would.
    assert_eq!(
        client.post("/v1/search", r#"{"query":"once"}"#).ok()["hits"][0]["seq"],
        2
    );
    let found = run_ok(server.folder(), &["ctx", "search", "flight"]);
    assert!(found.contains("a flight"), "{found}");
    run_ok(server.folder(), &["ctx", "delete", "c"]);
    strongly().problem(404, "not_found");
}
