//! The breaker at the edges: settings without bounds, clocks that misbehave, listeners that do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_resilience::breaker::{Abandoned, HalfOpen, Problem, State, Window};
use contextkeep_resilience::{Backoff, Breaker, Clock, ManualClock, Nanos, Verdict};

const SECOND: Duration = Duration::from_secs(1);

fn fragile() -> Breaker {
    Breaker::builder("fragile").consecutive(1).build().unwrap()
}

#[test]
fn every_setting_that_makes_no_sense_is_reported_at_once() {
    let error = Breaker::builder("b")
        .failure_rate(1.5)
        .slow(SECOND, f64::NAN)
        .window(Window::Calls(0))
        .min_calls(3000)
        .consecutive(0)
        .open(Backoff::constant(Duration::ZERO))
        .half_open(HalfOpen::probes(0, 1, Duration::ZERO).then_ramp([0.0], Duration::ZERO))
        .build()
        .unwrap_err();
    let keys: Vec<_> = error.problems.iter().map(|Problem { key, .. }| *key).collect();
    let expected = [
        "failure_rate",
        "slow",
        "window",
        "min_calls",
        "min_calls",
        "consecutive",
        "open",
        "half_open.probes",
        "half_open.need",
        "half_open.max_wait",
        "half_open.ramp",
        "half_open.stage",
    ];
    assert_eq!(keys, expected);
    assert_eq!(error.to_string().matches("; ").count(), expected.len() - 1);
}

/// Every way a call can end, at every state, at both ends of time.
fn exercise(breaker: &Breaker, clock: &ManualClock) {
    let verdicts = [
        Verdict::Success,
        Verdict::Failure,
        Verdict::Neutral,
        Verdict::Throttled {
            retry_after: Some(Duration::MAX),
        },
    ];
    for step in [Duration::ZERO, SECOND, Duration::MAX] {
        clock.advance(step);
        for verdict in verdicts {
            drop(breaker.try_acquire().map(|permit| permit.record(verdict)));
            drop(breaker.try_acquire());
            let _looked = (breaker.snapshot(), breaker.peek());
        }
        breaker.reset();
    }
}

#[test]
fn settings_without_bounds_neither_panic_nor_wrap() {
    let ends = [Duration::from_nanos(1), Duration::MAX];
    for (span, slices) in ends.into_iter().flat_map(|span| [(span, 1), (span, 16)]) {
        for wait in ends {
            let clock = ManualClock::new();
            let breaker = Breaker::builder("extreme")
                .window(Window::Time { span, slices })
                .slow(wait, 1.0)
                .min_calls(1)
                .consecutive(u16::MAX)
                .open(Backoff::exponential(wait, Duration::MAX).factor(u32::MAX))
                .max_retry_after(Duration::MAX)
                .stable_after(wait)
                .half_open(HalfOpen::probes(255, 255, wait).then_ramp([1e-9, 1.0], wait))
                .clock(clock.clone())
                .build()
                .unwrap();
            exercise(&breaker, &clock);
            assert_eq!(breaker.state(), State::Closed);
        }
    }
}

/// A clock that can be set to any time.
#[derive(Debug, Clone, Default)]
struct Unsteady(Arc<AtomicU64>);

impl Unsteady {
    fn set(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap();
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl Clock for Unsteady {
    fn now(&self) -> Nanos {
        Nanos::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[test]
fn a_clock_that_goes_backwards_costs_samples_and_time_and_nothing_else() {
    let clock = Unsteady::default();
    clock.set(100 * SECOND);
    let breaker = Breaker::builder("unsteady")
        .consecutive(2)
        .open(Backoff::constant(SECOND))
        .half_open(HalfOpen::probes(1, 1, SECOND))
        .clock(clock.clone())
        .build()
        .unwrap();
    let early = breaker.try_acquire().unwrap();
    clock.set(10 * SECOND);
    early.success();
    for _ in 0..2 {
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!(breaker.state(), State::Open);
    clock.set(Duration::ZERO);
    let left = breaker.try_acquire().unwrap_err().retry_after.unwrap();
    assert_eq!(left, 11 * SECOND, "open until the time that was said");
    clock.set(11 * SECOND);
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_listener_that_panics_harms_neither_the_call_nor_the_next_listener() {
    let breaker = fragile();
    breaker.on_transition(|_| panic!("the listener's own")).forever();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    breaker
        .on_transition(move |event| ear.lock().unwrap().push(event.to))
        .forever();
    // The permit is dropped while the call unwinds: a second panic would end the process.
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _permit = breaker.try_acquire().unwrap();
        panic!("the call's own");
    }));
    assert!(unwound.is_err());
    breaker.reset();
    assert_eq!(*heard.lock().unwrap(), [State::Open, State::Closed]);
}

#[test]
fn a_listener_may_own_a_permit_of_its_breaker() {
    let breaker = Breaker::builder("owned")
        .consecutive(1)
        .abandoned(Abandoned::Failure)
        .build()
        .unwrap();
    let permit = breaker.try_acquire().unwrap();
    let subscription = breaker.on_transition(move |_| assert!(!permit.is_probe()));
    drop(subscription); // and with it the permit, which opens the breaker
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_listener_that_holds_the_others_up_loses_the_oldest_events() {
    let breaker = fragile();
    let generations = Arc::new(Mutex::new(Vec::new()));
    let (ear, again) = (Arc::clone(&generations), breaker.clone());
    let listener = move |event: &contextkeep_resilience::breaker::Transition| {
        ear.lock().unwrap().push(event.generation);
        if event.generation == 1 {
            (0..3000).for_each(|_| again.reset());
        }
    };
    breaker.on_transition(listener).forever();
    breaker.reset();
    let heard = generations.lock().unwrap();
    assert_eq!((heard.len(), heard.last()), (1 + 1024, Some(&3001)));
    assert!(heard.is_sorted(), "I10");
}
