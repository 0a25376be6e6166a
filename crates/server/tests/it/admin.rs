//! What the server tells whoever runs it: pools, replicas, statements, figures.

use std::collections::BTreeSet;

use contextkeep_test_support::PgCluster;

use crate::support::http::Client;
use crate::support::{ACME, OTHER, Server, eventually};

const ROUTES: [&str; 3] = ["/admin/v1/database", "/admin/v1/queries", "/metrics"];
const KEYS: &str = r"
auth:
  keys:
    - { name: acme, tenant: acme, secret: acme-secret-0123456789 }
    - { name: other, tenant: other, secret: other-secret-0123456789, admin: true }
";

#[test]
fn only_a_key_that_says_so_is_an_operator_s() {
    let server = Server::with(KEYS);
    for route in ROUTES {
        server.client().get(route).problem(401, "unauthorized");
        server.client_with(ACME).get(route).problem(403, "forbidden");
    }
    let operator = server.client_with(OTHER);
    operator.get(ROUTES[0]).problem(404, "no_database");
    operator.get(ROUTES[1]).problem(404, "no_database");
    assert_eq!(operator.get("/metrics").status, 200);
}

#[test]
fn without_keys_everybody_on_this_machine_is_an_operator() {
    let server = Server::start();
    server
        .client()
        .get("/admin/v1/queries")
        .problem(404, "no_database");
    assert_eq!(server.client().get("/metrics").status, 200);
}

#[test]
fn metrics_can_be_turned_off() {
    let server = Server::with("context_manager: { monitoring: { metrics_enabled: false } }");
    server.client().get("/metrics").problem(404, "metrics_disabled");
}

/// The value of the series with this name and these labels.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn requests_are_counted_by_route_and_never_by_id() {
    let server = Server::start();
    let client = server.client();
    client
        .post("/v1/contexts", r#"{"id":"trip-7f","agent_id":"planner-7f"}"#)
        .ok();
    let series = |status: &str| {
        format!(
            "contextkeep_server_request_duration_seconds_count{{method=\"GET\",route=\"/v1/contexts/{{id}}\",status=\"{status}\"}}"
        )
    };
    client.get("/v1/contexts/trip-7f").ok();
    client.get("/v1/contexts/absent-7f").problem(404, "not_found");
    client.get("/nothing-7f").problem(404, "route_not_found");
    client.send("BREW-7F", "/v1/contexts", &[], b"");
    let before = client.get("/metrics");
    assert_eq!(
        before.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let before = before.text();
    assert_eq!(value(&before, &series("2xx")), Some(1.0), "{before}");
    assert_eq!(value(&before, &series("4xx")), Some(1.0), "{before}");
    client.get("/v1/contexts/trip-7f").ok();
    let after = client.get("/metrics").text();
    assert_eq!(value(&after, &series("2xx")), Some(2.0), "{after}");
    assert!(!after.to_lowercase().contains("7f"), "{after}");
    assert!(after.contains("method=\"other\""), "{after}");
}

/// `name="value"` of each label of a page, the bounds of buckets left out.
fn labels(page: &str) -> BTreeSet<&str> {
    let series = page.lines().filter(|line| !line.starts_with('#'));
    let labels = series.filter_map(|line| line.split_once('{')?.1.rsplit_once('}'));
    labels
        .flat_map(|(labels, _)| labels.split("\","))
        .filter_map(|label| label.split_once('=').map(|(name, _)| name))
        .collect()
}

#[test]
#[ignore = "needs server binaries"]
fn the_database_its_statements_and_its_figures_are_shown() {
    let cluster = PgCluster::builder().replicas(1).start().unwrap();
    let (primary, replica) = (cluster.primary(), cluster.replicas().next().unwrap());
    let server = Server::with(&format!(
        "{KEYS}
context_manager:
  database: {{ dsn: '{}', max_open_conns: 12, max_idle_conns: 12 }}
  read_replicas: [ {{ dsn: '{}' }} ]
  monitoring: {{ slow_query_threshold: 0s, sampling_rate: 1 }}
",
        primary.dsn(),
        replica.dsn()
    ));
    let (client, operator) = (server.client_with(ACME), server.client_with(OTHER));
    client
        .post("/v1/contexts", r#"{"id":"trip-7f","agent_id":"planner-7f"}"#)
        .ok();
    let items = r#"{"items":[{"role":"user","content":"body-7f"}]}"#;
    client.post("/v1/contexts/trip-7f/items", items).ok();
    for _ in 0..5 {
        // Not from memory: the database is to have something to tell.
        let strong = [("contextkeep-consistency", "strong")];
        client.send("GET", "/v1/contexts/trip-7f", &strong, "").ok();
        client.get("/v1/contexts/trip-7f/window").ok();
    }
    for route in ROUTES {
        client.get(route).problem(403, "forbidden");
    }

    let told = [
        shown_servers(&operator),
        shown_queries(&operator),
        shown_figures(&client, &operator),
    ];
    // Nothing of what was stored, and not whose it is.
    for told in told {
        assert!(
            !told.contains("7f")
                || !["trip-7f", "planner-7f", "body-7f"]
                    .iter()
                    .any(|word| told.contains(word))
        );
        assert!(!told.contains("acme"), "{told}");
    }
}

fn shown_servers(operator: &Client) -> String {
    let database = eventually("the replica is looked at", || {
        let database = operator.get("/admin/v1/database").ok();
        (database["servers"][1]["state"] == "healthy").then_some(database)
    });
    let servers = database["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 2);
    assert_eq!(
        (&servers[0]["name"], &servers[0]["is_primary"]),
        (&"primary".into(), &true.into())
    );
    assert_eq!(
        (&servers[1]["name"], &servers[1]["in_recovery"]),
        (&"replica-1".into(), &true.into())
    );
    assert_eq!(servers[1]["breaker"], "closed");
    assert!(servers[1]["lag_bytes"].is_u64(), "{database}");
    assert!(servers[0]["pool"]["opened"].as_u64() > Some(0), "{database}");
    let reads = &database["reads"];
    assert!(
        reads["replica"].as_u64().unwrap()
            + reads["primary"].as_u64().unwrap()
            + reads["unmet"].as_u64().unwrap()
            > 0,
        "{database}"
    );
    database.to_string()
}

fn shown_queries(operator: &Client) -> String {
    let queries = eventually("a plan was taken", || {
        let queries = operator.get("/admin/v1/queries").ok();
        (queries["explaining"]["taken"].as_u64() > Some(0)).then_some(queries)
    });
    let head = queries["statements"].as_array().unwrap().iter();
    let head = head
        .clone()
        .find(|statement| statement["statement"] == "head")
        .unwrap();
    assert!(
        head["calls"].as_u64() >= Some(5) && head["max_ms"].as_f64() > Some(0.0),
        "{head}"
    );
    assert!(
        queries["plans"][0]["plan"][0]["Plan"]["Node Type"].is_string(),
        "{queries}"
    );
    assert!(!queries["slow"].as_array().unwrap().is_empty());
    queries.to_string()
}

fn shown_figures(client: &Client, operator: &Client) -> String {
    let series = "contextkeep_core_statement_duration_seconds_count{statement=\"head\"}";
    let before = operator.get("/metrics").text();
    let strong = [("contextkeep-consistency", "strong")];
    client.send("GET", "/v1/contexts/trip-7f", &strong, "").ok();
    let after = operator.get("/metrics").text();
    assert!(value(&after, series) > value(&before, series), "{after}");
    assert!(value(&before, series) >= Some(5.0), "{before}");
    for (series, least) in [
        ("contextkeep_core_pool_max_connections{server=\"primary\"}", 1.0),
        (
            "contextkeep_core_opened_connections_total{server=\"primary\"}",
            1.0,
        ),
        (
            "contextkeep_core_server_health_info{server=\"replica-1\",state=\"healthy\"}",
            0.0,
        ),
        (
            "contextkeep_core_server_breaker_info{server=\"replica-1\",state=\"closed\"}",
            1.0,
        ),
        (
            "contextkeep_core_gate_info{gate=\"primary\",state=\"closed\"}",
            1.0,
        ),
        ("contextkeep_core_gate_refused_calls_total{gate=\"search\"}", 0.0),
        ("contextkeep_core_server_lag_bytes{server=\"replica-1\"}", 0.0),
        (
            "contextkeep_core_closed_connections_total{server=\"primary\",reason=\"lost\"}",
            0.0,
        ),
    ] {
        assert!(value(&after, series) >= Some(least), "{series} in {after}");
    }
    let closed = [
        "method",
        "route",
        "status",
        "statement",
        "server",
        "state",
        "reason",
        "outcome",
        "origin",
        "event",
        "gate",
        "le",
    ];
    let labels = labels(&after);
    assert!(labels.iter().all(|label| closed.contains(label)), "{labels:?}");
    after
}
