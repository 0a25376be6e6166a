//! Loom explores the breaker's races. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release -p contextkeep-resilience --lib models`.
//!
//! Two faults are planted as well, and the models must notice both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom::thread;

use super::control::Mutant;
use super::{Breaker, HalfOpen, State};
use crate::backoff::Backoff;
use crate::clock::ManualClock;
use crate::random::SplitMix;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    breaker: Breaker,
    clock: ManualClock,
    /// Probes alive in the present episode. Not loom's: it observes, it does not synchronise.
    alive: Arc<AtomicI64>,
    events: Arc<Mutex<Vec<u64>>>,
}

fn bench(probes: u8, mutant: Option<Mutant>) -> Bench {
    let clock = ManualClock::new();
    let mut breaker = Breaker::builder("loom")
        .consecutive(1)
        .failure_rate(None)
        .open(Backoff::constant(SECOND))
        .half_open(HalfOpen::probes(probes, 1, 5 * SECOND))
        .clock(clock.clone())
        .random(SplitMix::seeded(1))
        .build()
        .unwrap();
    if let Some(mutant) = mutant {
        Arc::get_mut(&mut breaker.core).unwrap().plant(mutant);
    }
    let events = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&events);
    breaker
        .on_transition(move |event| ear.lock().unwrap().push(event.generation))
        .forever();
    Bench {
        breaker,
        clock,
        alive: Arc::new(AtomicI64::new(0)),
        events,
    }
}

impl Bench {
    fn trip(&self) {
        self.breaker.try_acquire().unwrap().failure();
        self.clock.advance(SECOND);
    }

    /// A thread that probes if it may, and ends its probe in the given way.
    fn prober(&self, limit: i64, end: fn(crate::Permit)) -> impl FnOnce() + Send + 'static {
        let (breaker, alive) = (self.breaker.clone(), Arc::clone(&self.alive));
        move || {
            let Ok(permit) = breaker.try_acquire() else { return };
            if permit.is_probe() {
                let others = alive.fetch_add(1, Ordering::Relaxed);
                assert!(others < limit, "I1: too many probes");
                thread::yield_now();
                alive.fetch_sub(1, Ordering::Relaxed);
            }
            end(permit);
        }
    }

    /// What must hold when every permit is gone.
    fn check(&self) {
        let snapshot = self.breaker.snapshot();
        assert_eq!(snapshot.probes_in_flight, 0, "I3: leaked slot");
        let events = self.events.lock().unwrap();
        assert!(
            events.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "I10: {events:?}"
        );
        assert_eq!(
            events.last().copied(),
            Some(snapshot.generation),
            "I10: an event is missing"
        );
    }
}

fn explore(bound: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

/// Callers race for the probes of one episode.
fn race(probes: u8, ends: &'static [fn(crate::Permit)], bound: usize, mutant: Option<Mutant>) {
    explore(bound, move || {
        let bench = bench(probes, mutant);
        bench.trip();
        let limit = probes.into();
        let (here, elsewhere) = ends.split_last().unwrap();
        let threads: Vec<_> = elsewhere
            .iter()
            .map(|end| thread::spawn(bench.prober(limit, *end)))
            .collect();
        bench.prober(limit, *here)();
        for thread in threads {
            thread.join().unwrap();
        }
        bench.check();
    });
}

fn abandon(permit: crate::Permit) {
    drop(permit);
}

const TWO: &[fn(crate::Permit)] = &[crate::Permit::failure, abandon];
const THREE: &[fn(crate::Permit)] = &[crate::Permit::failure, abandon, crate::Permit::neutral];

/// A probe of the last episode ends while this one runs.
fn late(probes: u8, mutant: Option<Mutant>) {
    explore(2, move || {
        let bench = bench(probes, mutant);
        bench.trip();
        let lost = bench.breaker.try_acquire().unwrap();
        bench.clock.advance(5 * SECOND);
        assert!(bench.breaker.try_acquire().is_err());
        bench.clock.advance(SECOND);
        let threads = [
            thread::spawn(move || lost.success()),
            thread::spawn(bench.prober(probes.into(), crate::Permit::neutral)),
        ];
        bench.prober(probes.into(), abandon)();
        for thread in threads {
            thread.join().unwrap();
        }
        bench.check();
        assert_eq!(
            bench.breaker.state(),
            State::HalfOpen,
            "I4: a late answer decided"
        );
    });
}

fn notices(model: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(model)).is_err()
}

#[test]
fn one_probe_is_one_probe() {
    race(1, TWO, 2, None);
    race(1, THREE, 1, None);
}

#[test]
fn two_probes_are_two_probes() {
    race(2, THREE, 1, None);
}

#[test]
fn a_late_probe_changes_nothing() {
    late(1, None);
    late(2, None);
}

#[test]
fn the_model_notices_a_limit_that_forgets_running_probes() {
    assert!(notices(|| race(1, TWO, 2, Some(Mutant::ForgetsInFlight))));
}

#[test]
fn the_model_notices_an_end_that_forgets_generations() {
    assert!(notices(|| late(2, Some(Mutant::ForgetsGeneration))));
}

/// A sample and a streak of one generation race with the next one's beginning.
#[test]
fn a_sample_does_not_cross_generations() {
    explore(3, || {
        let bench = bench(1, None);
        let permit = bench.breaker.try_acquire().unwrap();
        let breaker = bench.breaker.clone();
        let thread = thread::spawn(move || permit.success());
        breaker.reset();
        thread.join().unwrap();
        assert_eq!(bench.breaker.snapshot().calls, 0, "the window was cleared");
        assert_eq!(bench.breaker.snapshot().consecutive_failures, 0);
        bench.check();
    });
}

/// Two failures race to trip: one transition, one event.
#[test]
fn a_trip_has_one_winner() {
    explore(3, || {
        let bench = bench(1, None);
        let (one, other) = (
            bench.breaker.try_acquire().unwrap(),
            bench.breaker.try_acquire().unwrap(),
        );
        let thread = thread::spawn(move || one.failure());
        other.failure();
        thread.join().unwrap();
        bench.check();
        assert_eq!(bench.breaker.snapshot().generation, 1);
        assert_eq!(bench.breaker.state(), State::Open);
    });
}
