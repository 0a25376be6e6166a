//! Starts that must fail, with an exit code and a text that says what to do; and broken pipes.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use crate::support::{Start, contextkeep, folder, run, text};

/// Starts a server that must be refused with this exit code; answers what it said.
fn refused(start: &Start, code: i32) -> String {
    let folder = folder();
    let (status, log) = start.refused(folder.path());
    assert_eq!(status.code(), Some(code), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

fn assert_says(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
}

#[test]
fn a_port_in_use_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder();
    let output = run(folder.path(), &["serve", "--bind", &address], b"");
    assert_eq!(output.status.code(), Some(1));
    assert_says(&text(&output.stderr), &["--bind", &address, "in use"]);
}

#[test]
fn every_problem_of_the_configuration_is_reported_at_once() {
    let config = "
server:
  request_timeout: soon
  max_requests: 0
  bnid: 127.0.0.1:1
context_manager:
  embedded: { synchronous: maybe, max_size: much }
  cache: { in_memory: { ttl: -1s } }
auth:
  keys: [ { name: a, tenant: ../a, secret: short } ]
telemetry: { log: { filter: '[' } }
";
    let start = Start::with(config)
        .env("CONTEXTKEEP_SERVER__MAX_CONNECTIONS", "many")
        .env("CONTEXTKEEP_SERVER__HEADER_TIMEOUTS", "1s");
    let log = refused(&start, 2);
    assert_says(
        &log,
        &[
            "server.request_timeout",
            "server.max_requests",
            "server.bnid",
            "context_manager.embedded.synchronous",
            "context_manager.embedded.max_size",
            "CONTEXTKEEP_SERVER__MAX_CONNECTIONS",
            "header_timeout",
            "test.yaml:3",
        ],
    );
}

#[test]
fn contradictions_are_reported_together() {
    let config = "
server: { bind: '0.0.0.0:7400', request_timeout: 0s }
auth: { keys: [] }
context_manager:
  database: { max_open_conns: 1, max_idle_conns: 2 }
  read_replicas: [ { dsn: 'postgres://h/d' } ]
telemetry: { log: { filter: 'a=b=c' } }
";
    let folder = folder();
    std::fs::write(folder.path().join("contextkeep.yaml"), config).unwrap();
    let output = run(folder.path(), &["config", "check"], b"");
    assert_eq!(output.status.code(), Some(2));
    let keys = [
        "server.bind",
        "server.request_timeout",
        "context_manager.database.max_idle_conns",
        "context_manager.read_replicas",
        "telemetry.log.filter",
    ];
    assert_says(&text(&output.stderr), &keys);
}

#[test]
fn an_address_that_others_reach_needs_a_credential() {
    let folder = folder();
    for bind in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = run(folder.path(), &["serve", "--bind", bind], b"");
        assert_eq!(output.status.code(), Some(2));
        assert_says(&text(&output.stderr), &["server.bind", "auth.keys", "--bind"]);
    }
    let output = run(folder.path(), &["serve", "--bind", "nonsense"], b"");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn secrets_stay_out_of_every_message() {
    let config = "auth: { keys: [ { name: a, tenant: a/b, secret: hush-hush-hush } ] }";
    let log = refused(&Start::with(config), 2);
    assert_says(&log, &["auth.keys.0.tenant", "auth.keys.0.secret"]);
    assert!(!log.contains("hush"), "{log}");
    let dsn = "postgres://user:hush-hush@127.0.0.1:1/db";
    let start = Start::with("context_manager: { database: { require_at_start: true } }");
    let log = refused(&start.env("CONTEXTKEEP_CONTEXT_MANAGER__DATABASE__DSN", dsn), 1);
    assert_says(&log, &["127.0.0.1:1", "Postgres"]);
    assert!(!log.contains("hush"), "{log}");
    let log = refused(
        &Start::default().env("CONTEXTKEEP_CONTEXT_MANAGER__DATABASE__DSN", "hush-hush"),
        1,
    );
    assert_says(&log, &["context_manager.database.dsn"]);
    assert!(!log.contains("hush"), "{log}");
}

#[test]
fn a_configuration_file_that_is_none_is_refused() {
    for config in [
        "server: [",
        "- just\n- a list",
        "server: {}\nserver: {}",
        "\u{0}\u{1}",
        "server: &a { bind: *a }",
    ] {
        let log = refused(&Start::with(config), 2);
        assert_says(&log, &["test.yaml"]);
    }
    let folder = folder();
    let output = run(folder.path(), &["--config", "absent.yaml", "serve"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert_says(&text(&output.stderr), &["absent.yaml"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = folder();
    let said = "x".repeat(2000);
    let lines: Vec<String> = (0..200)
        .map(|n| format!(r#"{{"id":"c{n}","messages":[{{"role":"user","content":"{said}"}}]}}"#))
        .collect();
    let imported = run(folder.path(), &["import"], lines.join("\n").as_bytes());
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    for args in [
        ["export", "--all"].as_slice(),
        &["docs", "cli"],
        &["ctx", "items", "c1"],
    ] {
        let mut child = contextkeep(folder.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        assert!(!first.is_empty());
        // The reader is dropped: our end of the pipe is closed, as `head -1` does.
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn a_server_whose_log_nobody_reads_goes_on() {
    let folder = folder();
    let mut child = contextkeep(folder.path())
        .args(["serve", "--bind", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address = std::iter::from_fn(|| {
        let mut line = String::new();
        (log.read_line(&mut line).unwrap() > 0).then_some(line)
    })
    .find_map(|line| crate::support::listening_on(&line))
    .unwrap();
    drop(log);
    let client = crate::support::http::Client::new(address);
    for _ in 0..3 {
        // A refusal of the store is logged, into a pipe without a reader.
        client.get("/v1/contexts/none").problem(404, "not_found");
    }
    assert_eq!(client.get("/readyz").status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn bad_input_on_the_command_line_is_refused() {
    let folder = folder();
    for (args, input, code) in [
        (["ctx", "append", "../x", "{}"].as_slice(), "", 2),
        (&["ctx", "append", "none", "--text", "hi"], "", 1),
        (&["ctx", "append", "none"], "not json\n", 1),
        (&["ctx", "window", "none", "--max-tokens", "-1"], "", 2),
        (&["ctx", "search", "\"open"], "", 1),
        (&["ctx", "list", "--cursor", "forged"], "", 1),
        (&["ctx", "show", "none", "--tenant", "a/b"], "", 2),
        (&["import", "absent.jsonl"], "", 1),
        (&["export"], "", 1),
        (&["export", "none"], "", 1),
        (&["nonsense"], "", 2),
    ] {
        let output = run(folder.path(), args, input.as_bytes());
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            text(&output.stderr)
        );
        assert!(!output.stderr.is_empty(), "{args:?} says nothing");
        assert!(
            !text(&output.stderr).contains("panicked"),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}
