//! The flight table: loads under way, at most one a key that readers may join.
//!
//! A key's shard lock is also *the* lock for writing that key to the first level. That makes "is my load still
//! wanted? then store it" one step against "this key has changed":
//!
//! - **F1** A change raises the flight's need and lowers the first level under the key's lock; a flight stores under
//!   the same lock, and only a version that its need allows. So a load that began before a change is never stored
//!   after it.
//! - **F2** A flight that was superseded by a newer one stores nothing.
//! - **F3** Every flight lands, whatever becomes of its task, and every waiter hears of it.
//! - **F4** At most `most` flights are in the air.
//!
//! The first part of a load may be flown by those who wait for it, without a task: the flight has a [`Pilot`], a future
//! that is polled by whoever waits.
//!
//! - **F5** No waiter needs another one to go on: each polls the pilot when he begins to wait, and whatever then wakes the
//!   pilot wakes all who wait. One who is not polled any more holds up nobody.
//! - **F6** A pilot outlives those who wait: when the last one goes, it goes on in a task of its own.

mod wait;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use quick_cache::DefaultHashBuilder;
use smallvec::SmallVec;

use self::wait::Wait;
use crate::clock::Nanos;
use crate::partition::PartitionId;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock};
use crate::version::{Key, Version};

/// What flies a flight for those who wait. It lands the flight, or sees to it that somebody does, even when it is dropped.
pub(crate) type Pilot = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A load under way.
pub(crate) struct Flight<T> {
    pub(crate) key: Key,
    /// Its key's.
    pub(crate) partition: PartitionId,
    pub(crate) began: Nanos,
    /// Its partition's generation when it began.
    pub(crate) generation: u64,
    /// Whether what it loads has tags, which a reader that comes late can't know to have held all the time.
    pub(crate) tagged: bool,
    need: AtomicU64,
    /// The part of its need that the cache knows; the rest is what readers ask for.
    told: AtomicU64,
    state: Mutex<State<T>>,
    /// Locked while it is polled, which is brief, and before `state`.
    pilot: Mutex<Option<Pilot>>,
    live: Arc<AtomicUsize>,
}

impl<T: fmt::Debug> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("key", &self.key)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State<T> {
    Flying {
        /// Most loads have one who waits, and need no list.
        wakers: SmallVec<[(u64, Waker); 1]>,
        next: u64,
        /// Who polls the pilot just now. He looks for the outcome when he has: a wake would only have him polled again.
        polling: Option<u64>,
    },
    Landed(T),
}

impl<T: Clone> Flight<T> {
    /// The least version it may answer with. Changes raise it under the key's lock.
    pub(crate) fn need(&self) -> Version {
        Version::new(self.need.load(Ordering::Acquire))
    }

    /// What this very flight has learned the key has reached. Raising is monotone, so it needs no lock.
    pub(crate) fn raise(&self, version: Version) {
        self.told.fetch_max(version.get(), Ordering::AcqRel);
        self.need.fetch_max(version.get(), Ordering::AcqRel);
    }

    /// The version that the key is known to have reached, whatever readers ask for.
    pub(crate) fn told(&self) -> Version {
        Version::new(self.told.load(Ordering::Acquire))
    }

    /// The outcome, once there is one.
    pub(crate) fn landed(&self) -> Option<T> {
        match &*lock(&self.state) {
            State::Flying { .. } => None,
            State::Landed(outcome) => Some(outcome.clone()),
        }
    }

    /// F3: the first outcome counts, later ones are ignored.
    pub(crate) fn land(&self, outcome: T) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Landed(_)) {
            return;
        }
        let before = std::mem::replace(&mut *state, State::Landed(outcome));
        drop(state);
        self.live.fetch_sub(1, Ordering::AcqRel);
        if let State::Flying { wakers, polling, .. } = before {
            for (id, waker) in wakers {
                if Some(id) != polling {
                    waker.wake();
                }
            }
        }
    }

    /// Has those who wait fly it. Whoever calls this waits as well, at once.
    pub(crate) fn board(&self, pilot: Pilot) {
        *lock(&self.pilot) = Some(pilot);
    }

    /// Waits for the outcome. Dropping the future takes nothing from the load or from other waiters.
    pub(crate) fn wait(self: &Arc<Self>) -> Wait<T> {
        Wait::new(Arc::clone(self))
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Polls the pilot, if there is one, for a waiter who has a place among those who are woken. Whether it is to be polled
    /// again, and the outcome if it landed.
    fn fly(self: &Arc<Self>, id: Option<u64>) -> (bool, Option<T>) {
        let mut place = lock(&self.pilot);
        // Out of its place, so that nobody meets it again if it panics.
        let Some(mut pilot) = place.take() else {
            // Whoever lands it wakes those who wait.
            return (false, None);
        };
        self.polls(id);
        let waker = Waker::from(Arc::clone(self));
        if pilot.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            *place = Some(pilot);
        }
        (place.is_some(), self.polls(None))
    }

    /// The outcome, once there is one; until then, who polls.
    fn polls(&self, id: Option<u64>) -> Option<T> {
        match &mut *lock(&self.state) {
            State::Flying { polling, .. } => {
                *polling = id;
                None
            }
            State::Landed(outcome) => Some(outcome.clone()),
        }
    }
}

/// The pilot's waker (F5).
impl<T: Send + Sync + 'static> Wake for Flight<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers: SmallVec<[Waker; 1]> = match &*lock(&self.state) {
            State::Flying { wakers, .. } => wakers.iter().map(|(_, waker)| waker.clone()).collect(),
            State::Landed(_) => return,
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

/// Hashed as the first level is, seeded by each process: who chooses keys can't choose where they come to lie.
type Shard<T> = HashMap<Key, Arc<Flight<T>>, DefaultHashBuilder>;

/// The loads of a cache.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    live: Arc<AtomicUsize>,
    most: usize,
}

/// As many loads are under way as may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<T: Clone> Flights<T> {
    pub(crate) fn new(shards: usize, most: usize) -> Self {
        Self {
            shards: (0..shards.max(1)).map(|_| Mutex::new(Shard::default())).collect(),
            live: Arc::new(AtomicUsize::new(0)),
            most,
        }
    }

    /// Loads in the air.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Takes the key's lock, by the key's partition.
    pub(crate) fn lock<'a>(&'a self, key: &'a Key, partition: PartitionId) -> Locked<'a, T> {
        Locked {
            flights: lock(&self.shards[usize::from(partition) % self.shards.len()]),
            table: self,
            key,
            partition,
        }
    }

    /// Takes the lock of a flight's key.
    pub(crate) fn lock_of<'a>(&'a self, flight: &'a Flight<T>) -> Locked<'a, T> {
        self.lock(&flight.key, flight.partition)
    }
}

/// A key's lock, held.
pub(crate) struct Locked<'a, T> {
    flights: MutexGuard<'a, Shard<T>>,
    table: &'a Flights<T>,
    key: &'a Key,
    partition: PartitionId,
}

impl<T: Clone> Locked<'_, T> {
    /// The flight that readers may join.
    pub(crate) fn flight(&self) -> Option<&Arc<Flight<T>>> {
        self.flights.get(self.key.as_str())
    }

    /// Begins a flight, in the place of the one there may be (F2).
    pub(crate) fn begin(
        &mut self,
        need: Version,
        began: Nanos,
        generation: u64,
        tagged: bool,
    ) -> Result<Arc<Flight<T>>, Full> {
        if self.table.live.fetch_add(1, Ordering::AcqRel) >= self.table.most {
            self.table.live.fetch_sub(1, Ordering::AcqRel); // F4
            return Err(Full);
        }
        let flight = Arc::new(Flight {
            key: self.key.clone(),
            partition: self.partition,
            began,
            generation,
            tagged,
            need: AtomicU64::new(need.get()),
            told: AtomicU64::new(0),
            state: Mutex::new(State::Flying {
                wakers: SmallVec::new(),
                next: 0,
                polling: None,
            }),
            pilot: Mutex::new(None),
            live: Arc::clone(&self.table.live),
        });
        self.flights.insert(self.key.clone(), Arc::clone(&flight));
        Ok(flight)
    }

    /// F1: the key has reached this version.
    pub(crate) fn raise(&self, version: Version) -> bool {
        self.flight().is_some_and(|flight| {
            flight.raise(version);
            true
        })
    }

    /// Ends the flight's place in the table. Whether it had it, as the key's current one, which may store (F2).
    pub(crate) fn leave(&mut self, flight: &Arc<Flight<T>>) -> bool {
        match self.flights.remove(self.key.as_str()) {
            // One lookup for most, and a second one for the few that were superseded.
            Some(current) if !Arc::ptr_eq(&current, flight) => {
                self.flights.insert(current.key.clone(), current);
                false
            }
            taken => taken.is_some(),
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
