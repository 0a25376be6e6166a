//! Export and import over REST and from the command line, both formats.

use serde_json::{Value, json};

use crate::support::{Server, TWO_TENANTS, folder, run, text};

const ITEMS: [&str; 3] = [
    r#"{"role":"system","content":"be brief"}"#,
    r#"{ "content" : "ü😀\u0000",  "role":"user","client_id":"m1" }"#,
    r#"{"role":"assistant","content":[{"type":"text","text":"ok"}],"pinned":true}"#,
];

fn filled() -> Server {
    let server = Server::start();
    let client = server.client();
    let body = r#"{"id":"c","agent_id":"a","name":"n","labels":["x"],"metadata":{ "k" : 1 },"max_tokens":9}"#;
    client.post("/v1/contexts", body).ok();
    let items = format!(r#"{{"items":[{}]}}"#, ITEMS.join(","));
    client.post("/v1/contexts/c/items", items).ok();
    server
}

#[test]
fn an_export_is_imported_whole_and_only_once() {
    let source = filled();
    let export = source.client().get("/v1/contexts/c/export");
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    let target = Server::start();
    let client = target.client();
    let report = client.post("/v1/import", &export.body).ok();
    assert_eq!(counts(&report), [1, 0, 0, 3, 0], "{report}");
    let (is, was) = (
        client.get("/v1/contexts/c").ok(),
        source.client().get("/v1/contexts/c").ok(),
    );
    for field in [
        "agent_id",
        "name",
        "labels",
        "metadata",
        "max_tokens",
        "tokenizer",
        "item_count",
        "tokens",
    ] {
        assert_eq!(is[field], was[field], "{field}");
    }
    let again = client.get("/v1/contexts/c/export").text();
    for item in ITEMS {
        assert!(again.contains(item), "{again}");
    }
    let report = client.post("/v1/import", &export.body).ok();
    assert_eq!(counts(&report), [0, 0, 1, 0, 0], "{report}");
}

#[test]
fn chat_lines_leave_as_they_came() {
    let server = Server::start();
    let client = server.client();
    let line = format!("{{\"id\":\"t\",\"messages\":[{}]}}\n", ITEMS.join(","));
    let report = client.post("/v1/import?agent_id=bot", &line).ok();
    assert_eq!(counts(&report), [1, 0, 0, 3, 0], "{report}");
    assert_eq!(client.get("/v1/contexts/t").ok()["agent_id"], "bot");
    let export = client.get("/v1/contexts/t/export?format=openai-chat");
    assert_eq!(export.text(), line);
}

#[test]
fn an_import_that_was_cut_off_goes_on_where_it_ended() {
    let server = Server::start();
    let client = server.client();
    let line = |items: usize| format!("{{\"id\":\"t\",\"messages\":[{}]}}", ITEMS[..items].join(","));
    client.post("/v1/import", line(1)).ok();
    let report = client.post("/v1/import", line(3)).ok();
    assert_eq!(counts(&report), [0, 1, 0, 2, 0], "{report}");
    let report = client.post("/v1/import", line(2)).ok();
    assert_eq!(
        counts(&report),
        [0, 0, 0, 0, 1],
        "what is there is more than the file has: {report}"
    );
    assert_eq!(client.get("/v1/contexts/t").ok()["item_count"], 3);
}

#[test]
fn an_import_goes_on_after_a_bad_line_and_names_it() {
    let server = Server::start();
    let client = server.client();
    let good = |id: &str| format!("{{\"id\":\"{id}\",\"messages\":[{}]}}", ITEMS[0]);
    let deep = "[".repeat(10_000);
    let lines = [
        good("a"),
        "not json".to_owned(),
        r#"{"id":"b","messages":[{"role":"king","content":""}]}"#.to_owned(),
        r#"{"id":"../c","messages":[]}"#.to_owned(),
        "{}".to_owned(),
        deep,
        r#"{"id":"d","messages":[{"role":"user","content":"\ud800"}]}"#.to_owned(),
        good("e"),
    ];
    let report = client.post("/v1/import", lines.join("\r\n")).ok();
    assert_eq!(counts(&report), [2, 0, 0, 2, 6], "{report}");
    let named: Vec<u64> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["line"].as_u64().unwrap())
        .collect();
    assert_eq!(named, [2, 3, 4, 5, 6, 7]);
    client.get("/v1/contexts/b").problem(404, "not_found");
    client.get("/v1/contexts/d").problem(404, "not_found");
    server.assert_serves();
}

#[test]
fn an_import_does_not_send_back_what_it_refuses() {
    let server = Server::start();
    let line = format!("{:?}", "\u{e9}".repeat(1 << 20));
    let report = server.client().post("/v1/import", vec![line; 4].join("\n")).ok();
    assert_eq!(report["failed"], 4);
    for error in report["errors"].as_array().unwrap() {
        let detail = error["detail"].as_str().unwrap();
        assert!((1..=1000).contains(&detail.len()), "{} bytes", detail.len());
    }
}

#[test]
fn a_truncated_export_leaves_nothing_half_written() {
    let source = filled();
    let export = source.client().get("/v1/contexts/c/export").body;
    let target = Server::start();
    let client = target.client();
    for cut in (0..export.len() - 1).step_by(97) {
        let report = client.post("/v1/import", &export[..cut]).ok();
        assert_eq!(report["created"], 0, "cut at byte {cut}: {report}");
        assert_eq!(
            report["failed"],
            u64::from(cut > 0),
            "cut at byte {cut}: {report}"
        );
        client.get("/v1/contexts/c").problem(404, "not_found");
    }
    assert_eq!(client.post("/v1/import", &export).ok()["created"], 1);
}

#[test]
fn a_line_that_does_not_end_is_refused_at_its_limit() {
    let server = Server::start();
    let mut line = Vec::from(r#"{"id":"a","messages":[{"role":"user","content":"#);
    line.resize(contextkeep_server::transfer::LINE_BYTES_MAX + 4096, b'x');
    let problem = server.client().post("/v1/import", line).problem(413, "too_large");
    assert_eq!(problem["limit"], contextkeep_server::transfer::LINE_BYTES_MAX);
    server.assert_serves();
}

#[test]
fn an_import_goes_to_the_tenant_of_the_credential() {
    let server = Server::with(TWO_TENANTS);
    let acme = server.client_with(crate::support::ACME);
    let line = format!("{{\"id\":\"t\",\"messages\":[{}]}}\n", ITEMS[0]);
    acme.post("/v1/import", &line).ok();
    let other = server.client_with(crate::support::OTHER);
    other.get("/v1/contexts/t/export").problem(404, "not_found");
    assert_eq!(acme.get("/v1/contexts/t/export?format=openai-chat").text(), line);
}

#[test]
fn the_command_line_imports_and_exports_both_formats() {
    let folder = folder();
    let lines = format!("{{\"id\":\"t\",\"messages\":[{}]}}\n", ITEMS.join(","));
    let import = |args: &[&str], input: &[u8]| {
        let output = run(folder.path(), args, input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(import(&["import"], lines.as_bytes()).contains("1 created"));
    assert!(import(&["import", "-"], lines.as_bytes()).contains("1 unchanged"));
    let chat = run(folder.path(), &["export", "t", "--format", "openai-chat"], b"");
    assert_eq!(text(&chat.stdout), lines);
    let ours = run(folder.path(), &["export", "--all", "--output", "all.jsonl"], b"");
    assert!(ours.status.success(), "{}", text(&ours.stderr));
    assert!(import(&["import", "all.jsonl"], b"").contains("1 unchanged"));
    let bad = run(folder.path(), &["import"], b"nonsense\n");
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("-:1:"), "{}", text(&bad.stderr));
}

/// Created, resumed, unchanged, items, failed.
fn counts(report: &Value) -> [u64; 5] {
    ["created", "resumed", "unchanged", "items", "failed"].map(|name| report[name].as_u64().unwrap())
}

#[test]
fn a_format_that_is_not_known_is_refused() {
    let server = filled();
    let client = server.client();
    let path = "/v1/contexts/c/export?format=xml";
    client.get(path).problem_in(422, "invalid", "format");
    client.get("/v1/contexts/none/export").problem(404, "not_found");
    assert_eq!(
        client.get("/v1/contexts").ok()["contexts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(json!(null), client.get("/v1/contexts").ok()["next_cursor"]);
}
