//! Traces by OTLP: what some requests waited for, span by span.
//!
//! Spans are made when a request is over, of what was measured on its way ([`Stages`](contextkeep_core::session::Stages)); nothing is made of a request
//! that is not traced.
//!
//! - **Y1** No request waits for a span: all of a trace's are put into a queue with a limit, or dropped and counted.
//! - **Y2** Only requests that are let in are traced, and only so many in a second, whatever their callers ask for.
//! - **Y3** Attributes are from closed sets: routes, methods, status, error codes, origins, names of tools. The one
//!   exception is the request's id, which its answer and the log have as well.
//! - **Y4** What was traced and not exported is counted, by what became of it.
//! - **Y5** A collector that is down, hangs or answers nonsense costs the spans and nothing else; the end of the server
//!   waits for it for `flush_timeout` at most.

mod export;
mod settings;
mod trace;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::HeaderMap;
use contextkeep_core::Clock;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt as _};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision,
    ShouldSample as _, SpanData, SpanProcessor as _,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::export::{Counts, Exporter, add};
pub use self::settings::{TraceHeader, TracesSettings};
pub(crate) use self::trace::{Answered, Calls, Trace};
use crate::endpoint::{Endpoint, TRACEPARENT};
use crate::telemetry::allowance::Allowance;

/// Longest one that is looked at; those of later versions may be longer than today's 55.
const TRACEPARENT_BYTES_MAX: usize = 256;
/// Largest reply of a collector that is read.
const REPLY_BYTES_MAX: u64 = 64 * 1024;

/// What traces requests. One for the process, until [`Traces::close`].
#[derive(Debug)]
pub struct Traces {
    clock: Arc<dyn Clock>,
    sampler: Sampler,
    follow_parent: bool,
    propagator: TraceContextPropagator,
    ids: RandomIdGenerator,
    allowance: Allowance,
    scope: InstrumentationScope,
    processor: BatchSpanProcessor,
    queue: u64,
    flush_timeout: Duration,
    counts: Arc<Counts>,
    stopped: CancellationToken,
}

/// What became of spans so far, for the metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) waiting: u64,
    pub(crate) exported: u64,
    pub(crate) dropped: u64,
    pub(crate) failed: u64,
    pub(crate) rejected: u64,
    pub(crate) exports: u64,
    pub(crate) failed_exports: u64,
    pub(crate) left_out: u64,
}

impl Traces {
    /// Begins to trace, if the settings say so. Has to be called on a runtime; asks no collector anything.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn start(settings: &TracesSettings, clock: Arc<dyn Clock>) -> anyhow::Result<Option<Arc<Self>>> {
        if !settings.enabled {
            return Ok(None);
        }
        let endpoint = endpoint(settings).context("telemetry.traces")?;
        tracing::info!(
            endpoint = endpoint.target.origin(),
            sample_ratio = settings.sample_ratio,
            "requests are traced"
        );
        let resource = Resource::builder_empty()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let (counts, stopped) = (Arc::new(Counts::default()), CancellationToken::new());
        let exporter = Exporter::new(
            endpoint,
            (&resource).into(),
            settings.timeout,
            counts.clone(),
            stopped.clone(),
        );
        // Every field is set, so that no variable of the environment decides.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_max_export_batch_size(settings.batch)
            .with_scheduled_delay(settings.export_interval)
            .build();
        Ok(Some(Arc::new(Self {
            clock,
            sampler: Sampler::TraceIdRatioBased(settings.sample_ratio),
            follow_parent: settings.follow_parent,
            propagator: TraceContextPropagator::new(),
            ids: RandomIdGenerator::default(),
            allowance: Allowance::new(settings.max_per_second, Duration::from_secs(1)),
            scope: InstrumentationScope::builder("contextkeep")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            processor: BatchSpanProcessor::new(exporter, config),
            queue: u64::try_from(settings.queue).unwrap_or(u64::MAX),
            flush_timeout: settings.flush_timeout,
            counts,
            stopped,
        })))
    }

    /// Begins the trace of a request with these headers, if it is to be traced. Whether it is let in is asked only then.
    pub(crate) fn of_request(
        self: &Arc<Self>,
        headers: &HeaderMap,
        is_let_in: impl FnOnce() -> bool,
    ) -> Option<trace::Root> {
        let parent = only(headers).and_then(|text| self.parent(text));
        let is_sampled = match &parent {
            Some(parent) if self.follow_parent => parent.is_sampled(),
            _ => self.is_drawn(),
        };
        (is_sampled && is_let_in()).then(|| self.root(parent)).flatten()
    }

    /// What the calls of a client on standard input and output are traced by.
    pub(crate) fn calls(self: &Arc<Self>) -> Calls {
        Calls::drawn(self.clone())
    }

    /// What the calls in a request are traced by that is not traced itself.
    pub(crate) fn calls_of_others(self: &Arc<Self>) -> Calls {
        Calls::asked(self.clone())
    }

    /// Whether the ratio says so. Drawn by ids of our own: a caller could choose one that is always traced.
    fn is_drawn(&self) -> bool {
        let id = self.ids.new_trace_id();
        let result = self
            .sampler
            .should_sample(None, id, "", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    /// Room for one more trace in this second (Y2).
    fn root(self: &Arc<Self>, parent: Option<SpanContext>) -> Option<trace::Root> {
        if self.allowance.room(Instant::now()).is_none() {
            add(&self.counts.left_out, 1);
            return None;
        }
        Some(trace::Root {
            traces: self.clone(),
            parent,
        })
    }

    fn parent(&self, traceparent: &str) -> Option<SpanContext> {
        if traceparent.len() > TRACEPARENT_BYTES_MAX {
            return None;
        }
        let context = self
            .propagator
            .extract_with_context(&Context::new(), &Traceparent(traceparent));
        let parent = context.span().span_context().clone();
        parent.is_valid().then_some(parent)
    }

    /// Puts the spans of a trace into the queue, all or none (Y1).
    fn record(&self, spans: Vec<SpanData>) {
        if self.counts.reserve(spans.len() as u64, self.queue) {
            for span in spans {
                self.processor.on_end(span);
            }
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        Standing {
            waiting: count(&counts.waiting),
            exported: count(&counts.exported),
            dropped: count(&counts.dropped),
            failed: count(&counts.failed),
            rejected: count(&counts.rejected),
            exports: count(&counts.exports),
            failed_exports: count(&counts.failed_exports),
            left_out: count(&counts.left_out),
        }
    }

    /// Exports what is left, for `flush_timeout` at most (Y5). What is traced after that is lost.
    pub async fn close(self: Arc<Self>) {
        let traces = self.clone();
        // It waits for the processor's thread.
        let flushed =
            tokio::task::spawn_blocking(move || traces.processor.shutdown_with_timeout(traces.flush_timeout));
        let flushed = flushed.await.is_ok_and(|flushed| flushed.is_ok());
        self.stopped.cancel();
        let spans = self.standing().waiting;
        if !flushed && spans > 0 {
            tracing::warn!(spans, "the collector did not take all spans before the end");
        }
    }
}

fn endpoint(settings: &TracesSettings) -> anyhow::Result<Endpoint> {
    let url = (settings.endpoint.as_str(), "");
    let endpoint = Endpoint::new(url, None, settings.ca_file.as_deref(), REPLY_BYTES_MAX)?;
    Ok(endpoint
        .content_type("application/x-protobuf")
        .headers(settings.header_map()))
}

/// The one there is: two of them are none.
fn only(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let text = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(text)
}

/// The one header that is read. A `tracestate` is for whoever calls others in turn, and its content is the caller's.
struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, Method};
    use contextkeep_core::SystemClock;

    const FINE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traces(sample_ratio: f64) -> Arc<Traces> {
        let settings = TracesSettings {
            enabled: true,
            // Nobody listens there, and nothing is exported while a test runs.
            endpoint: "http://127.0.0.1:9/v1/traces".to_owned(),
            export_interval: Duration::from_hours(1),
            flush_timeout: Duration::ZERO,
            sample_ratio,
            ..TracesSettings::default()
        };
        Traces::start(&settings, Arc::new(SystemClock)).unwrap().unwrap()
    }

    fn headers(traceparent: &[&'static str]) -> HeaderMap {
        let values = traceparent.iter().map(|value| HeaderValue::from_static(value));
        values
            .map(|value| (TRACEPARENT.parse().unwrap(), value))
            .collect()
    }

    #[tokio::test]
    async fn a_request_that_is_not_traced_allocates_nothing() {
        let traces = traces(0.0);
        let headers = HeaderMap::from_iter([(axum::http::header::HOST, HeaderValue::from_static("x"))]);
        // The first draw of a thread makes its generator.
        let ask = || assert!(traces.of_request(&headers, || true).is_none());
        ask();
        assert_eq!(allocation_counter::measure(ask).count_total, 0);
        traces.close().await;
    }

    #[tokio::test]
    async fn what_is_no_traceparent_is_as_if_there_was_none() {
        let traces = traces(0.0);
        assert!(traces.of_request(&headers(&[FINE]), || true).is_some());
        assert!(
            traces.of_request(&headers(&[FINE]), || false).is_none(),
            "not let in"
        );
        for wrong in [
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"][..],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"],
            &["nonsense"],
            &[""],
            &[FINE, FINE],
        ] {
            assert!(traces.of_request(&headers(wrong), || true).is_none(), "{wrong:?}");
        }
        traces.close().await;
    }

    #[tokio::test]
    async fn a_request_that_its_client_gives_up_is_recorded() {
        let traces = traces(1.0);
        let root = traces.of_request(&HeaderMap::new(), || true).unwrap();
        let trace = root.request(&Method::GET, Some("/v1/contexts"), Instant::now());
        assert_eq!(traces.standing().waiting, 0);
        drop(trace);
        assert_eq!(traces.standing().waiting, 1);
        traces.close().await;
    }
}
