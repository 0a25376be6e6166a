//! Loom explores a load against a change of its key, and landing against waiting. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release -p contextkeep-cache --lib models`.
//!
//! A fault is planted as well, and the model must notice it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;

use super::{Flights, lock};
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
        if wanted && locked.is_current(&flight) {
            *lock(&self.memory) = Some((found, flight.generation));
        }
        locked.leave(&flight);
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
