//! Sends batches of spans to a collector by OTLP over HTTP. What fails is counted and not sent again: a batch that is
//! kept would only make the next ones wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::endpoint::{Endpoint, Trouble};
use crate::telemetry::allowance::Allowance;

/// One line in the log for failures in so much time.
const COMPLAINT_PERIOD: Duration = Duration::from_mins(1);

/// What became of spans and exports.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Spans that wait or are being exported.
    pub(super) waiting: AtomicU64,
    pub(super) exported: AtomicU64,
    /// There was no room for them.
    pub(super) dropped: AtomicU64,
    /// Their export failed.
    pub(super) failed: AtomicU64,
    /// The collector took the batch and not these.
    pub(super) rejected: AtomicU64,
    pub(super) exports: AtomicU64,
    pub(super) failed_exports: AtomicU64,
    /// Traces over the limit of a second.
    pub(super) left_out: AtomicU64,
}

impl Counts {
    /// Takes room for spans among so many; `false` if there is too little.
    pub(super) fn reserve(&self, spans: u64, most: u64) -> bool {
        let taken = |waiting: u64| waiting.checked_add(spans).filter(|sum| *sum <= most);
        let taken = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        if taken.is_err() {
            add(&self.dropped, spans);
        }
        taken.is_ok()
    }
}

pub(super) fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

/// Why a batch was not exported.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error("no answer within telemetry.traces.timeout")]
    TimedOut,
    #[error("the server stopped")]
    Stopped,
}

/// See the [module](self).
pub(super) struct Exporter {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) resource: ResourceAttributesWithSchema,
    pub(super) timeout: Duration,
    pub(super) counts: Arc<Counts>,
    /// Where connections live: the batch processor calls from a thread of its own.
    pub(super) runtime: Handle,
    /// Ends the export under way.
    pub(super) stopped: CancellationToken,
    complaints: Allowance,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Exporter {
    /// Exports to this endpoint. Has to be called on a runtime, on which its connections then live.
    pub(super) fn new(
        endpoint: Endpoint,
        resource: ResourceAttributesWithSchema,
        timeout: Duration,
        counts: Arc<Counts>,
        stopped: CancellationToken,
    ) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            resource,
            timeout,
            counts,
            runtime: Handle::current(),
            stopped,
            complaints: Allowance::new(1, COMPLAINT_PERIOD),
        }
    }

    fn settle(&self, spans: u64, outcome: Result<u64, Failure>) -> OTelSdkResult {
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        match outcome {
            Ok(rejected) => {
                let rejected = rejected.min(spans);
                add(&self.counts.exports, 1);
                add(&self.counts.exported, spans - rejected);
                add(&self.counts.rejected, rejected);
                Ok(())
            }
            Err(failure) => {
                add(&self.counts.failed_exports, 1);
                add(&self.counts.failed, spans);
                if let Some(left_out) = self.complaints.room(Instant::now()) {
                    let endpoint = self.endpoint.target.origin();
                    tracing::warn!(endpoint, error = %failure, spans, left_out, "spans were not exported");
                }
                Err(OTelSdkError::InternalFailure(failure.to_string()))
            }
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let body = Bytes::from(request.encode_to_vec());
        let (endpoint, timeout, stopped) = (self.endpoint.clone(), self.timeout, self.stopped.clone());
        let sent = self.runtime.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => Err(Failure::Stopped),
                sent = tokio::time::timeout(timeout, send(&endpoint, body)) => {
                    sent.unwrap_or(Err(Failure::TimedOut))
                }
            }
        });
        let outcome = sent.await.unwrap_or(Err(Failure::Stopped));
        self.settle(spans, outcome)
    }
}

/// Sends a batch; answers how many of its spans the collector did not want.
async fn send(endpoint: &Endpoint, body: Bytes) -> Result<u64, Failure> {
    let reply = endpoint.post(body).await?;
    let reply = ExportTraceServiceResponse::decode(reply)
        .map_err(|_| Trouble::Garbage("what answered is no collector: its reply is not of OTLP"))?;
    let rejected = reply.partial_success.map_or(0, |partial| partial.rejected_spans);
    Ok(u64::try_from(rejected).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_what_has_none_is_counted() {
        let counts = Counts::default();
        assert!(counts.reserve(6, 10));
        assert!(!counts.reserve(5, 10), "all of a trace or nothing");
        assert!(counts.reserve(4, 10));
        assert!(!counts.reserve(1, 10));
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!((count(&counts.waiting), count(&counts.dropped)), (10, 6));
    }
}
