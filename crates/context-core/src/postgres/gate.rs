//! What stands in front of the primary and of searches: a limit on what runs at once, and a breaker.
//!
//! Replicas have theirs in the router, where a refusal means another server. Here it means an answer at once: what would
//! hang on a server that is known to fail is refused, with the time after which it may fare better.
//!
//! - **Y1** A call takes a slot first and the breaker's permit then, so that no probe waits in a queue.
//! - **Y2** Whoever waits does so for a bounded time in a bounded queue.
//! - **Y3** Only silence counts as a failure: a connection that is refused or breaks, an answer that does not come. An error
//!   that the server answers, be it of a full disk, hangs nobody, and other calls may do better. What it gives up for want of
//!   time or of resources counts towards the rate of failures, never as a run of them: one tenant's slow statements
//!   must not end everybody's.
//! - **Y4** The gate of searches judges searches, not servers: only one that was given up for want of time or of resources
//!   counts. A server that breaks or falls silent is left alone by its own breaker, so that searches are back when it is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contextkeep_resilience::breaker::{Breaker, BreakerBuilder, State};
use contextkeep_resilience::gate::{Guard, Pass};
use contextkeep_resilience::{BreakerSettings, Bulkhead, Profile, Rejected, TokioClock, Verdict, Why};
use tokio::time::Instant;

use super::link::{Fault, Kind};
use crate::error::{Error, Result};
use crate::session::{Stage, timed};

/// What a failure was, as far as it is shown: bytes.
const WORDS_MAX: usize = 300;
/// Time without a failure after which a look may close a breaker.
const SETTLED: Duration = Duration::from_millis(500);
/// Those who may wait for each one that runs.
const QUEUE_FACTOR: u32 = 10;

/// A limit and a breaker.
pub(crate) struct Gate {
    name: Arc<str>,
    breaker: Breaker,
    guard: Arc<dyn contextkeep_resilience::gate::Gate>,
    bulkhead: Option<Bulkhead>,
    refused: AtomicU64,
    /// The last failure, so that a refusal says what is wrong.
    last: Arc<Mutex<Option<Failed>>>,
}

/// A failure.
#[derive(Debug)]
struct Failed {
    words: Box<str>,
    at: Instant,
    /// The server took the call and did not answer it.
    hung: bool,
}

/// How a gate stands, for gauges and the admin page.
#[derive(Clone, Debug)]
pub struct GateStatus {
    /// A server's name, or `search`.
    pub name: Arc<str>,
    /// What its breaker says.
    pub breaker: State,
    /// How long until an open breaker lets a probe through.
    pub probe_after: Option<Duration>,
    /// Calls under way; 0 where nothing is limited.
    pub running: u32,
    /// Calls that wait for a slot.
    pub waiting: u32,
    /// Most calls at once; `None`: not limited.
    pub limit: Option<u32>,
    /// Calls that were turned away since the start.
    pub refused: u64,
}

impl Gate {
    /// In front of a server that takes the writes.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub(crate) fn of_server(name: &Arc<str>, settings: &BreakerSettings, patience: Duration) -> Result<Self> {
        // Slow calls are measured only: to shed them all because the disk is slow would make an outage of a bad night.
        let breaker = settings.breaker(format!("postgres.{name}.primary"), Profile::PostgresWrite);
        Self::new(
            name.clone(),
            breaker,
            settings,
            settings.max_concurrent_requests,
            patience,
        )
    }

    /// In front of searches, which hold a connection each and may be slow.
    ///
    /// Its breaker opens by the share of failures, never by a run of them: five searches of one tenant that take too long
    /// must not end everybody's.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub(crate) fn of_searches(
        settings: &BreakerSettings,
        connections: u32,
        patience: Duration,
    ) -> Result<Self> {
        let breaker = Profile::PostgresWrite
            .breaker("postgres.search")
            .consecutive(u16::MAX)
            .observe_only(!settings.enabled);
        // Half of the pool is left to everybody else.
        let limit = settings.max_concurrent_requests.min(connections / 2).max(1);
        Self::new("search".into(), breaker, settings, limit, patience)
    }

    fn new(
        name: Arc<str>,
        breaker: BreakerBuilder,
        settings: &BreakerSettings,
        limit: u32,
        patience: Duration,
    ) -> Result<Self> {
        let breaker = breaker
            .clock(TokioClock)
            .build()
            .map_err(|error| Error::internal(format!("the breaker cannot be built: {error}")))?;
        let bulkhead = settings.enabled.then(|| {
            Bulkhead::new(
                format!("postgres.{name}.slots"),
                limit,
                limit.saturating_mul(QUEUE_FACTOR),
            )
        });
        let guard: Arc<dyn contextkeep_resilience::gate::Gate> = match &bulkhead {
            Some(bulkhead) => Arc::new(Guard::new(breaker.clone(), bulkhead.clone()).queue_wait(patience)),
            None => Arc::new(breaker.clone()),
        };
        Ok(Self {
            name,
            breaker,
            guard,
            bulkhead,
            refused: AtomicU64::new(0),
            last: Arc::default(),
        })
    }

    /// The right to make one call.
    ///
    /// # Errors
    /// `Open` or `Crowded`, with the time after which another try may fare better.
    ///
    /// # Cancellation
    /// Dropping it leaves the queue.
    pub(crate) async fn enter(&self) -> Result<Entered, Fault> {
        let admitted = match self.guard.try_admit() {
            Err(Rejected {
                why: Why::BulkheadFull,
                ..
            }) => timed(Stage::Gate, self.guard.admit()).await,
            admitted => admitted,
        };
        let last = &self.last;
        admitted
            .map(|pass| Entered {
                pass,
                last: last.clone(),
            })
            .map_err(|rejected| self.refuse(&rejected))
    }

    fn refuse(&self, rejected: &Rejected) -> Fault {
        let kind = match rejected.why {
            Why::BulkheadFull | Why::QueueTimeout => Kind::Crowded,
            _ => Kind::Open,
        };
        self.turned_away(kind, rejected.retry_after)
    }

    /// Counts a refusal and says why.
    pub(super) fn turned_away(&self, kind: Kind, retry_after: Option<Duration>) -> Fault {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.refusal(kind, retry_after)
    }

    /// Whether a call would be let in now, but for the limit on what runs at once. Takes nothing and counts nothing.
    ///
    /// # Errors
    /// `Open` until the breaker lets a probe through: then calls have to come, or nobody finds out.
    pub(super) fn would_admit(&self) -> Result<(), Fault> {
        match self.breaker.snapshot().probe_after {
            Some(left) if self.is_enabled() && !left.is_zero() => Err(self.refusal(Kind::Open, Some(left))),
            _ => Ok(()),
        }
    }

    /// Says why a call is refused.
    pub(super) fn refusal(&self, kind: Kind, retry_after: Option<Duration>) -> Fault {
        let name = &self.name;
        let detail = if kind == Kind::Crowded {
            format!("{name} has as many calls as context_manager.circuit_breaker allows")
        } else {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let last = last.as_ref().map_or("it does not answer", |last| &*last.words);
            format!("{name} fails and is left alone for now; the last failure: {last}")
        };
        Fault::new(kind, detail).retry_after(retry_after)
    }

    /// Whether it may refuse anything but what the limit refuses.
    pub(super) fn is_enabled(&self) -> bool {
        self.bulkhead.is_some()
    }

    /// Closes the breaker: what is behind it was seen to work.
    pub(super) fn reset(&self) {
        self.breaker.reset();
    }

    /// What is behind it has answered a look. Closes the breaker if it was opened by connections that broke, and some
    /// time ago: they can be made again. If statements hung while looks were answered, only statements can tell.
    pub(super) fn seen_to_work(&self) {
        if self.breaker.state() != State::Open {
            return;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mended = last
            .as_ref()
            .is_some_and(|last| !last.hung && last.at.elapsed() >= SETTLED);
        drop(last);
        if mended {
            self.breaker.reset();
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> GateStatus {
        let snapshot = self.breaker.snapshot();
        let count = |of: fn(&Bulkhead) -> u32| self.bulkhead.as_ref().map_or(0, of);
        GateStatus {
            name: self.name.clone(),
            breaker: snapshot.state,
            probe_after: snapshot.probe_after,
            running: count(Bulkhead::in_use),
            waiting: count(Bulkhead::waiting),
            limit: self.bulkhead.as_ref().map(Bulkhead::limit),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.status()).finish()
    }
}

/// The right to make one call. Dropped unended, the call counts by the time it took.
#[derive(Debug)]
#[must_use = "dropping it records the call as abandoned"]
pub(crate) struct Entered {
    pass: Pass,
    last: Arc<Mutex<Option<Failed>>>,
}

impl Entered {
    /// Ends the call by what the server did.
    pub(crate) fn end<T>(self, result: &Result<T, Fault>) {
        self.end_by(result.as_ref().err());
    }

    /// As [`Entered::end`]; no fault means that the server answered.
    pub(crate) fn end_by(self, fault: Option<&Fault>) {
        match fault {
            // The caller's deadline is an abandonment, which the breaker judges by its time.
            Some(fault) if fault.kind() == Kind::Deadline => {}
            Some(fault) => {
                let verdict = verdict(fault);
                if verdict == Verdict::Failure {
                    self.note(&fault.to_string(), fault.kind() == Kind::TimedOut);
                }
                self.pass.record(verdict);
            }
            None => self.pass.record(Verdict::Success),
        }
    }

    /// Ends a search by what became of it (Y4).
    pub(crate) fn end_search<T>(self, result: &Result<T, Fault>) {
        let Err(fault) = result else {
            return self.pass.record(Verdict::Success);
        };
        match fault.kind() {
            // An abandonment, as in `end_by`.
            Kind::Deadline => {}
            Kind::TimedOut | Kind::Cancelled | Kind::OutOfResources => {
                self.note(&fault.to_string(), true);
                self.pass.record(Verdict::Failure);
            }
            _ => self.pass.record(Verdict::Neutral),
        }
    }

    fn note(&self, failure: &str, hung: bool) {
        let end = failure.floor_char_boundary(WORDS_MAX);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Failed {
            words: failure.get(..end).unwrap_or_default().into(),
            at: Instant::now(),
            hung,
        });
    }
}

/// Y3.
const fn verdict(fault: &Fault) -> Verdict {
    match fault.kind() {
        Kind::Unreachable | Kind::Lost | Kind::TimedOut | Kind::Silent | Kind::Starting | Kind::Tls => {
            Verdict::Failure
        }
        Kind::Cancelled | Kind::TooManyConnections | Kind::OutOfResources => {
            Verdict::Throttled { retry_after: None }
        }
        _ => Verdict::Neutral,
    }
}

#[cfg(test)]
mod tests;
