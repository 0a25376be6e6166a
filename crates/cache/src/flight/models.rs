//! Loom explores a load against a change of its key, landing against waiting, and waiters that fly. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release -p contextkeep-cache --lib models`.
//!
//! A fault is planted as well, and the model must notice it.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::future::{AtomicWaker, block_on};
use loom::sync::Mutex;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::{Flight, Flights, Ordering, Wait, lock};
use crate::clock::Nanos;
use crate::partition::Partition;
use crate::version::{Key, Version};

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// The source and the first level, as small as they can be.
struct Tiers {
    source: Mutex<u64>,
    /// A version and the generation it was stored under.
    memory: Mutex<Option<(u64, u64)>>,
    flights: Flights<u64>,
    partition: Partition,
    key: Key,
}

impl Tiers {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            source: Mutex::new(1),
            memory: Mutex::new(None),
            flights: Flights::new(1, 4),
            partition: Partition::new(Nanos::MAX),
            key: Key::from("k"),
        })
    }

    /// F1. The planted fault looks at the need before it takes the key's lock.
    fn load(&self, mutant: bool) {
        let generation = self.partition.generation();
        let flight = self
            .flights
            .lock(&self.key, 0)
            .begin(Version::ZERO, Nanos::ZERO, generation, false)
            .unwrap();
        let found = *lock(&self.source);
        let early = flight.need().get() <= found;
        let mut locked = self.flights.lock(&self.key, 0);
        let wanted = if mutant {
            early
        } else {
            flight.need().get() <= found
        };
        if locked.leave(&flight) && wanted {
            *lock(&self.memory) = Some((found, flight.generation));
        }
        drop(locked);
        flight.land(found);
    }

    fn change(&self) {
        *lock(&self.source) = 2;
        let locked = self.flights.lock(&self.key, 0);
        locked.raise(Version::new(2));
        let mut memory = lock(&self.memory);
        if memory.is_some_and(|(version, _)| version < 2) {
            *memory = None;
        }
    }
}

fn a_load_against_a_change(mutant: bool) {
    let tiers = Tiers::new();
    let loading = {
        let tiers = Arc::clone(&tiers);
        thread::spawn(move || tiers.load(mutant))
    };
    tiers.change();
    loading.join().unwrap();
    let held = *lock(&tiers.memory);
    assert_ne!(held.map(|(version, _)| version), Some(1), "F1, G6");
}

#[test]
fn a_load_that_began_before_a_change_is_not_stored_after_it() {
    explore(|| a_load_against_a_change(false));
}

#[test]
fn the_model_finds_a_check_outside_the_lock() {
    let found = catch_unwind(AssertUnwindSafe(|| explore(|| a_load_against_a_change(true))));
    assert!(found.is_err());
}

#[test]
fn a_load_that_began_before_its_partition_was_dropped_is_not_trusted_after_it() {
    explore(|| {
        let tiers = Tiers::new();
        let loading = {
            let tiers = Arc::clone(&tiers);
            thread::spawn(move || tiers.load(false))
        };
        *lock(&tiers.source) = 2;
        tiers.partition.bump();
        loading.join().unwrap();
        // P1: the hit path trusts what has the partition's generation.
        let held = *lock(&tiers.memory);
        let trusted = held.filter(|(_, generation)| *generation == tiers.partition.generation());
        assert_ne!(trusted.map(|(version, _)| version), Some(1), "P1");
    });
}

#[test]
fn every_waiter_is_woken() {
    explore(|| {
        let tiers = Tiers::new();
        let flight = tiers
            .flights
            .lock(&tiers.key, 0)
            .begin(Version::ZERO, Nanos::ZERO, 1, false)
            .unwrap();
        let landing = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.land(7))
        };
        // F3: a lost wake-up would be a deadlock, which loom reports.
        assert_eq!(block_on(flight.wait()), 7);
        landing.join().unwrap();
        assert_eq!(tiers.flights.live(), 0, "F4");
    });
}

/// What a pilot waits for.
struct Reply {
    came: AtomicBool,
    waker: AtomicWaker,
}

impl Reply {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            came: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })
    }

    fn comes(&self) {
        self.came.store(true, Ordering::Release);
        self.waker.wake();
    }

    async fn wait(&self) {
        poll_fn(|context| {
            self.waker.register_by_ref(context.waker());
            if self.came.load(Ordering::Acquire) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// A flight whose pilot lands it when the reply has come.
fn piloted(reply: &Arc<Reply>) -> Arc<Flight<u64>> {
    let flights = Flights::new(1, 4);
    let flight = flights
        .lock(&Key::from("k"), 0)
        .begin(Version::ZERO, Nanos::ZERO, 1, false)
        .unwrap();
    let (reply, flown) = (Arc::clone(reply), Arc::clone(&flight));
    flight.board(Box::pin(async move {
        reply.wait().await;
        flown.land(7);
    }));
    flight
}

/// Waits, and is polled once only.
fn begin_to_wait(flight: &Arc<Flight<u64>>) -> Wait<u64> {
    let mut wait = flight.wait();
    let polled = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending | Poll::Ready(7)));
    wait
}

/// Whether somebody was woken.
struct Flag(std::sync::atomic::AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// F5: one is not polled any more, and the other one needs the pilot's wake. Not waiting but looking whether he was woken,
/// because a deadlock ends loom's whole process. The planted fault looks at the pilot before it has its place.
fn a_waiter_beside_one_that_stops(mutant: bool) {
    let reply = Reply::new();
    let flight = piloted(&reply);
    let stopping = {
        let flight = Arc::clone(&flight);
        thread::spawn(move || begin_to_wait(&flight))
    };
    let replying = {
        let reply = Arc::clone(&reply);
        thread::spawn(move || reply.comes())
    };
    let flag = Arc::new(Flag(false.into()));
    let waker = Waker::from(Arc::clone(&flag));
    let mut wait = flight.wait();
    let polled = if mutant {
        flight.fly(None);
        wait.register(&waker).map_or(Poll::Pending, Poll::Ready)
    } else {
        Pin::new(&mut wait).poll(&mut Context::from_waker(&waker))
    };
    replying.join().unwrap();
    let stopped = stopping.join().unwrap();
    assert!(
        polled == Poll::Ready(7) || flag.0.load(Ordering::Acquire),
        "a lost wake-up"
    );
    drop((wait, stopped));
}

#[test]
fn nobody_waits_for_one_who_is_not_polled() {
    explore(|| a_waiter_beside_one_that_stops(false));
}

#[test]
fn the_model_finds_a_waiter_that_takes_his_place_too_late() {
    let found = catch_unwind(AssertUnwindSafe(|| {
        explore(|| a_waiter_beside_one_that_stops(true));
    }));
    assert!(found.is_err());
}

#[test]
fn a_flight_goes_on_without_those_who_left() {
    explore(|| {
        let reply = Reply::new();
        let flight = piloted(&reply);
        let leaving = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || drop(begin_to_wait(&flight)))
        };
        let replying = {
            let reply = Arc::clone(&reply);
            thread::spawn(move || reply.comes())
        };
        leaving.join().unwrap();
        // F6: whoever comes late finds it flying or landed.
        assert_eq!(block_on(flight.wait()), 7);
        replying.join().unwrap();
    });
}
