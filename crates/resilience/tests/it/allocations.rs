//! N6: the hot paths allocate nothing.

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use contextkeep_resilience::replicas::{Panic, Tried};
use contextkeep_resilience::{
    AnyError, Breaker, Budget, Bulkhead, Endpoint, Fallback, Gate, Guard, Hedge, Idempotent, Policy,
    Replicas, Retry, Served, SplitMix, SystemClock, gate,
};

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future was not ready at once"),
    }
}

fn breaker() -> Breaker {
    Breaker::builder("b").build().unwrap()
}

#[test]
fn a_guarded_call_allocates_nothing() {
    let breaker = breaker();
    assert_eq!(
        allocations(|| at_once(breaker.call(|| ready(Ok::<_, ()>(())))).unwrap()),
        0
    );
    assert_eq!(allocations(|| breaker.try_acquire().unwrap().failure()), 0);
}

#[test]
fn a_rejection_allocates_nothing() {
    let breaker = breaker();
    breaker.isolate();
    assert_eq!(allocations(|| drop(black_box(breaker.try_acquire()))), 0);
    let open = Breaker::builder("b").consecutive(1).build().unwrap();
    open.try_acquire().unwrap().failure();
    assert_eq!(allocations(|| drop(black_box(open.try_acquire()))), 0);
    let full = Bulkhead::new("b", 1, 0);
    let _held = full.try_acquire().unwrap();
    assert_eq!(allocations(|| drop(black_box(full.try_acquire()))), 0);
}

#[test]
fn a_gate_behind_dyn_allocates_nothing_when_there_is_room() {
    let guard = Guard::new(breaker(), Bulkhead::new("b", 4, 4));
    let gate: &dyn Gate = &guard;
    assert_eq!(
        allocations(|| at_once(gate::run(gate, &AnyError, || ready(Ok::<_, ()>(())))).unwrap()),
        0
    );
}

#[test]
fn a_pick_allocates_nothing() {
    let endpoints = (0..8).map(|index| Endpoint::new(index, breaker()));
    let (clock, random) = (SystemClock, SplitMix::seeded(1));
    let set = Replicas::with(
        "set",
        endpoints,
        Panic::Never,
        Duration::from_secs(1),
        clock,
        random,
    );
    assert_eq!(allocations(|| drop(set.pick(Tried::default()))), 0);
}

#[test]
fn a_full_policy_without_armed_timers_allocates_nothing() {
    let budget = Budget::tokens(0.1, 10);
    let policy = Policy::named("p")
        .clock(SystemClock)
        .fallback(Fallback::max_age(Duration::from_mins(1)))
        .total_timeout(Duration::from_secs(1))
        .retry(Retry::new(2, &budget))
        .hedge(Hedge::p95(&budget))
        .guard(breaker(), Some(Bulkhead::new("b", 10, 10)))
        .queue_wait(Duration::from_millis(100))
        .attempt_timeout(Duration::from_millis(500))
        .build();
    let none = |_: &_| ready(None::<Served<u32>>);
    let call = || at_once(policy.run_or(Idempotent::Yes, |_| ready(Ok::<_, ()>(7)), none));
    assert_eq!(allocations(|| assert_eq!(call().unwrap().value, 7)), 0);
}
