//! Reads spread over replicas, without ever answering with less than was asked for.
//!
//! ```text
//!            strong ───────────────────────────────────────────────────────────► primary
//!  read ──►  session, bounded, any ──► candidates ──► two drawn, cheaper one ──► replica ─► accepted ─► answer
//!                                        │ none           │ late: a second one       │ not accepted, failed
//!                                        └────────────────┴──── a place to spill ◄───┘
//!                                                                  │ none: overloaded
//!                                                                  └──► primary
//! ```
//!
//! Invariants:
//! 1. A replica's answer counts only if the caller accepts it. One that is not accepted costs one hop to the
//!    primary, whose answer is the truth; it is never turned into "not found".
//! 2. Positions in the log are compared within one [`Epoch`] only. A floor of another epoch goes to the primary.
//! 3. The check of a position is a statement of its own before the read, in one flush (`guard`): inside the
//!    reading statement the snapshot may be older than the check, and reads below the floor get through.
//! 4. At most `primary_spill_max` of the primary's connections serve what replicas cannot; twice as many wait for
//!    that for a moment, and the rest is refused.
//! 5. A server that takes writes on a timeline behind the newest one is fenced: it gets nothing.
//! 6. One read has at most one hedge and one hop.

mod guard;
mod health;
mod member;
mod prober;
mod read;
mod route;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use contextkeep_resilience::replicas::{Endpoint as Place, Panic};
use contextkeep_resilience::{BreakerSettings, Budget, Bulkhead, Hedge, Profile, SplitMix, TokioClock};
use tokio::task::AbortHandle;

pub(crate) use self::member::Member;
use self::prober::Roles;
use super::gate::{Gate, GateStatus};
use super::insight::ServerInsight;
use super::link::{Endpoint, Epoch, Fault, Lsn};
use crate::error::{Error, Result};
use crate::settings::{DatabaseSettings, RoutingSettings};

pub(crate) use self::guard::reached;
#[cfg(test)]
pub(crate) use self::guard::{WRITTEN, guarded, written};
pub use self::health::State;

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// The primary's.
    Strong,
    /// Not below the caller's floor; without one, from a replica within the lag limits.
    #[default]
    Session,
    /// At most so old: from a replica that is known to have had everything up to then.
    Bounded(Duration),
    /// Whatever there is: also from a replica beyond the lag limits.
    Any,
}

/// A position that an answer must not be below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Which log it is a position of.
    pub epoch: Epoch,
    /// The position.
    pub lsn: Lsn,
}

/// What a read asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// How fresh.
    pub consistency: Consistency,
    /// For lists and searches: chooses among replicas; the read itself has to check it, by a statement before it.
    pub floor: Option<Floor>,
    /// It may take longer than `replica_timeout`: a search, a long list. Not hedged, and how long it takes says
    /// nothing about the replica.
    pub slow: bool,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServedBy {
    /// A replica within the lag limits.
    Replica,
    /// A replica beyond the lag limits, for [`Consistency::Any`].
    LaggingReplica,
    /// The primary.
    Primary,
}

/// An answer and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Served<T> {
    /// The answer.
    pub value: T,
    /// The server that gave it.
    pub by: Arc<Endpoint>,
    /// What that server is.
    pub from: ServedBy,
    /// How far it may lag: a replica, where known.
    pub age: Option<Duration>,
}

/// A primary and its replicas, whichever of the servers is which at the moment.
pub(crate) struct Replicas {
    settings: RoutingSettings,
    /// All servers; the configured primary first. The picker has them in the same order.
    set: contextkeep_resilience::Replicas<Arc<Member>>,
    /// Where writes go, by index.
    primary: AtomicUsize,
    roles: Mutex<Roles>,
    hedge: Option<Hedge>,
    budget: Budget,
    /// Places on the primary for what replicas cannot serve; `None`: there are none.
    spill: Option<Bulkhead>,
    random: SplitMix,
    counts: Counts,
    probers: OnceLock<Vec<AbortHandle>>,
}

/// What became of reads, for counters.
#[derive(Debug, Default)]
struct Counts {
    replica: AtomicU64,
    primary: AtomicU64,
    unmet: AtomicU64,
    failed: AtomicU64,
    none: AtomicU64,
    hedged: AtomicU64,
    hedge_won: AtomicU64,
    shed: AtomicU64,
    promotions: AtomicU64,
}

/// What became of reads so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Answered by a replica.
    pub replica: u64,
    /// Answered by the primary because that was asked for.
    pub primary: u64,
    /// Went on to the primary because a replica's answer was not accepted.
    pub unmet: u64,
    /// Went on to the primary because a replica failed.
    pub failed: u64,
    /// Went to the primary because no replica qualified.
    pub none: u64,
    /// Sent to a second replica as well.
    pub hedged: u64,
    /// Answered by that second one.
    pub hedge_won: u64,
    /// Refused because the primary serves as many as it may.
    pub shed: u64,
    /// Times that writes moved to another server.
    pub promotions: u64,
}

/// One server, for gauges and the admin page.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Its endpoint's name.
    pub name: Arc<str>,
    /// Whether it takes the writes.
    pub is_primary: bool,
    /// Whether it said that it replays another server's log; `None` before it said anything.
    pub in_recovery: Option<bool>,
    /// How it fares.
    pub state: State,
    /// Bytes behind the primary, as last seen.
    pub lag_bytes: Option<u64>,
    /// How old its data may be.
    pub lag: Option<Duration>,
    /// What its breaker says.
    pub breaker: contextkeep_resilience::breaker::State,
    /// Reads under way on it by this router.
    pub in_flight: u64,
    /// In front of what it does as the primary.
    pub gate: GateStatus,
}

impl Replicas {
    /// A router over the configured primary and its replicas, each with a breaker of its own. Connects to
    /// nothing; looking at the servers begins with the first read or [`Replicas::start`].
    ///
    /// # Errors
    /// When the breaker's settings make no sense.
    pub(crate) fn new(
        primary: Arc<Endpoint>,
        replicas: impl IntoIterator<Item = Arc<Endpoint>>,
        database: &DatabaseSettings,
        routing: RoutingSettings,
        settings: &BreakerSettings,
    ) -> Result<Arc<Self>> {
        let mut places = Vec::new();
        for endpoint in std::iter::once(primary).chain(replicas) {
            let name = format!("postgres.{}", endpoint.name());
            let breaker = settings
                .breaker(name, Profile::PostgresRead)
                .clock(TokioClock)
                .build()
                .map_err(|error| Error::internal(format!("the breaker cannot be built: {error}")))?;
            let gate = Gate::of_server(endpoint.name(), settings, database.pool_timeout)?;
            places.push(Place::new(Arc::new(Member::new(endpoint, gate)), breaker));
        }
        let budget = Budget::tokens(
            routing.hedge_budget,
            if routing.hedge_budget > 0.0 { 10 } else { 0 },
        );
        let hedge = (routing.hedge_budget > 0.0).then(|| {
            Hedge::at_quantile(routing.hedge_quantile, &budget)
                .between(Duration::from_millis(1), routing.replica_timeout)
        });
        let spill_places = spill_places(database.max_open_conns, routing.primary_spill_max);
        let set = contextkeep_resilience::Replicas::with(
            "postgres.replicas",
            places,
            // Its breakers are always believed: there is the primary to go to.
            Panic::Never,
            routing.replica_timeout,
            TokioClock,
            SplitMix::from_entropy(),
        );
        Ok(Arc::new(Self {
            spill: (spill_places > 0).then(|| {
                Bulkhead::new(
                    "postgres.spill",
                    spill_places,
                    Profile::PostgresRead.queue_for(spill_places),
                )
            }),
            settings: routing,
            set,
            primary: AtomicUsize::new(0),
            roles: Mutex::new(Roles::default()),
            hedge,
            budget,
            random: SplitMix::from_entropy(),
            counts: Counts::default(),
            probers: OnceLock::new(),
        }))
    }

    /// Begins to look at the servers, if that has not begun.
    pub(crate) fn start(self: &Arc<Self>) {
        self.probers.get_or_init(|| prober::spawn(self));
    }

    /// The server that takes writes, as far as is known.
    pub(crate) fn primary(&self) -> Arc<Endpoint> {
        self.primary_member().endpoint.clone()
    }

    /// The same with the gate in front of it.
    pub(crate) fn primary_member(&self) -> Arc<Member> {
        self.member(self.primary_index()).clone()
    }

    /// The log that the primary writes, once it was seen.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.roles().epoch
    }

    /// Draws conclusions from an error of a write or of a read outside of [`Replicas::read`]: a server that is
    /// going down, or that is not the primary any more, has all servers looked at at once.
    pub(crate) fn notice(self: &Arc<Self>, endpoint: &Arc<Endpoint>, fault: &Fault) {
        if fault.is_suspect() {
            endpoint.suspect();
            self.start();
            self.look_now();
        }
    }

    /// The server of this name.
    pub(crate) fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        let mut endpoints = self.set.endpoints().iter().map(|place| &place.value.endpoint);
        endpoints.find(|endpoint| &**endpoint.name() == name)
    }

    /// Each server as it was last seen, with the connections to it.
    pub(crate) fn insight(&self) -> Vec<ServerInsight> {
        let endpoints = self.set.endpoints().iter().map(|place| &place.value.endpoint);
        self.status()
            .into_iter()
            .zip(endpoints)
            .map(|(member, endpoint)| ServerInsight {
                address: endpoint.address().to_string(),
                member,
                pool: endpoint.status(),
            })
            .collect()
    }

    /// Each server as it was last seen.
    pub(crate) fn status(&self) -> Vec<MemberStatus> {
        let primary = self.primary_index();
        let places = self.set.endpoints().iter().enumerate();
        places
            .map(|(index, place)| {
                let seen = place.value.seen();
                MemberStatus {
                    name: place.value.endpoint.name().clone(),
                    is_primary: index == primary,
                    in_recovery: seen.probe.map(|probe| probe.in_recovery),
                    state: seen.health.state,
                    lag_bytes: seen.lag_bytes,
                    lag: seen.fresh.map(|fresh| fresh.elapsed()),
                    breaker: place.breaker().state(),
                    in_flight: place.in_flight(),
                    gate: place.value.gate.status(),
                }
            })
            .collect()
    }

    /// What became of reads so far.
    pub(crate) fn tallies(&self) -> Tallies {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tallies {
            replica: count(&self.counts.replica),
            primary: count(&self.counts.primary),
            unmet: count(&self.counts.unmet),
            failed: count(&self.counts.failed),
            none: count(&self.counts.none),
            hedged: count(&self.counts.hedged),
            hedge_won: count(&self.counts.hedge_won),
            shed: count(&self.counts.shed),
            promotions: count(&self.counts.promotions),
        }
    }

    /// Ends looking at the servers and closes all connections.
    pub(crate) async fn close(&self) {
        self.stop();
        for place in self.set.endpoints() {
            place.value.endpoint.close().await;
        }
    }

    fn stop(&self) {
        // Filled here if it never was, so that nothing starts later.
        self.probers
            .get_or_init(Vec::new)
            .iter()
            .for_each(AbortHandle::abort);
    }

    fn member(&self, index: usize) -> &Arc<Member> {
        &self.set.endpoints()[index].value
    }

    fn primary_index(&self) -> usize {
        self.primary.load(Ordering::Acquire)
    }

    fn roles(&self) -> std::sync::MutexGuard<'_, Roles> {
        // Worst case of a panic in between: the next look corrects it.
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many reads the primary may serve for the replicas at a time.
fn spill_places(max_open_conns: u32, share: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a u32, rounded up"
    )]
    let places = (f64::from(max_open_conns) * share.clamp(0.0, 1.0)).ceil() as u32;
    places
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas")
            .field("members", &self.status())
            .finish_non_exhaustive()
    }
}
