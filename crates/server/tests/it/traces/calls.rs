//! Calls of tools over MCP, which are spans of their own.

use rmcp::model::{CallToolRequestParams, ProtocolVersion, RequestParamsMeta as _};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _};

use super::*;

/// Of a trace that is not the caller's of a call.
const OTHER: (&str, &str) = (
    "traceparent",
    "00-2cf7651916cd43dd8448eb211c80319c-c8ad6b7169203331-01",
);

const CALL: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"context_create","arguments":{"id":"very-private-context","agent_id":"only-for-the-model"}}}"#;

#[test]
fn a_call_of_a_tool_is_a_span_in_its_request() {
    let collector = Collector::start(Manner::Takes);
    let server = Server::with(&traced(&collector.url, "sample_ratio: 0"));
    let headers = [
        SAMPLED,
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let called = server.client().send("POST", "/mcp", &headers, CALL);
    assert_eq!(called.status, 200, "{}", called.text());
    let (call, request) = (
        collector.span("tools/call context_create"),
        collector.span("POST /mcp"),
    );
    assert_eq!(
        (&call.trace_id, &call.parent_span_id),
        (&request.trace_id, &request.span_id)
    );
    assert_eq!(call.kind, i32::from(SpanKind::Internal));
    assert_eq!(
        text(&call.attributes, "gen_ai.tool.name").as_deref(),
        Some("context_create")
    );
    assert!(names(&collector.children(&call)).contains(&"commit"));
    server.stop();
    for private in [CONTEXT, MARKER] {
        assert!(!collector.was_told(private), "{private} is in an export");
    }
}

/// It is the child of the caller's span.
fn assert_continues(span: &Span) {
    assert_eq!(
        (hex(&span.trace_id), hex(&span.parent_span_id), span.kind),
        (TRACE.to_owned(), PARENT.to_owned(), i32::from(SpanKind::Server))
    );
}

/// A call of this tool, whose caller says this of its trace. Whatever comes of it, it is a call.
fn call_of(tool: &str, traceparent: &str) -> String {
    let params = json!({"name": tool, "arguments": {}, "_meta": {"traceparent": traceparent}});
    json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params}).to_string()
}

#[test]
fn a_call_whose_caller_traces_it_continues_the_callers_trace() {
    let collector = Collector::start(Manner::Takes);
    let server = Server::with(&traced(&collector.url, "sample_ratio: 0"));
    let call = |traced: &[_], tool, traceparent| {
        let mut headers = vec![
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        headers.extend(traced);
        let called = server
            .client()
            .send("POST", "/mcp", &headers, call_of(tool, traceparent));
        assert_eq!(called.status, 200, "{}", called.text());
    };
    let long = "0-".repeat(100_000);
    for not in [UNSAMPLED.1, "nonsense", "", &long] {
        call(&[], "context_search", not);
    }
    call(&[], "context_list", SAMPLED.1);
    // In a request that is traced for its own header.
    call(&[OTHER], "context_window", SAMPLED.1);
    call(&[OTHER], "context_delete", UNSAMPLED.1);

    let [lone, linked, inside] =
        ["list", "window", "delete"].map(|tool| collector.span(&format!("tools/call context_{tool}")));
    for span in [&lone, &linked] {
        assert_continues(span);
    }
    assert!(lone.links.is_empty());
    server.stop();
    let spans = collector.spans().into_iter().map(|(_, span)| span);
    let (requests, calls): (Vec<_>, Vec<_>) = spans.partition(|span| span.name == "POST /mcp");
    let request = |id: &[u8]| requests.iter().any(|request| request.span_id == id);
    assert!(matches!(linked.links.as_slice(), [link] if request(&link.span_id)));
    assert!(request(&inside.parent_span_id) && inside.links.is_empty());
    assert_eq!(requests.len(), 2);
    assert!(!names(&calls).contains(&"tools/call context_search"));
}

#[tokio::test]
async fn what_the_sdk_says_of_a_call_is_read_in_both_revisions() {
    let collector = Collector::start(Manner::Takes);
    let server = Server::with(&traced(&collector.url, "sample_ratio: 0"));
    let modern = ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    };
    for (lifecycle, tool) in [
        (ClientLifecycleMode::Initialize, "context_list"),
        (modern, "context_window"),
    ] {
        let url = format!("http://{}/mcp", server.address());
        let client = ().serve_with_lifecycle(StreamableHttpClientTransport::from_uri(url), lifecycle);
        let client = client.await.unwrap();
        let mut call = CallToolRequestParams::new(tool);
        call.set_traceparent(SAMPLED.1);
        client.call_tool(call).await.unwrap();
        client.cancel().await.unwrap();
        let span = collector.span(&format!("tools/call {tool}"));
        assert_continues(&span);
    }
}

/// Has a process that traces answer these calls on its standard input.
fn on_standard_input(collector: &Collector, more: &str, calls: &[&str]) {
    let folder = folder();
    let file = folder.path().join("traced.yaml");
    std::fs::write(&file, traced(&collector.url, more)).unwrap();
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let input = [&[initialize, initialized], calls].concat().join("\n") + "\n";
    let output = run(
        folder.path(),
        &["--config", file.to_str().unwrap(), "mcp"],
        input.as_bytes(),
    );
    assert!(
        output.status.success(),
        "{}",
        crate::support::text(&output.stderr)
    );
}

#[test]
fn a_call_on_standard_input_continues_the_trace_of_its_caller() {
    let collector = Collector::start(Manner::Takes);
    let call = call_of("context_list", SAMPLED.1);
    on_standard_input(&collector, "sample_ratio: 0", &[&call]);
    let span = collector.span("tools/call context_list");
    assert_continues(&span);
    let [untraced, window] = ["context_search", "context_window"].map(|tool| call_of(tool, UNSAMPLED.1));
    on_standard_input(&collector, "sample_ratio: 1", &[&untraced, CALL]);
    collector.span("tools/call context_create");
    on_standard_input(&collector, "sample_ratio: 1, follow_parent: false", &[&window]);
    collector.span("tools/call context_window");
    let spans = collector.spans();
    assert!(
        spans
            .iter()
            .all(|(_, span)| span.name != "tools/call context_search")
    );
}

#[test]
fn a_call_on_standard_input_is_a_trace_of_its_own() {
    let collector = Collector::start(Manner::Takes);
    let lost = CALL
        .replace("context_create", "context_window")
        .replace("\"id\":2", "\"id\":3");
    on_standard_input(&collector, "sample_ratio: 1", &[CALL, &lost]);
    let call = collector.span("tools/call context_create");
    assert_eq!(call.kind, i32::from(SpanKind::Server));
    assert!(call.parent_span_id.is_empty());
    assert!(names(&collector.children(&call)).contains(&"commit"));
    let refused = collector.span("tools/call context_window");
    assert_ne!(refused.trace_id, call.trace_id);
    assert_eq!(
        text(&refused.attributes, "error.type").as_deref(),
        Some("invalid")
    );
    for private in [CONTEXT, MARKER] {
        assert!(!collector.was_told(private), "{private} is in an export");
    }
}
