//! What stands in front of the database, as the routes for operators show it.

use contextkeep_core::postgres::insight::{GateStatus, Insight};
use serde::Serialize;
use utoipa::ToSchema;

/// A limit on calls and a breaker, in front of a server as the primary or in front of searches.
#[derive(Serialize, ToSchema)]
#[schema(as = Gate)]
pub(super) struct GateView {
    /// The server's name, or `search`.
    name: String,
    /// `closed`, `open`, `half_open`, `recovering`, `isolated`, or `observing` where `circuit_breaker.enabled` is false.
    breaker: &'static str,
    /// How long until an open breaker lets a call through to find out; absent otherwise.
    probe_after_ms: Option<f64>,
    /// Calls under way.
    running: u32,
    /// Calls that wait for their turn.
    waiting: u32,
    /// Most calls under way; absent where nothing is limited.
    limit: Option<u32>,
    /// Calls turned away since the start.
    refused: u64,
}

/// All of them, the servers first.
pub(super) fn of(insight: &Insight) -> Vec<GateView> {
    let servers = insight.servers.iter().map(|server| &server.member.gate);
    servers.chain([&insight.searches]).map(GateView::from).collect()
}

impl From<&GateStatus> for GateView {
    fn from(gate: &GateStatus) -> Self {
        Self {
            name: gate.name.to_string(),
            breaker: gate.breaker.as_str(),
            probe_after_ms: gate.probe_after.map(|wait| wait.as_secs_f64() * 1000.0),
            running: gate.running,
            waiting: gate.waiting,
            limit: gate.limit,
            refused: gate.refused,
        }
    }
}
