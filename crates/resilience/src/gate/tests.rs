use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Gate, Guard, Unguarded, run};
use crate::breaker::State;
use crate::{AnyError, Breaker, Bulkhead, Error, Limiter, Limits, ManualClock, Why};

fn breaker(clock: &ManualClock) -> Breaker {
    Breaker::builder("gate")
        .consecutive(1)
        .clock(clock.clone())
        .build()
        .unwrap()
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn call(gate: &dyn Gate, result: Result<u8, &'static str>) -> Result<u8, Error<&'static str>> {
    match poll(run(gate, &AnyError, || ready(result))) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the gate waits"),
    }
}

#[test]
fn every_gate_can_stand_behind_dyn() {
    let clock = ManualClock::new();
    let gates: [Arc<dyn Gate>; 5] = [
        Arc::new(Unguarded),
        Arc::new(breaker(&clock)),
        Arc::new(Bulkhead::new("b", 1, 0)),
        Arc::new(Limiter::new("l", Limits::default(), clock.clone())),
        Arc::new(Guard::new(breaker(&clock), Bulkhead::new("b", 1, 1))),
    ];
    for gate in gates {
        assert_eq!(call(&*gate, Ok(7)), Ok(7), "{gate:?}");
        assert_eq!(call(&*gate, Err("no")), Err(Error::Inner("no")), "{gate:?}");
    }
}

#[test]
fn a_guard_does_not_queue_for_an_open_breaker() {
    let breaker = breaker(&ManualClock::new());
    let guard = Guard::new(breaker.clone(), Bulkhead::new("b", 1, 5));
    let _held = guard.try_admit().unwrap();
    breaker.try_acquire().unwrap().failure();
    let rejected = call(&guard, Ok(1)).unwrap_err();
    assert_eq!(rejected.rejected().unwrap().why, Why::Open);
}

#[test]
fn a_breaker_that_opened_during_the_wait_is_noticed_and_the_slot_is_free() {
    let breaker = breaker(&ManualClock::new());
    let guard = Guard::new(breaker.clone(), Bulkhead::new("b", 1, 5));
    let held = guard.try_admit().unwrap();
    let mut waiting = pin!(run(&guard, &AnyError, || ready(Ok::<_, ()>(()))));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    breaker.try_acquire().unwrap().failure();
    drop(held);
    assert!(
        matches!(waiting.as_mut().poll(&mut context), Poll::Ready(Err(Error::Rejected(r))) if r.why == Why::Open)
    );
    assert_eq!(guard.bulkhead().in_use(), 0);
}

#[test]
fn a_pass_dropped_late_is_a_failure_and_never_a_success() {
    let clock = ManualClock::new();
    let breaker = breaker(&clock);
    let pass = breaker.try_admit().unwrap();
    clock.advance(Duration::from_secs(2));
    drop(pass);
    assert_eq!(breaker.state(), State::Open);
}
