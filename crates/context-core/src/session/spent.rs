//! Where the time of a request went: as sums for the line in the log when it was slow, one by one for a trace.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{Session, stages};

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

    /// Stable name, in the log and in traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Statement => "statement",
            Self::Commit => "commit",
            Self::Cache => "cache",
            Self::Tokens => "tokens",
        }
    }
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

/// Notes what a stage took that ends now: in the present session if there is one, and in the present trace.
pub(crate) fn spent(stage: Stage, took: Duration) {
    // Outside of every session there is nobody to tell.
    Session::with_current(|session| session.spent.add(stage, took));
    stages::note(stage, took);
}

/// Runs a stage and notes what it took.
///
/// # Cancellation
/// As of what it runs; of a stage that is dropped, what it took until then is noted.
pub(crate) const fn timed<F: Future>(stage: Stage, work: F) -> Timed<F> {
    Timed {
        work,
        stage,
        running: None,
    }
}

pin_project! {
    /// See [`timed`]. Not an `async` function, whose future would have room for `work` twice.
    pub(crate) struct Timed<F> {
        // First, so that what is dropped under way has ended when its time is noted.
        #[pin]
        work: F,
        stage: Stage,
        running: Option<Running>,
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let stage = *this.stage;
        this.running.get_or_insert_with(|| Running {
            stage,
            begun: Instant::now(),
        });
        let polled = this.work.poll(context);
        if polled.is_ready() {
            *this.running = None;
        }
        polled
    }
}

/// A stage under way; ends when it is dropped.
struct Running {
    stage: Stage,
    begun: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        spent(self.stage, self.begun.elapsed());
    }
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
