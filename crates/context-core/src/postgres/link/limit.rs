//! How long a call may take: the request's deadline, or the configured time.

use std::pin::Pin;
use std::time::Duration;

use contextkeep_resilience::{Deadline, TokioClock};
use tokio::time::Instant;

use super::fault::{Fault, Kind};

/// How much longer than the server we wait, so that its own timeout is what ends a statement.
const GRACE: Duration = Duration::from_secs(1);

/// The time one call has, taken when it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Our own patience ends here.
    until: Instant,
    /// What the server is told.
    statement_timeout: Duration,
    /// Whether the request's deadline is what limits it.
    by_deadline: bool,
}

impl Limit {
    /// The shorter of the request's deadline and the configured time.
    pub(super) fn start(statement_timeout: Duration) -> Self {
        let now = Instant::now();
        let left = Deadline::current().map(|deadline| deadline.remaining(&TokioClock).unwrap_or_default());
        match left {
            Some(left) if left < statement_timeout => Self {
                until: now + left,
                statement_timeout: left,
                by_deadline: true,
            },
            _ => Self {
                until: now + statement_timeout + GRACE,
                statement_timeout,
                by_deadline: false,
            },
        }
    }

    /// What is left, for the server's `statement_timeout`: whole milliseconds, at least one (0 means no limit).
    pub(super) fn statement_timeout_ms(&self) -> u64 {
        let left = self
            .until
            .saturating_duration_since(Instant::now())
            .min(self.statement_timeout);
        // Postgres takes an int: 24 days.
        u64::try_from(left.as_millis())
            .unwrap_or(u64::MAX)
            .clamp(1, 2_147_483_647)
    }

    /// An error if it is over already: then nothing should be begun.
    pub(super) fn begin(&self) -> Result<(), Fault> {
        if self.until <= Instant::now() {
            return Err(Fault::late(Kind::TimedOut, self.by_deadline));
        }
        Ok(())
    }

    /// Runs something within the limit. Pinned by the caller: a future that is passed by value is kept twice.
    ///
    /// # Errors
    /// A fault of the kind that `late` says, or the inner one.
    pub(super) async fn run<T>(
        &self,
        late: Kind,
        future: Pin<&mut impl Future<Output = Result<T, Fault>>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout_at(self.until, future).await {
            Ok(result) => result,
            Err(_) => Err(Fault::late(late, self.by_deadline)),
        }
    }
}
