//! One trace: begun with a request, made into spans when it is over.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, Method, StatusCode};
use bytes::Bytes;
use contextkeep_core::session::{StageSpan, Stages};
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{KeyValue, TraceId};
use opentelemetry_sdk::trace::{IdGenerator as _, SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

use super::Traces;
use crate::endpoint::within_trace;

/// The methods that a span names; another one could be any text.
const METHODS: [Method; 8] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::TRACE,
];

/// A request that is to be traced.
pub(crate) struct Root {
    pub(super) traces: Arc<Traces>,
    pub(super) parent: Option<SpanContext>,
}

impl Root {
    /// Begins the span of a request. `route` is the path of the route, never that of the request.
    pub(crate) fn request(self, method: &Method, route: Option<&str>, begun: Instant) -> Trace {
        let method = METHODS.iter().find(|known| *known == method);
        let method = method.map_or("_OTHER", Method::as_str).to_owned();
        let verb = if method == "_OTHER" { "HTTP" } else { &method };
        let name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.scheme", "http"),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        self.open(name.into(), SpanKind::Server, attributes, begun)
    }

    /// Begins the span of a call. `carrier` is the span of the request that it came in, unless that is its parent.
    fn call(self, tool: Cow<'static, str>, kind: SpanKind, carrier: Option<SpanContext>) -> Trace {
        let name = format!("tools/call {tool}");
        let attributes = vec![
            KeyValue::new("mcp.method.name", "tools/call"),
            KeyValue::new("gen_ai.tool.name", tool),
        ];
        let mut trace = self.open(name.into(), kind, attributes, Instant::now());
        if let Some(open) = &mut trace.open {
            open.links.links.extend(carrier.map(Link::with_context));
        }
        trace
    }

    fn open(
        self,
        name: Cow<'static, str>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        begun: Instant,
    ) -> Trace {
        let ids = &self.traces.ids;
        let trace_id = self
            .parent
            .as_ref()
            .map_or_else(|| ids.new_trace_id(), SpanContext::trace_id);
        let context = sampled(trace_id, ids.new_span_id());
        let open = Open {
            context,
            parent: self.parent,
            name,
            kind,
            attributes,
            links: SpanLinks::default(),
            begun,
        };
        Trace {
            traces: self.traces,
            stages: Arc::default(),
            open: Some(open),
        }
    }
}

/// What an answer says of its request.
pub(crate) struct Answered<'a> {
    pub(crate) status: StatusCode,
    /// The stable code of a problem.
    pub(crate) code: Option<&'a str>,
    pub(crate) origin: Option<&'a str>,
    pub(crate) request_id: &'a str,
}

/// A request or a call under way that is traced. Dropped before it is over, it was given up by its client.
pub(crate) struct Trace {
    traces: Arc<Traces>,
    stages: Arc<Stages>,
    /// `None` once the spans are made.
    open: Option<Open>,
}

struct Open {
    context: SpanContext,
    parent: Option<SpanContext>,
    name: Cow<'static, str>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    links: SpanLinks,
    begun: Instant,
}

impl Trace {
    /// Runs a future whose waits become spans of this one, and whose requests to others go on from it.
    ///
    /// Cancellation: dropping it drops the future.
    pub(crate) async fn scope<F: Future>(&self, work: F) -> F::Output {
        within_trace(self.traceparent(), self.stages.scope(work)).await
    }

    fn traceparent(&self) -> Option<HeaderValue> {
        let context = &self.open.as_ref()?.context;
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        HeaderValue::from_maybe_shared(Bytes::from(format!("00-{trace}-{span}-{flags:02x}"))).ok()
    }

    /// Names it in the log.
    pub(crate) fn id(&self) -> TraceId {
        self.open
            .as_ref()
            .map_or(TraceId::INVALID, |open| open.context.trace_id())
    }

    /// What traces the calls of tools in this request.
    pub(crate) fn calls(&self) -> Calls {
        let by = match &self.open {
            Some(open) => By::Request(open.context.clone()),
            None => By::Caller,
        };
        Calls {
            traces: self.traces.clone(),
            by,
        }
    }

    /// The request was answered.
    pub(crate) fn answered(mut self, answer: &Answered<'_>) {
        let status = answer.status;
        let mut attributes = vec![
            KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            KeyValue::new("contextkeep.request_id", answer.request_id.to_owned()),
        ];
        attributes.extend(
            answer
                .origin
                .map(|origin| KeyValue::new("contextkeep.origin", origin.to_owned())),
        );
        attributes.extend(
            answer
                .code
                .map(|code| KeyValue::new("contextkeep.code", code.to_owned())),
        );
        // What a client did wrong is no error of the server's span.
        if status.is_server_error() {
            let kind = answer.code.unwrap_or(status.as_str());
            attributes.push(KeyValue::new("error.type", kind.to_owned()));
        }
        self.close(attributes, status.is_server_error());
    }

    /// The call is over, with this code if it was refused or failed.
    pub(crate) fn called(mut self, code: Option<&'static str>) {
        let attributes = code.map(|code| KeyValue::new("error.type", code));
        self.close(attributes, code.is_some());
    }

    fn close(&mut self, attributes: impl IntoIterator<Item = KeyValue>, is_error: bool) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        open.attributes.extend(attributes);
        let (stages, left_out) = self.stages.take();
        if left_out > 0 {
            open.attributes
                .push(KeyValue::new("contextkeep.stages_left_out", i64::from(left_out)));
        }
        let times = Times {
            now: Instant::now(),
            wall: UNIX_EPOCH
                + Duration::from_micros(u64::try_from(self.traces.clock.now().as_micros()).unwrap_or(0)),
        };
        let mut spans = Vec::with_capacity(stages.len() + 1);
        for stage in &stages {
            spans.push(self.stage(&open.context, stage, &times));
        }
        spans.push(self.root(open, is_error, &times));
        self.traces.record(spans);
    }

    fn root(&self, open: Open, is_error: bool, times: &Times) -> SpanData {
        let status = if is_error {
            Status::error("")
        } else {
            Status::Unset
        };
        SpanData {
            span_context: open.context,
            parent_span_id: open.parent.as_ref().map_or(SpanId::INVALID, SpanContext::span_id),
            parent_span_is_remote: open.parent.is_some_and(|parent| parent.is_remote()),
            span_kind: open.kind,
            name: open.name,
            start_time: times.of(open.begun),
            end_time: times.wall,
            attributes: open.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: open.links,
            status,
            instrumentation_scope: self.traces.scope.clone(),
        }
    }

    fn stage(&self, root: &SpanContext, stage: &StageSpan, times: &Times) -> SpanData {
        SpanData {
            span_context: sampled(root.trace_id(), self.traces.ids.new_span_id()),
            parent_span_id: root.span_id(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: stage.stage.as_str().into(),
            start_time: times.of(stage.begun),
            end_time: times.of(stage.begun + stage.took),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.traces.scope.clone(),
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.close([KeyValue::new("error.type", "cancelled")], false);
    }
}

/// One reading of both clocks: all times of a trace are told from it, so that they keep their distances.
struct Times {
    now: Instant,
    wall: SystemTime,
}

impl Times {
    fn of(&self, at: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(at);
        self.wall.checked_sub(ago).unwrap_or(UNIX_EPOCH)
    }
}

fn sampled(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

/// What traces calls of tools: a transport puts it beside the message.
///
/// The `traceparent` that a call has in its `_meta` is its caller's, and says more of it than the header of the request that
/// carries it: it is the parent, and the request's span is linked. So it is in the semantic conventions of OpenTelemetry for
/// MCP; the key is that of SEP-414.
#[derive(Clone)]
pub(crate) struct Calls {
    traces: Arc<Traces>,
    by: By,
}

/// What decides whether a call is traced, if its caller does not.
#[derive(Clone)]
enum By {
    /// The request that it came in, which is traced.
    Request(SpanContext),
    /// Nothing: the request that it came in is not.
    Caller,
    /// The ratio.
    Ratio,
}

impl Calls {
    pub(super) fn drawn(traces: Arc<Traces>) -> Self {
        let by = By::Ratio;
        Self { traces, by }
    }

    pub(super) fn asked(traces: Arc<Traces>) -> Self {
        let by = By::Caller;
        Self { traces, by }
    }

    /// Begins the span of a call, if it is to be traced. The name has to be that of a tool of ours (Y3), and the call of
    /// somebody who was let in (Y2).
    pub(crate) fn begin(&self, tool: Cow<'static, str>, traceparent: Option<&str>) -> Option<Trace> {
        let traces = &self.traces;
        let caller = traceparent.and_then(|text| traces.parent(text));
        let follows = caller.as_ref().filter(|_| traces.follow_parent);
        let is_asked = follows.map(SpanContext::is_sampled);
        if let By::Request(request) = &self.by {
            // It is in its request's share of the second.
            let root = |parent| Root {
                traces: traces.clone(),
                parent: Some(parent),
            };
            return Some(match caller.filter(|_| is_asked != Some(false)) {
                Some(caller) => root(caller).call(tool, SpanKind::Server, Some(request.clone())),
                None => root(request.clone()).call(tool, SpanKind::Internal, None),
            });
        }
        let is_drawn = || matches!(self.by, By::Ratio) && traces.is_drawn();
        let is_traced = is_asked.unwrap_or_else(is_drawn);
        let root = is_traced.then(|| traces.root(caller)).flatten()?;
        Some(root.call(tool, SpanKind::Server, None))
    }
}
