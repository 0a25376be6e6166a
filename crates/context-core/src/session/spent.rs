//! Where the time of a request went, for the line in the log when it was slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Session;

/// What a request waits for. Stages may overlap: a batch waits for several commits at once, and what the cache loads for
/// several readers counts as the cache's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A place at a gate in front of the database.
    Gate,
    /// A statement of the store that reads, waiting for its connection included.
    Statement,
    /// The commit of a write, waiting for its group included.
    Commit,
    /// The cache, with what it loads; and telling it of a change.
    Cache,
    /// Counting tokens.
    Tokens,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Gate,
        Self::Statement,
        Self::Commit,
        Self::Cache,
        Self::Tokens,
    ];
}

/// Microseconds by stage.
#[derive(Debug, Default)]
pub(super) struct Spent([AtomicU64; Stage::ALL.len()]);

impl Spent {
    pub(super) fn add(&self, stage: Stage, took: Duration) {
        if let Some(sum) = self.0.get(stage as usize) {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            sum.fetch_add(micros, Ordering::Relaxed);
        }
    }

    pub(super) fn of(&self, stage: Stage) -> Duration {
        let sum = self.0.get(stage as usize);
        Duration::from_micros(sum.map_or(0, |sum| sum.load(Ordering::Relaxed)))
    }
}

/// Notes in the present session, if there is one, what a stage took.
pub(crate) fn spent(stage: Stage, took: Duration) {
    Session::with_current(|session| session.spent.add(stage, took));
}

/// Runs a stage and notes what it took.
///
/// # Cancellation
/// As of what it runs; a stage that is dropped is not noted.
pub(crate) async fn timed<F: Future>(stage: Stage, work: F) -> F::Output {
    let begun = Instant::now();
    let output = work.await;
    spent(stage, begun.elapsed());
    output
}

#[cfg(test)]
mod tests {
    use super::super::{Consistency, Token};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_spent_inside_is_known_outside_also_through_a_session_within() {
        let wait = || timed(Stage::Commit, tokio::time::sleep(Duration::from_millis(30)));
        wait().await;
        let session = Session::new(Consistency::Session, Token::default());
        session
            .scope(async {
                wait().await;
                Session::strong(wait()).await;
                spent(Stage::Gate, Duration::from_millis(7));
            })
            .await;
        let known = Stage::ALL.map(|stage| session.spent(stage).as_millis());
        assert_eq!(known, [7, 0, 60, 0, 0]);
    }
}
