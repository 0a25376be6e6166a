//! Takes the plans, in the background.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::link::{Endpoint, Fault, Statement};
use super::super::replicas::Replicas;
use super::{Plan, Recorder};

/// Longest wait for a connection: an explanation is worth less than what the pool is for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Explanations that may wait; more are skipped.
pub(super) const WAITING_MAX: usize = 8;

/// A statement that was slow.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) statement: &'static Statement,
    pub(super) endpoint: Arc<str>,
    pub(super) took: Duration,
}

/// Ends with the store: it holds neither of them while it waits.
pub(super) async fn run(
    recorder: Weak<Recorder>,
    servers: Weak<Replicas>,
    mut samples: mpsc::Receiver<Sample>,
) {
    while let Some(sample) = samples.recv().await {
        let (Some(recorder), Some(servers)) = (recorder.upgrade(), servers.upgrade()) else {
            return;
        };
        tracing::warn!(
            statement = sample.statement.name,
            endpoint = %sample.endpoint,
            took_ms = sample.took.as_secs_f64() * 1000.0,
            "slow statement"
        );
        let Some(endpoint) = servers.endpoint(&sample.endpoint) else {
            continue;
        };
        match explain(endpoint, sample.statement).await {
            None => recorder.skipped(),
            Some(Ok(json)) => recorder.explained(
                sample.statement,
                Plan {
                    at: recorder.clock.now(),
                    statement: sample.statement.name,
                    endpoint: sample.endpoint,
                    json,
                },
            ),
            Some(Err(error)) => {
                tracing::debug!(statement = sample.statement.name, %error, "a statement was not explained");
                recorder.not_explained();
            }
        }
    }
}

/// The plan; `None` when the pool has better to do.
async fn explain(endpoint: &Arc<Endpoint>, statement: &'static Statement) -> Option<Result<String, Fault>> {
    let pool = endpoint.status();
    if pool.waiting > 0 || (pool.idle == 0 && pool.open >= pool.max) {
        return None;
    }
    match tokio::time::timeout(PATIENCE, endpoint.session()).await.ok()? {
        Ok(session) => Some(session.explain(statement).await),
        Err(fault) => Some(Err(fault)),
    }
}
