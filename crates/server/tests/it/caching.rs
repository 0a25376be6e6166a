//! The cache in a server: what comes from memory, who is heard, what an operator changes while it runs.

use contextkeep_test_support::RedisNode;
use serde_json::{Value, json};

use crate::support::http::{Client, Response};
use crate::support::{Folder, Server, Start, eventually, folder, run, run_ok, text};

fn window(client: &Client, headers: &[(&str, &str)]) -> Response {
    client.send("GET", "/v1/contexts/c/window?max_tokens=4000", headers, "")
}

fn origin(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.header("contextkeep-origin").unwrap().to_owned()
}

fn items(response: &Response) -> usize {
    response.ok()["items"].as_array().unwrap().len()
}

fn create(client: &Client) {
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
}

fn append(client: &Client, content: &str) -> Response {
    let body = json!({"items": [{"role": "user", "content": content}]}).to_string();
    let response = client.post("/v1/contexts/c/items", body);
    assert_eq!(response.status, 200, "{}", response.text());
    response
}

#[test]
fn windows_come_from_memory_and_are_never_of_the_past() {
    let server = Server::start();
    let client = server.client();
    create(&client);
    for n in 1..=20 {
        append(&client, &format!("item {n}"));
        assert_eq!(items(&window(&client, &[])), n);
    }
    let again = eventually("a window from memory", || {
        let again = window(&client, &[]);
        (origin(&again) == "l1").then_some(again)
    });
    assert_eq!(items(&again), 20);
    let strong = window(&client, &[("contextkeep-consistency", "strong")]);
    assert_eq!(origin(&strong), "primary");
    assert_eq!(strong.ok(), again.ok(), "the same window, wherever it comes from");
    client.delete("/v1/contexts/c");
    window(&client, &[]).problem(404, "not_found");
}

#[test]
fn a_server_without_redis_says_nothing_of_it() {
    let server = Server::start();
    let ready = server.client().get("/readyz").ok();
    assert_eq!((ready.get("redis"), &ready["degraded"]), (None, &json!([])));
    let shown = server.client().get("/admin/v1/cache").ok();
    assert_eq!(
        (&shown["redis"], shown.get("redis_health")),
        (&json!(false), None)
    );
}

#[test]
fn another_process_on_the_file_is_heard() {
    let server = Server::start();
    let client = server.client();
    create(&client);
    append(&client, "here");
    window(&client, &[]);
    run_ok(server.folder(), &["ctx", "append", "c", "--text", "there"]);
    eventually("the other process' item", || {
        (items(&window(&client, &[])) == 2).then_some(())
    });
    // And from then on from memory again.
    eventually("a window from memory", || {
        (origin(&window(&client, &[])) == "l1").then_some(())
    });
}

#[test]
fn an_operator_takes_optimizations_in_and_out_while_it_runs() {
    let server = Server::start();
    let client = server.client();
    create(&client);
    append(&client, "1");
    let shown = client.get("/admin/v1/rollout").ok();
    assert_eq!(shown["optimized"], "on");
    let from_memory = || eventually("memory", || (origin(&window(&client, &[])) == "l1").then_some(()));
    from_memory();
    let off = client.patch("/admin/v1/rollout", r#"{"optimized":"off"}"#).ok();
    assert_eq!((&off["optimized"], &off["l1"]), (&json!("off"), &json!("on")));
    assert_eq!(origin(&window(&client, &[])), "primary");
    append(&client, "2");
    client
        .patch("/admin/v1/rollout", r#"{"optimized":"shadow"}"#)
        .ok();
    for _ in 0..3 {
        let answer = window(&client, &[]);
        assert_eq!((origin(&answer).as_str(), items(&answer)), ("primary", 2));
    }
    eventually("three comparisons", || {
        let shadows = client.get("/admin/v1/cache").ok()["shadows"].clone();
        assert_eq!(shadows["different"], 0, "{shadows}");
        (shadows["same"].as_u64() >= Some(3)).then_some(())
    });
    client.patch("/admin/v1/rollout", r#"{"optimized":100}"#).ok();
    from_memory();
    for bad in [
        r#"{"optimized":"maybe"}"#,
        r#"{"l1":101}"#,
        r#"{"l3":"on"}"#,
        "[]",
        "{",
    ] {
        let refused = client.patch("/admin/v1/rollout", bad);
        refused.problem(422, "invalid");
    }
    assert_eq!(client.get("/admin/v1/rollout").ok()["optimized"], 100);
}

#[test]
fn a_cache_that_is_turned_off_is_not_there() {
    let server = Server::with("context_manager: {cache: {in_memory: {enabled: false}}}");
    let client = server.client();
    create(&client);
    for _ in 0..3 {
        append(&client, "1");
        assert_eq!(origin(&window(&client, &[])), "primary");
    }
    client.get("/admin/v1/cache").problem(404, "no_cache");
    client.patch("/admin/v1/rollout", "{}").problem(404, "no_cache");
}

#[cfg(unix)]
#[test]
fn a_changed_rollout_is_reloaded_and_a_broken_file_changes_nothing() {
    let server = Server::with("context_manager: {rollout: {l1: on}}");
    let file = server.folder().join("test.yaml");
    let write = |rollout: &str| {
        std::fs::write(&file, format!("context_manager: {{rollout: {rollout}}}\n")).unwrap();
    };
    let client = server.client();
    let flag = || client.get("/admin/v1/rollout").ok()["l1"].clone();
    assert_eq!(flag(), "on");
    write("{l1: 30}");
    server.hang_up();
    eventually("the new flag", || (flag() == 30).then_some(()));
    write("{l1: sometimes}");
    server.hang_up();
    eventually("the complaint", || {
        server.log().contains("the old one stays").then_some(())
    });
    assert_eq!(flag(), 30);
    write("{l1: off}");
    server.hang_up();
    eventually("the last flag", || (flag() == "off").then_some(()));
    server.stop();
}

fn on(dsn: &str, redis: Option<&RedisNode>) -> Start {
    let mut manager = json!({"database": {"dsn": dsn, "max_open_conns": 10}});
    if let Some(redis) = redis {
        manager["cache"] =
            json!({"redis": {"enabled": true, "endpoints": [redis.addr().to_string()], "min_idle_conns": 0}});
    }
    Start::with(&json!({"context_manager": manager}).to_string())
}

/// G4 and G5 between two servers: with a token at once, without one within the bound.
fn the_two_agree(one: &Client, two: &Client, from: usize) {
    for n in from..from + 10 {
        let (here, there) = if n.is_multiple_of(2) {
            (one, two)
        } else {
            (two, one)
        };
        let appended = append(here, &format!("item {n}"));
        let token = appended.header("contextkeep-token").unwrap().to_owned();
        let at_once = window(there, &[("contextkeep-token", &token)]);
        assert_eq!(items(&at_once), n + 1, "with a token");
        eventually("within the bound, without a token", || {
            (items(&window(there, &[])) == n + 1).then_some(())
        });
    }
}

#[test]
#[ignore = "needs services"]
fn two_servers_without_redis_hear_of_each_other_by_the_outbox() {
    let dsn = crate::postgres::database();
    let (one, two) = (
        on(&dsn, None).up(Folder::Own(folder())),
        on(&dsn, None).up(Folder::Own(folder())),
    );
    create(&one.client());
    the_two_agree(&one.client(), &two.client(), 0);
    let shown = one.client().get("/admin/v1/cache").ok();
    assert_eq!(
        (&shown["backplane"], &shown["redis"]),
        (&json!("outbox"), &json!(false))
    );
    for client in [one.client(), two.client()] {
        eventually("a window from memory", || {
            (origin(&window(&client, &[])) == "l1").then_some(())
        });
    }
}

// G9: Redis down, frozen, empty: every request succeeds, and afterwards it is used again.
#[test]
#[ignore = "needs services"]
fn two_servers_share_redis_and_outlive_it() {
    let dsn = crate::postgres::database();
    let redis = RedisNode::start_alone().unwrap();
    let start = || on(&dsn, Some(&redis)).up(Folder::Own(folder()));
    let (one, two) = (start(), start());
    let (first, second) = (one.client(), two.client());
    create(&first);
    the_two_agree(&first, &second, 0);
    let from_redis = |client: &Client| reads(client, "l2");
    assert!(
        from_redis(&second) + from_redis(&first) > 0.0,
        "a head came from Redis"
    );
    redis.freeze().unwrap();
    the_two_agree_by_tokens(&first, &second, 10);
    redis.thaw().unwrap();
    the_two_agree(&first, &second, 15);
    redis.kill().unwrap();
    the_two_agree_by_tokens(&first, &second, 25);
    redis.start().unwrap();
    eventually("memory is trusted again", || {
        let shown: Value = first.get("/admin/v1/cache").ok();
        (shown["trusted_partitions"] == 256 && shown["deferred_changes"] == 0).then_some(())
    });
    the_two_agree(&first, &second, 30);
}

// G9: Redis is not needed to be ready, and whoever runs the server sees that it is gone.
#[test]
#[ignore = "needs services"]
fn a_redis_that_is_gone_is_shown_and_the_server_stays_ready() {
    let redis = RedisNode::start_alone().unwrap();
    let config = json!({"context_manager": {
        "database": {"dsn": crate::postgres::database(), "max_open_conns": 10},
        "cache": {"redis": {
            "enabled": true, "endpoints": [redis.addr().to_string()], "min_idle_conns": 0,
            "dial_timeout": "1s", "read_timeout": "1s"
        }}
    }});
    let server = Start::with(&config.to_string()).up(Folder::Own(folder()));
    let client = server.client();
    let file = server.folder().join("test.yaml");
    let doctor = || {
        let output = run(
            server.folder(),
            &["--config", file.to_str().unwrap(), "doctor"],
            b"",
        );
        (output.status.success(), text(&output.stdout))
    };
    let until = |state: &str| {
        eventually(state, || {
            let ready = client.get("/readyz").ok();
            assert_eq!(ready["status"], "ready");
            (ready["redis"]["state"] == state).then_some(ready)
        })
    };
    let reachable = |is: f64| {
        let page = client.get("/metrics").text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix("contextkeep_cache_redis_reachable_info "));
        assert_eq!(value.map(str::parse), Some(Ok(is)));
    };
    assert_eq!(until("reachable")["degraded"], json!([]));
    reachable(1.0);
    let (well, report) = doctor();
    assert!(well && report.contains("ok    Redis answers"), "{report}");
    redis.kill().unwrap();
    let ready = until("unreachable");
    assert_eq!(ready["degraded"].as_array().unwrap().len(), 1, "{ready}");
    assert!(ready["redis"]["for_seconds"].is_u64(), "{ready}");
    let shown = client.get("/admin/v1/cache").ok();
    assert_eq!(shown["redis_health"]["state"], "unreachable");
    reachable(0.0);
    let (well, report) = doctor();
    assert!(!well && report.contains("FAIL  Redis"), "{report}");
    redis.start().unwrap();
    assert_eq!(until("reachable")["degraded"], json!([]));
    server.stop();
}

// G5: a command that knows no cache, and dies after its commit.
#[test]
#[ignore = "needs services"]
fn what_the_command_line_wrote_past_redis_is_known_to_servers() {
    let dsn = crate::postgres::database();
    let redis = RedisNode::start_alone().unwrap();
    let server = on(&dsn, Some(&redis)).up(Folder::Own(folder()));
    let client = server.client();
    create(&client);
    append(&client, "item 0");
    eventually("a window from memory", || {
        (origin(&window(&client, &[])) == "l1").then_some(())
    });
    let config = server.folder().join("test.yaml");
    let command = [
        "--config",
        config.to_str().unwrap(),
        "ctx",
        "append",
        "c",
        "--text",
        "item 1",
    ];
    run_ok(server.folder(), &command);
    eventually("what the command wrote", || {
        (items(&window(&client, &[])) == 2).then_some(())
    });
    let shown: Value = client.get("/admin/v1/cache").ok();
    assert!(shown["relay"]["mended"].as_u64() >= Some(1), "{shown}");
    let page = client.get("/metrics").text();
    let mended = "contextkeep_core_relayed_changes_total{outcome=\"mended\"}";
    assert!(page.contains(mended), "{page}");
}

/// Without Redis nobody hears of the other's changes, so nothing is taken for fresh: every answer is the database's.
fn the_two_agree_by_tokens(one: &Client, two: &Client, from: usize) {
    for n in from..from + 5 {
        let token = append(one, &format!("item {n}"))
            .header("contextkeep-token")
            .unwrap()
            .to_owned();
        assert_eq!(items(&window(two, &[("contextkeep-token", &token)])), n + 1);
    }
}

fn reads(client: &Client, origin: &str) -> f64 {
    let page = client.get("/metrics").text();
    let series = format!("contextkeep_cache_reads_total{{origin=\"{origin}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0.0, |value| value.parse().unwrap())
}
