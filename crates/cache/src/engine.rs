//! The engine: the tiers and the protocol put together. [`Cache`](crate::Cache) is its handle.

mod change;
mod load;
mod read;
mod tend;
mod warm;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

pub use self::change::{Put, Receipt, RemoteErrorKind};
pub(crate) use self::tend::tend;
pub use self::warm::{Warmed, Warming};
use crate::answer::{Answer, Origin, Read, Recalled};
use crate::clock::{Clock, Nanos};
use crate::coherence::Coherence;
use crate::entry::Entry;
use crate::error::{Error, RemoteError};
use crate::flight::{Flight, Flights, Locked};
use crate::health::{Health, Standing};
use crate::memory::Memory;
use crate::observe::{Event, Observer, RemoteOp};
use crate::partition::{PartitionId, Partitions};
use crate::policy::Policy;
use crate::random::Random;
use crate::recovery::Recovery;
use crate::remote::{Backplane, BoxFuture, Each, Position, SecondLevel};
use crate::sync::{Ordering, lock};
use crate::tag::Tags;
use crate::version::{Key, Version};

/// What a flight lands with.
pub(crate) type Outcome = Result<Landed, Error>;

/// A successful load.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    pub(crate) entry: Arc<Entry>,
    pub(crate) origin: Origin,
    /// The key changes faster than the source answers: this was the newest at `known_at`, and is not any more. Good for
    /// those who began to read about then.
    pub(crate) overtaken: bool,
}

/// The bound and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// What is promised.
    pub(crate) promised: Duration,
    /// How far the coarse clock may lag.
    pub(crate) tick: Duration,
    /// The same, for the hit path.
    tick_nanos: u64,
}

impl Bound {
    pub(crate) fn new(promised: Duration) -> Self {
        let tick = (promised / 50).clamp(Duration::from_millis(1), Duration::from_millis(10));
        Self {
            promised,
            tick,
            tick_nanos: u64::from(tick.subsec_nanos()),
        }
    }

    /// What may be trusted by a clock that lags.
    fn trusted(self) -> Duration {
        self.promised.saturating_sub(self.tick * 2)
    }

    /// How often the logs' positions are asked for.
    fn poll(self) -> Duration {
        self.promised / 3
    }
}

pub(crate) struct Engine {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) bound: Bound,
    pub(crate) clock: Arc<dyn Clock>,
    coarse: AtomicU64,
    pub(crate) memory: Option<Memory>,
    pub(crate) partitions: Partitions,
    pub(crate) tags: Tags,
    pub(crate) flights: Flights<Outcome>,
    pub(crate) remote: Option<Arc<dyn SecondLevel>>,
    pub(crate) backplane: Option<Arc<dyn Backplane>>,
    pub(crate) coherence: Mutex<Coherence>,
    pub(crate) recovery: Mutex<Recovery>,
    pub(crate) health: Health,
    pub(crate) standing: Standing,
    replays: mpsc::Sender<(PartitionId, Position)>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) random: Random,
    #[cfg(test)]
    pub(crate) mutant: Option<Mutant>,
}

/// Faults that the simulation plants to see that it finds them.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The first level is written without comparing versions or needs.
    BlindSet,
    /// What a loader answers is not held against the read's floor.
    MissingFloor,
    /// A gap in the messages is stepped over.
    LostGap,
    /// The horizon is taken to hold for ever.
    EndlessHorizon,
    /// A tag's generation is captured after the load.
    LateTags,
}

/// What the parts of an engine are built from.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) bound: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) memory: Option<Memory>,
    pub(crate) partitions: u16,
    pub(crate) remote: Option<Arc<dyn SecondLevel>>,
    pub(crate) backplane: Option<Arc<dyn Backplane>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) random: Random,
    pub(crate) max_deferred: usize,
    #[cfg(test)]
    pub(crate) mutant: Option<Mutant>,
}

impl Engine {
    /// The engine, and what it asks to be replayed.
    pub(crate) fn new(parts: Parts) -> (Self, mpsc::Receiver<(PartitionId, Position)>) {
        // Without anybody to hear from, what is in memory is what there is.
        let horizon = if parts.backplane.is_some() {
            Nanos::ZERO
        } else {
            Nanos::MAX
        };
        let partitions = Partitions::new(parts.partitions, horizon);
        let unknown_tag = u64::from(parts.remote.is_none());
        let (replays, asked) = mpsc::channel(usize::from(partitions.count()));
        let engine = Self {
            name: parts.name,
            bound: Bound::new(parts.bound),
            coarse: AtomicU64::new(parts.clock.now().as_nanos()),
            clock: parts.clock,
            memory: parts.memory,
            coherence: Mutex::new(Coherence::new(partitions.count())),
            partitions,
            tags: Tags::new(unknown_tag),
            flights: Flights::new(64, parts.policy.max_loads),
            remote: parts.remote,
            backplane: parts.backplane,
            recovery: Mutex::new(Recovery::new(parts.max_deferred)),
            health: Health::default(),
            standing: Standing::default(),
            observer: parts.observer,
            random: parts.random,
            policy: parts.policy,
            replays,
            #[cfg(test)]
            mutant: parts.mutant,
        };
        #[cfg(test)]
        if engine.is(Mutant::LostGap) {
            lock(&engine.coherence).lose_gaps = true;
        }
        (engine, asked)
    }

    /// The present, and moves the coarse clock up to it.
    pub(crate) fn now(&self) -> Nanos {
        let now = self.clock.now();
        self.coarse.fetch_max(now.as_nanos(), Ordering::Relaxed);
        now
    }

    /// The present, up to one tick late.
    pub(crate) fn coarse(&self) -> Nanos {
        Nanos::from_nanos(self.coarse.load(Ordering::Relaxed))
    }

    /// The hit path: no lock of ours, no allocation, no clock call.
    #[inline]
    pub(crate) fn hit(&self, key: &str, read: &Read) -> Option<Answer> {
        if read.past_memory {
            return None;
        }
        let entry = self.memory.as_ref()?.get(key)?;
        let at = read.now.unwrap_or_else(|| self.coarse());
        if !self.serves(&entry, read.floor, at) {
            return None;
        }
        entry.touches.touch(at, self.bound.tick_nanos);
        self.answered(Origin::L1);
        Some(Answer {
            entry,
            origin: Origin::L1,
            at,
        })
    }

    /// As [`hit`](Self::hit), by an entry that a hit has found before.
    #[inline]
    pub(crate) fn hit_again(&self, entry: &Entry, floor: Version, at: Nanos) -> Option<Recalled> {
        if entry.has_left() || !self.serves(entry, floor, at) {
            return None;
        }
        self.answered(Origin::L1);
        Some(Recalled {
            age: entry.age(at),
            look_up: entry.touches.touch(at, self.bound.tick_nanos),
        })
    }

    /// Whether an entry may answer a read with this floor (G4, G5).
    #[inline]
    pub(crate) fn serves(&self, entry: &Entry, floor: Version, now: Nanos) -> bool {
        entry.version >= floor && !entry.is_marker() && now < entry.span.hard && self.trusts(entry, now)
    }

    /// P1, P2 and T1.
    #[inline]
    fn trusts(&self, entry: &Entry, now: Nanos) -> bool {
        let partition = self.partitions.at(entry.partition);
        if entry.generation != partition.generation() {
            return false;
        }
        #[cfg(test)]
        if self.is(Mutant::EndlessHorizon) {
            return entry.tags.hold();
        }
        let young = now < entry.span.trusted_until;
        if !young && !partition.holds(now) {
            return false;
        }
        // A young entry's tags may be as old as the horizon was when they were captured, so youth is no excuse here.
        entry.tags.is_empty() || (entry.tags.hold() && self.tags_hold(entry, now))
    }

    /// P2 for the partitions that the entry's tags live in.
    fn tags_hold(&self, entry: &Entry, now: Nanos) -> bool {
        entry
            .tags
            .iter()
            .all(|(cell, _)| self.partitions.at(cell.partition).holds(now))
    }

    pub(crate) fn lock<'a>(&'a self, key: &'a Key) -> Locked<'a, Outcome> {
        self.lock_in(self.partitions.id(key), key)
    }

    /// As [`lock`](Self::lock) for who knows the key's partition.
    pub(crate) fn lock_in<'a>(&'a self, partition: PartitionId, key: &'a Key) -> Locked<'a, Outcome> {
        self.flights.lock(key, partition)
    }

    /// Stores what a flight has loaded, if it still may (F1, F2), and ends its place in the table.
    pub(crate) fn store(&self, flight: &Arc<Flight<Outcome>>, entry: &Arc<Entry>) {
        self.store_locked(&mut self.flights.lock_of(flight), flight, entry);
    }

    /// [`store`](Self::store) for who holds the key's lock.
    pub(crate) fn store_locked(
        &self,
        locked: &mut Locked<'_, Outcome>,
        flight: &Arc<Flight<Outcome>>,
        entry: &Arc<Entry>,
    ) {
        let is_current = locked.leave(flight);
        let Some(memory) = &self.memory else { return };
        #[cfg(test)]
        if self.is(Mutant::BlindSet) {
            memory.insert_blindly(&flight.key, Arc::clone(entry));
            return;
        }
        if is_current && entry.version >= flight.need() {
            let bytes = entry.body.len();
            if !memory.upsert(&flight.key, Arc::clone(entry)) && memory.is_oversize(bytes) {
                self.event(&Event::Oversize(bytes));
            }
        }
    }

    /// Asks the second level, unless it is known to be down.
    pub(crate) async fn ask<T>(&self, op: RemoteOp, count: usize, call: BoxFuture<'_, Each<T>>) -> Each<T> {
        let failed = |error: RemoteError| (0..count).map(|_| Err(error.clone())).collect();
        if self.remote_is_known_down() {
            return failed(known_down());
        }
        let each: Each<T> = match tokio::time::timeout(self.policy.remote_timeout, call).await {
            Ok(each) if each.len() == count => each,
            Ok(_) => failed(RemoteError::Corrupt(
                "answered another number of things".to_owned(),
            )),
            Err(_) => failed(RemoteError::TimedOut),
        };
        let is_down = !each.is_empty()
            && each
                .iter()
                .all(|one| one.as_ref().is_err_and(RemoteError::is_down));
        self.asked(op, is_down, each.iter().any(Result::is_err));
        each
    }

    /// [`ask`](Self::ask) for what has one answer.
    pub(crate) async fn ask_one<T>(
        &self,
        op: RemoteOp,
        call: BoxFuture<'_, Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        if self.remote_is_known_down() {
            return Err(known_down());
        }
        let answer = tokio::time::timeout(self.policy.remote_timeout, call)
            .await
            .unwrap_or(Err(RemoteError::TimedOut));
        let is_down = answer.as_ref().is_err_and(RemoteError::is_down);
        self.asked(op, is_down, answer.is_err());
        answer
    }

    fn remote_is_known_down(&self) -> bool {
        !self.health.is_well() && !self.health.admits(self.now())
    }

    /// Notes what has become of a question to the second level.
    fn asked(&self, op: RemoteOp, is_down: bool, has_failed: bool) {
        if is_down || !self.health.is_well() {
            self.health.settle(is_down, self.now());
        }
        if self.backplane.is_none() {
            self.standing.note(!is_down, self.now());
        }
        if has_failed {
            self.event(&Event::RemoteFailed(op));
        }
    }

    pub(crate) fn answered(&self, origin: Origin) {
        if let Some(observer) = &self.observer {
            observer.answered(origin);
        }
    }

    pub(crate) fn event(&self, event: &Event) {
        if let Some(observer) = &self.observer {
            observer.event(event);
        }
    }

    #[cfg(test)]
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Drops everything, loads under way included, and forgets all floors.
    pub(crate) fn clear(&self) {
        for id in 0..self.partitions.count() {
            self.partitions.at(id).bump();
        }
        if let Some(memory) = &self.memory {
            memory.clear();
        }
    }

    /// How many changes wait for the second level.
    pub(crate) fn deferred(&self) -> usize {
        lock(&self.recovery).len()
    }
}

fn known_down() -> RemoteError {
    RemoteError::Unavailable("known to be down".to_owned())
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
