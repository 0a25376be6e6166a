//! Figures for Prometheus.
//!
//! Every metric is in one table (`table.rs`), with its labels; the reference page is printed from it. Values of labels are from
//! closed sets: names in the code, servers of the configuration, paths of routes. Never ids, tenants or bodies.

mod cached;
mod observed;
pub(crate) mod requests;
mod semantic;
mod summaries;
mod table;
mod traces;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use contextkeep_core::postgres::insight::{self, Insight};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::caching::Caching;
use crate::semantic::SemanticSearch;
use crate::summaries::Summaries;
use crate::telemetry::traces::Traces;

/// Time between two looks at what the store counted, so that little has to be caught up with at a time.
const ROUND: Duration = Duration::from_secs(5);

/// The figures of this process.
#[derive(Debug)]
pub struct Metrics {
    handle: Handle,
    caching: Option<Arc<Caching>>,
    summaries: Summaries,
    semantic: SemanticSearch,
    traces: Option<Arc<Traces>>,
    /// Calls and microseconds of each bucket of each statement, as far as they were taken over.
    seen: Mutex<HashMap<&'static str, [(u64, Duration); insight::BUCKETS]>>,
}

/// The exporter's handle, which does not print itself.
struct Handle(PrometheusHandle);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Metrics {
    /// Begins to keep figures, for the whole process; those of the cache if it has one.
    ///
    /// # Errors
    /// Somebody keeps them already.
    pub fn install(
        caching: Option<Arc<Caching>>,
        summaries: Summaries,
        semantic: SemanticSearch,
        traces: Option<Arc<Traces>>,
    ) -> anyhow::Result<Self> {
        let statements = insight::limits().map(|limit| limit.as_secs_f64());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Full(table::STATEMENT_DURATION.name.to_owned()),
                &statements,
            )?
            .build_recorder();
        let handle = Handle(recorder.handle());
        metrics::set_global_recorder(recorder)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .context("installing the metrics")?;
        table::describe();
        Ok(Self {
            handle,
            caching,
            summaries,
            semantic,
            traces,
            seen: Mutex::default(),
        })
    }

    /// Everything there is, as Prometheus reads it; `insight` is what the store tells at the moment.
    pub fn render(&self, insight: Option<&Insight>) -> String {
        self.observe(insight);
        let mut text = self.handle.0.render();
        requests::render(&mut text);
        text
    }

    fn observe(&self, insight: Option<&Insight>) {
        if let Some(caching) = &self.caching {
            cached::observe(caching);
        }
        summaries::observe(&self.summaries);
        semantic::observe(&self.semantic);
        if let Some(traces) = &self.traces {
            traces::observe(traces);
        }
        if let Some(insight) = insight {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            observed::servers(insight);
            observed::statements(insight, &mut seen);
        }
    }
}

/// Takes over what the store counts, until the server ends.
pub async fn keep(
    metrics: Arc<Metrics>,
    insight: impl Fn() -> Option<Insight> + Send,
    ended: CancellationToken,
) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = rounds.tick() => {}
        }
        metrics.observe(insight().as_ref());
        metrics.handle.0.run_upkeep();
    }
}

/// The reference page.
pub(crate) fn reference() -> String {
    table::reference()
}
