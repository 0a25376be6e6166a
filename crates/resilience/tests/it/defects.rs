//! The defects that were found, by running them, in breakers, budgets and hedges of other crates.
//! Each is kept here under its letter and has to pass. The README's table says who has which.
//!
//! Those of other parts stand beside them: E in `backoff/tests.rs`, F in `budget/tests.rs`, G in
//! `bulkhead/tests.rs` and `tower_contract.rs`, K in `hedge/tests.rs`; the cost of J is gated by
//! `benches/cost.rs`.

use std::future::pending;
use std::time::Duration;

use contextkeep_resilience::breaker::{HalfOpen, State, Window};
use contextkeep_resilience::{Backoff, Breaker, Jitter, ManualClock, Permit};

const SECOND: Duration = Duration::from_secs(1);

fn fixed(open: Duration) -> Backoff {
    Backoff::constant(open).jitter(Jitter::None)
}

fn small(clock: &ManualClock, probes: HalfOpen) -> Breaker {
    Breaker::builder("small")
        .consecutive(1)
        .open(fixed(SECOND))
        .half_open(probes)
        .clock(clock.clone())
        .build()
        .unwrap()
}

/// Open, and its time is over: the next call is a probe.
fn tripped(clock: &ManualClock, probes: HalfOpen) -> Breaker {
    let breaker = small(clock, probes);
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.state(), State::Open);
    clock.advance(SECOND);
    breaker
}

#[test]
fn a_the_count_window_slides() {
    let breaker = Breaker::builder("a")
        .window(Window::Calls(100))
        .min_calls(100)
        .failure_rate(0.5)
        .consecutive(None)
        .clock(ManualClock::new())
        .build()
        .unwrap();
    for _ in 0..100_000 {
        breaker.try_acquire().unwrap().success();
    }
    let mut failures = 0;
    while breaker.state() == State::Closed {
        breaker.try_acquire().unwrap().failure();
        failures += 1;
    }
    assert_eq!(failures, 50);
}

#[test]
fn b_an_answer_from_before_the_trip_does_not_close() {
    let clock = ManualClock::new();
    let breaker = small(&clock, HalfOpen::probes(1, 1, 10 * SECOND));
    let early = breaker.try_acquire().unwrap();
    breaker.try_acquire().unwrap().failure();
    clock.advance(SECOND);
    let _probe = breaker.try_acquire().unwrap();
    early.success();
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.snapshot().totals.late, 1);
}

#[test]
fn c_a_hung_probe_is_given_up() {
    let clock = ManualClock::new();
    let breaker = tripped(&clock, HalfOpen::probes(1, 1, 2 * SECOND));
    let hung = breaker.try_acquire().unwrap();
    clock.advance(2 * SECOND);
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), State::Open);
    clock.advance(SECOND);
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
    hung.failure();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn d1_half_open_admits_no_more_than_its_probes() {
    let clock = ManualClock::new();
    for probes in [1, 2, 7] {
        let breaker = tripped(&clock, HalfOpen::probes(probes, 1, 10 * SECOND));
        let admitted: Vec<_> = (0..1000).filter_map(|_| breaker.try_acquire().ok()).collect();
        assert_eq!(admitted.len(), usize::from(probes));
    }
}

#[test]
fn d2_a_cancelled_probe_returns_its_slot() {
    let clock = ManualClock::new();
    let breaker = tripped(&clock, HalfOpen::probes(1, 1, 10 * SECOND));
    for _ in 0..5 {
        drop(breaker.try_acquire().unwrap());
    }
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn h_a_hung_backend_opens_though_the_timeout_is_outside() {
    let clock = ManualClock::new();
    let breaker = Breaker::builder("h")
        .consecutive(3)
        .slow(SECOND, None)
        .clock(clock.clone())
        .build()
        .unwrap();
    let mut dropped = 0;
    while breaker.state() == State::Closed {
        let mut call = Box::pin(breaker.call(pending::<Result<(), ()>>));
        let waker = std::task::Waker::noop();
        assert!(
            call.as_mut()
                .poll(&mut std::task::Context::from_waker(waker))
                .is_pending()
        );
        clock.advance(SECOND);
        drop(call);
        dropped += 1;
    }
    assert_eq!(dropped, 3);
}

#[test]
fn i_a_probe_of_one_episode_does_not_decide_the_next() {
    let clock = ManualClock::new();
    let breaker = tripped(&clock, HalfOpen::probes(2, 1, 10 * SECOND));
    let slow = breaker.try_acquire().unwrap();
    clock.advance(10 * SECOND);
    assert!(breaker.try_acquire().is_err()); // the first episode ends by its wait
    clock.advance(SECOND);
    let _second_episode = breaker.try_acquire().unwrap();
    slow.success();
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn j_a_full_time_window_stays_exact_in_its_rates() {
    // The cost is gated by instruction counts in the benches; here: that the flat cost does not lose the rate.
    let clock = ManualClock::new();
    let breaker = Breaker::builder("j")
        .consecutive(None)
        .failure_rate(0.5)
        .clock(clock.clone())
        .build()
        .unwrap();
    for _ in 0..100_000 {
        breaker.try_acquire().unwrap().success();
    }
    for _ in 0..2000 {
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!(breaker.state(), State::Closed);
    clock.advance(10 * SECOND);
    for _ in 0..20 {
        drop(breaker.try_acquire().map(Permit::failure));
    }
    assert_eq!(breaker.state(), State::Open);
}
