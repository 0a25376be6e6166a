//! Traces, as a collector gets them that this test serves.

mod calls;
mod collector;
mod outgoing;

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use self::collector::{Collector, Manner, number, text};
use crate::support::http::Client;
use crate::support::{ACME, Server, Start, TWO_TENANTS, eventually, folder, run};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const SAMPLED: (&str, &str) = (
    "traceparent",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
);
const UNSAMPLED: (&str, &str) = (
    "traceparent",
    "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
);
/// What only bodies hold.
const MARKER: &str = "only-for-the-model";
const CONTEXT: &str = "very-private-context";
/// No answer is waited for this long unless something is wrong; the machine may be busy.
const HANG: Duration = Duration::from_secs(50);

/// A configuration that traces to this collector, with more keys of `telemetry.traces`.
fn traced(url: &str, more: &str) -> String {
    format!("telemetry: {{traces: {{enabled: true, endpoint: \"{url}\", export_interval: 50ms, {more}}}}}\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn metric(client: &Client, series: &str) -> f64 {
    let page = client.get("/metrics").text();
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

fn spans(client: &Client, outcome: &str) -> f64 {
    metric(
        client,
        &format!("contextkeep_server_spans_total{{outcome=\"{outcome}\"}}"),
    )
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn assert_inside(outer: &Span, inner: &Span) {
    let times = [
        outer.start_time_unix_nano,
        inner.start_time_unix_nano,
        inner.end_time_unix_nano,
        outer.end_time_unix_nano,
    ];
    assert!(times.is_sorted(), "{}: {times:?}", inner.name);
}

fn assert_continues_and_tells_where_time_went(collector: &Collector) {
    let span = collector.span("POST /v1/contexts/{id}/items");
    assert_eq!(
        (hex(&span.trace_id), hex(&span.parent_span_id)),
        (TRACE.to_owned(), PARENT.to_owned())
    );
    assert_eq!(span.kind, i32::from(SpanKind::Server));
    assert_eq!(span.status.as_ref().unwrap().code, i32::from(StatusCode::Unset));
    let say = |key| text(&span.attributes, key);
    assert_eq!(say("http.request.method").as_deref(), Some("POST"));
    assert_eq!(say("http.route").as_deref(), Some("/v1/contexts/{id}/items"));
    assert_eq!(say("url.scheme").as_deref(), Some("http"));
    assert_eq!(say("contextkeep.request_id").as_deref(), Some("call-42"));
    assert_eq!(say("contextkeep.origin").as_deref(), Some("primary"));
    assert_eq!(number(&span.attributes, "http.response.status_code"), Some(200));
    let children = collector.children(&span);
    for stage in ["tokens", "commit"] {
        assert!(names(&children).contains(&stage), "{:?}", names(&children));
    }
    for child in &children {
        assert_eq!(child.trace_id, span.trace_id);
        assert_inside(&span, child);
    }
}

#[test]
fn a_caller_that_traces_gets_a_span_with_what_the_request_waited_for_and_nothing_of_its_content() {
    let collector = Collector::start(Manner::Takes);
    let config = traced(
        &collector.url,
        "sample_ratio: 0, service_name: keep-7, headers: [{name: x-key, value: 'env:COLLECTOR_KEY'}]",
    );
    let config =
        format!("{TWO_TENANTS}{config}context_manager: {{monitoring: {{slow_request_threshold: 0s}}}}\n");
    let server = Start::with(&config)
        .env("COLLECTOR_KEY", "sesame")
        .up(crate::support::Folder::Own(folder()));
    let client = server.client_with(ACME);
    let create = json!({"id": CONTEXT, "agent_id": MARKER}).to_string();
    client.send("POST", "/v1/contexts", &[UNSAMPLED], create).ok();
    let append = json!({"items": [{"role": "user", "content": MARKER}]}).to_string();
    let path = format!("/v1/contexts/{CONTEXT}/items");
    client
        .send("POST", &path, &[SAMPLED, ("x-request-id", "call-42")], append)
        .ok();

    assert_continues_and_tells_where_time_went(&collector);
    // What is answered in front of the router is traced as well.
    let window = format!("/v1/contexts/{CONTEXT}/window?max_tokens=4000");
    eventually("a window from memory", || {
        let window = client.send("GET", &window, &[SAMPLED], "");
        (window.header("contextkeep-origin") == Some("l1")).then_some(())
    });
    eventually("the span of a window from memory", || {
        let spans = collector.spans().into_iter();
        let windows = spans
            .map(|(_, span)| span)
            .filter(|span| span.name == "GET /v1/contexts/{id}/window");
        windows
            .map(|span| text(&span.attributes, "contextkeep.origin"))
            .find(|origin| origin.as_deref() == Some("l1"))
    });
    for private in [CONTEXT, MARKER, ACME, "acme", "sesame"] {
        assert!(!collector.was_told(private), "{private} is in an export");
    }
    assert!(
        collector.heads().contains("x-key: sesame"),
        "{}",
        collector.heads()
    );
    assert!(collector.heads().contains("content-type: application/x-protobuf"));
    assert!(
        collector
            .spans()
            .iter()
            .all(|(service, span)| service == "keep-7" && hex(&span.trace_id) == TRACE)
    );
    eventually("the line of the slow request", || {
        let log = server.log();
        let line = log
            .lines()
            .find(|line| line.contains("slow request") && line.contains("call-42"))?;
        assert!(line.contains(TRACE), "{line}");
        assert!(!line.contains("sesame"));
        Some(())
    });
    server.stop();
}

#[test]
fn only_who_is_let_in_and_is_sampled_is_traced() {
    let collector = Collector::start(Manner::Takes);
    let server = Server::with(&format!(
        "{TWO_TENANTS}{}",
        traced(&collector.url, "sample_ratio: 0")
    ));
    let stranger = server.client_with("not-a-secret-of-anybody");
    for _ in 0..5 {
        assert_eq!(stranger.send("GET", "/v1/contexts", &[SAMPLED], "").status, 401);
        server.client_with(ACME).get("/v1/contexts").ok();
        server
            .client_with(ACME)
            .send("GET", "/v1/contexts", &[UNSAMPLED], "")
            .ok();
        let two = [SAMPLED, SAMPLED];
        server
            .client_with(ACME)
            .send("GET", "/v1/contexts", &two, "")
            .ok();
    }
    // After all of these, one that is traced.
    server
        .client_with(ACME)
        .send("GET", "/v1/contexts", &[SAMPLED], "")
        .ok();
    collector.span("GET /v1/contexts");
    server.stop();
    let spans = collector.spans();
    let roots = spans.iter().filter(|(_, span)| span.name == "GET /v1/contexts");
    assert_eq!(roots.count(), 1, "{spans:?}");
    assert!(
        spans.iter().all(|(_, span)| hex(&span.trace_id) == TRACE),
        "{spans:?}"
    );
}

#[test]
fn a_ratio_that_decides_alone_is_not_overruled_by_callers() {
    let collector = Collector::start(Manner::Takes);
    let config = traced(&collector.url, "sample_ratio: 0, follow_parent: false");
    let server = Server::with(&config);
    for _ in 0..10 {
        server.client().send("GET", "/v1/contexts", &[SAMPLED], "").ok();
    }
    // The end flushes what there is.
    server.stop();
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
}

#[test]
fn failures_of_the_server_are_errors_and_those_of_clients_are_not() {
    let collector = Collector::start(Manner::Takes);
    let config = traced(&collector.url, "sample_ratio: 1, max_per_second: 1000");
    let server = Server::with(&format!("{config}server: {{max_requests: 1}}\n"));
    server.client().get("/v1/contexts/none").problem(404, "not_found");
    let span = collector.span("GET /v1/contexts/{id}");
    assert_eq!(
        text(&span.attributes, "contextkeep.code").as_deref(),
        Some("not_found")
    );
    assert_eq!(text(&span.attributes, "error.type"), None);
    assert_eq!(span.status.unwrap().code, i32::from(StatusCode::Unset));
    assert!(span.parent_span_id.is_empty(), "it begins a trace");

    let held = server.client().hold();
    eventually("no room", || {
        (server.client().get("/v1/contexts").status == 503).then_some(())
    });
    let failed = eventually("the span of the refusal", || {
        let spans = collector.spans().into_iter().map(|(_, span)| span);
        let mut named = spans.filter(|span| span.name == "GET /v1/contexts");
        named.find(|span| span.status.as_ref().unwrap().code == i32::from(StatusCode::Error))
    });
    assert_eq!(text(&failed.attributes, "error.type").as_deref(), Some("busy"));
    assert_eq!(number(&failed.attributes, "http.response.status_code"), Some(503));
    held.finish();
    server.stop();
}

#[test]
fn so_many_traces_a_second_and_the_others_are_counted() {
    let collector = Collector::start(Manner::RejectsOne);
    let server = Server::with(&traced(&collector.url, "sample_ratio: 1, max_per_second: 1"));
    for _ in 0..20 {
        server.client().get("/v1/contexts/none");
    }
    let left_out = metric(&server.client(), "contextkeep_server_left_out_traces_total");
    assert!(left_out > 0.0, "twenty requests took twenty seconds");
    eventually("what the collector rejects is counted", || {
        (spans(&server.client(), "rejected") > 0.0).then_some(())
    });
    server.stop();
    let roots = collector
        .spans()
        .into_iter()
        .filter(|(_, span)| span.name == "GET /v1/contexts/{id}");
    assert!(roots.count() < 20);
}

/// Y1, Y5: whatever the collector does, requests are answered and the server ends.
fn outlives(collector: &str, more: &str) -> (Server, Instant) {
    let begun = Instant::now();
    let keys = format!(
        "sample_ratio: 1, max_per_second: 100000, queue: 64, batch: 16, flush_timeout: 300ms, {more}"
    );
    let server = Server::with(&traced(collector, &keys));
    server
        .client()
        .post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#)
        .ok();
    for n in 0..100 {
        let body = json!({"items": [{"role": "user", "content": format!("item {n}")}]}).to_string();
        server.client().post("/v1/contexts/c/items", body).ok();
    }
    assert!(begun.elapsed() < HANG, "a request waited for the collector");
    (server, begun)
}

#[test]
fn a_collector_that_hangs_costs_spans_and_nobody_waits_for_it() {
    let collector = Collector::start(Manner::Hangs);
    let (server, begun) = outlives(&collector.url, "timeout: 10m");
    let client = server.client();
    eventually("spans without room are counted", || {
        (spans(&client, "dropped") > 0.0).then_some(())
    });
    assert!(metric(&client, "contextkeep_server_waiting_spans") <= 64.0);
    server.terminate();
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("did not take all spans"), "{log}");
    assert!(begun.elapsed() < HANG * 2, "the end waited for the collector");
}

#[test]
fn a_collector_that_is_not_there_fails_or_is_none_costs_spans_and_a_line_in_the_log() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/v1/traces", gone.local_addr().unwrap());
    drop(gone);
    let (fails, nonsense) = (
        Collector::start(Manner::Fails),
        Collector::start(Manner::Nonsense),
    );
    for url in [&nobody, &fails.url, &nonsense.url] {
        let (server, begun) = outlives(url, "timeout: 1s");
        let client = server.client();
        eventually("failures are counted", || {
            let exports = metric(
                &client,
                "contextkeep_server_span_exports_total{outcome=\"failed\"}",
            );
            (exports > 1.0 && spans(&client, "failed") > 0.0).then_some(())
        });
        assert!(spans(&client, "exported") < 1.0);
        server.terminate();
        let (status, log) = server.wait();
        assert!(status.success(), "{log}");
        let lines = log.matches("spans were not exported").count() as u64;
        assert!((1..=1 + begun.elapsed().as_secs() / 60).contains(&lines), "{log}");
    }
}

#[test]
fn the_end_exports_what_is_left() {
    let collector = Collector::start(Manner::Takes);
    let config = traced(&collector.url, "sample_ratio: 1").replace("50ms", "1h");
    let server = Server::with(&config);
    server.client().get("/v1/contexts").ok();
    assert!(collector.spans().is_empty());
    server.stop();
    assert!(
        names(
            &collector
                .spans()
                .into_iter()
                .map(|(_, span)| span)
                .collect::<Vec<_>>()
        )
        .contains(&"GET /v1/contexts")
    );
}

#[test]
fn nonsense_in_the_settings_is_refused_by_key() {
    let folder = folder();
    let start = Start::with(
        "telemetry: {traces: {enabled: true, endpoint: 'grpc://127.0.0.1:4317', sample_ratio: 1.5, queue: 1, timeout: 0s}}",
    );
    let (status, log) = start.refused(folder.path());
    assert_eq!(status.code(), Some(2), "{log}");
    for key in ["endpoint", "sample_ratio", "queue"] {
        assert!(log.contains(&format!("telemetry.traces.{key}")), "{key}: {log}");
    }
}
