//! What the statements cost, which were slow, and why.
//!
//! Every statement has a name and is counted by it. One that took at least `slow_query_threshold` is also noted in
//! a ring of the last [`SLOW_MAX`], and of a share of those the plan is taken in the background.
//!
//! Invariants:
//! 1. No value of a parameter is kept anywhere, only names of statements and of servers: both are closed sets.
//! 2. To count takes no lock and allocates nothing; to note a slow one takes one lock for a moment.
//! 3. What is kept is bounded, whatever runs for however long.
//! 4. To explain executes nothing, waits behind no caller and fails nobody: trouble with it is counted.
//!
//! A plan is the one for any values (`force_generic_plan`), so one that depends on the values is not shown as it was.
//! Of a statement that calls a function the server shows the call, not what the function runs inside.

mod counts;
mod explain;
mod sampler;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use self::counts::Counts;
use self::explain::Sample;
use self::sampler::Sampler;
use super::link::{Statement, Watch};
use super::replicas::Replicas;
use crate::clock::{Clock, Timestamp};
use crate::session::{Stage, spent};
use crate::settings::MonitoringSettings;

pub use super::gate::GateStatus;
pub use super::link::{Closed, PoolStatus};
pub use super::replicas::{MemberStatus, State as MemberState, Tallies};

/// How many slow statements are remembered.
pub const SLOW_MAX: usize = 256;

/// What a store knows of its servers and its statements at a moment.
#[derive(Clone, Debug)]
pub struct Insight {
    /// From which duration on a statement is slow.
    pub slow_query_threshold: Duration,
    /// Each statement that ran since the start, the one that took the most time in all first.
    pub statements: Vec<StatementInsight>,
    /// The last [`SLOW_MAX`] slow statements, the newest first.
    pub slow: Vec<SlowStatement>,
    /// The last plan of each statement that has one, the newest first.
    pub plans: Vec<Plan>,
    /// What became of taking plans.
    pub explaining: Explaining,
    /// Each server, the configured primary first.
    pub servers: Vec<ServerInsight>,
    /// Which server answered reads, and why.
    pub reads: Tallies,
    /// Appends that wait for their commit.
    pub writes_waiting: u64,
    /// In front of searches.
    pub searches: GateStatus,
}

/// One server: how it was last seen, and the connections to it.
#[derive(Clone, Debug)]
pub struct ServerInsight {
    /// Host, port and database; never the credentials.
    pub address: String,
    /// How it was last seen.
    pub member: MemberStatus,
    /// The connections to it.
    pub pool: PoolStatus,
}

/// What one statement cost since the start, on all servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementInsight {
    /// Its name in the code.
    pub name: &'static str,
    /// How often it failed, timeouts included.
    pub failures: u64,
    /// How often it was slow.
    pub slow: u64,
    /// The longest that it took.
    pub max: Duration,
    /// Its durations, shortest first.
    pub buckets: [Bucket; BUCKETS],
}

/// Buckets of [`StatementInsight::buckets`].
pub const BUCKETS: usize = counts::BUCKETS;

/// The limits of all buckets but the last.
pub fn limits() -> [Duration; BUCKETS - 1] {
    counts::BOUNDS.map(Duration::from_micros)
}

/// The calls whose duration is at most `up_to` and above that of the bucket before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// `None` for the last: no limit.
    pub up_to: Option<Duration>,
    /// How many.
    pub calls: u64,
    /// How long they took together.
    pub total: Duration,
}

impl StatementInsight {
    /// Calls, failed ones included. A statement that was pipelined with another counts with the time of both.
    pub fn calls(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.calls).sum()
    }

    /// How long all calls took together.
    pub fn total(&self) -> Duration {
        self.buckets.iter().map(|bucket| bucket.total).sum()
    }

    /// A duration that this share of the calls did not exceed, rounded up to a bucket's limit; 0 without calls.
    pub fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among calls; beyond 2^53 of them it is an estimate"
        )]
        let rank = (self.calls() as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut below = 0;
        for bucket in &self.buckets {
            below += bucket.calls;
            if below >= rank {
                return bucket.up_to.map_or(self.max, |limit| limit.min(self.max));
            }
        }
        self.max
    }
}

/// A statement that was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowStatement {
    /// When it ended.
    pub at: Timestamp,
    /// Its name in the code.
    pub statement: &'static str,
    /// On which server: `primary`, `replica-1`, … as configured.
    pub endpoint: Arc<str>,
    /// How long it took as its caller saw it: on the way and waiting for its turn included.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
}

/// How a server would run a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When it was taken.
    pub at: Timestamp,
    /// The statement's name in the code.
    pub statement: &'static str,
    /// On which server.
    pub endpoint: Arc<str>,
    /// What `EXPLAIN (FORMAT JSON)` answered.
    pub json: String,
}

/// What became of taking plans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explaining {
    /// Plans taken.
    pub taken: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Left out, because the pool had no connection to spare.
    pub skipped: u64,
}

/// Hears of every statement on every server of a store.
#[derive(Debug)]
pub(super) struct Recorder {
    threshold: Duration,
    clock: Arc<dyn Clock>,
    counts: Counts,
    slow: Mutex<VecDeque<SlowStatement>>,
    sampler: Sampler,
    samples: mpsc::Sender<Sample>,
    taken: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

/// What is to be explained, until somebody does.
#[derive(Debug)]
pub(super) struct Samples(mpsc::Receiver<Sample>);

impl Recorder {
    pub(super) fn new(settings: &MonitoringSettings, clock: Arc<dyn Clock>) -> (Arc<Self>, Samples) {
        let (samples, receiver) = mpsc::channel(explain::WAITING_MAX);
        let recorder = Self {
            threshold: settings.slow_query_threshold,
            clock,
            counts: Counts::new(),
            slow: Mutex::new(VecDeque::with_capacity(SLOW_MAX)),
            sampler: Sampler::new(settings.sampling_rate),
            samples,
            taken: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        };
        (Arc::new(recorder), Samples(receiver))
    }

    /// The ear at this server.
    pub(super) fn at(self: &Arc<Self>, endpoint: Arc<str>) -> Arc<dyn Watch> {
        Arc::new(Ear {
            recorder: self.clone(),
            endpoint,
        })
    }

    /// Begins to take plans; ends when the servers are gone.
    pub(super) fn explain(self: &Arc<Self>, servers: &Arc<Replicas>, samples: Samples) {
        tokio::spawn(explain::run(
            Arc::downgrade(self),
            Arc::downgrade(servers),
            samples.0,
        ));
    }

    /// What is known.
    pub(super) fn insight(&self, servers: &Replicas, writes_waiting: u64, searches: GateStatus) -> Insight {
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let slow = slow.iter().rev().cloned().collect();
        Insight {
            slow_query_threshold: self.threshold,
            statements: self.counts.statements(),
            slow,
            plans: self.counts.plans(),
            explaining: Explaining {
                taken: self.taken.load(Ordering::Relaxed),
                failed: self.failed.load(Ordering::Relaxed),
                skipped: self.skipped.load(Ordering::Relaxed),
            },
            servers: servers.insight(),
            reads: servers.tallies(),
            writes_waiting,
            searches,
        }
    }

    fn ran(&self, endpoint: &Arc<str>, statement: &'static Statement, took: Duration, failed: bool) {
        let counts = self.counts.of(statement);
        let is_slow = took >= self.threshold;
        counts.ran(took, failed, is_slow);
        spent(Stage::Statement, took);
        if !is_slow {
            return;
        }
        let slow = SlowStatement {
            at: self.clock.now(),
            statement: statement.name,
            endpoint: endpoint.clone(),
            took,
            failed,
        };
        {
            let mut ring = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
            if ring.len() >= SLOW_MAX {
                ring.pop_front();
            }
            ring.push_back(slow);
        }
        if self.sampler.takes(&counts.sampled) {
            let sample = Sample {
                statement,
                endpoint: endpoint.clone(),
                took,
            };
            if self.samples.try_send(sample).is_err() {
                self.skipped();
            }
        }
    }

    fn explained(&self, statement: &'static Statement, plan: Plan) {
        self.counts.of(statement).keep(plan);
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn not_explained(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Knows which server it hears of.
struct Ear {
    recorder: Arc<Recorder>,
    endpoint: Arc<str>,
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ear").field(&self.endpoint).finish()
    }
}

impl Watch for Ear {
    fn ran(&self, statement: &'static Statement, took: Duration, failed: bool) {
        self.recorder.ran(&self.endpoint, statement, took, failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    static HEAD: Statement = Statement {
        name: "head",
        sql: "",
        types: &[],
    };

    #[tokio::test(start_paused = true)]
    async fn the_slow_ones_are_noted_and_the_oldest_forgotten() {
        let (recorder, mut samples) = Recorder::new(
            &MonitoringSettings::default(),
            Arc::new(ManualClock::starting_at(Timestamp::default())),
        );
        let ear = recorder.at("primary".into());
        for took in 0..1_000 {
            ear.ran(&HEAD, Duration::from_millis(took), took == 999);
        }
        let ring: Vec<_> = recorder.slow.lock().unwrap().iter().cloned().collect();
        assert_eq!(ring.len(), SLOW_MAX);
        let (oldest, newest) = (&ring[0], &ring[SLOW_MAX - 1]);
        assert_eq!(oldest.took, Duration::from_millis(1_000 - SLOW_MAX as u64));
        assert_eq!((newest.took, newest.failed), (Duration::from_millis(999), true));
        assert_eq!((newest.statement, &*newest.endpoint), ("head", "primary"));
        let statements = recorder.counts.statements();
        assert_eq!((statements[0].calls(), statements[0].slow), (1_000, 900));
        // Time stood still: one at most, however many were slow.
        assert_eq!(samples.0.try_recv().unwrap().statement.name, "head");
        assert!(samples.0.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_can_explain_is_skipped() {
        let settings = MonitoringSettings {
            slow_query_threshold: Duration::ZERO,
            sampling_rate: 1.0,
            ..MonitoringSettings::default()
        };
        let (recorder, samples) = Recorder::new(
            &settings,
            Arc::new(ManualClock::starting_at(Timestamp::default())),
        );
        drop(samples);
        recorder.at("primary".into()).ran(&HEAD, Duration::ZERO, false);
        assert_eq!(recorder.skipped.load(Ordering::Relaxed), 1);
    }
}
