use std::time::Duration;

use super::{Endpoint, Ewma, Panic, Replicas, Tried};
use crate::{Breaker, Clock, ManualClock, Outcome, SplitMix, Why};

const SECOND: Duration = Duration::from_secs(1);

fn set(count: usize, panic: Panic, clock: &ManualClock) -> Replicas<usize> {
    let endpoints = (0..count).map(|index| {
        let breaker = Breaker::builder(format!("replica-{index}"))
            .consecutive(1)
            .clock(clock.clone())
            .build()
            .unwrap();
        Endpoint::new(index, breaker)
    });
    Replicas::with(
        "set",
        endpoints,
        panic,
        5 * SECOND,
        clock.clone(),
        SplitMix::seeded(5),
    )
}

/// How often each endpoint is picked in a thousand calls whose outcome depends on the endpoint.
fn play(
    set: &Replicas<usize>,
    clock: &ManualClock,
    outcome: impl Fn(usize) -> (Duration, Outcome),
) -> Vec<u32> {
    let mut picks = vec![0; set.endpoints().len()];
    for _ in 0..1000 {
        let picked = set.pick(Tried::default()).unwrap();
        picks[picked.index()] += 1;
        let (took, outcome) = outcome(picked.index());
        clock.advance(took);
        picked.record(outcome);
    }
    picks
}

#[test]
fn the_faster_endpoint_gets_more() {
    let clock = ManualClock::new();
    let set = set(2, Panic::Never, &clock);
    let picks = play(&set, &clock, |index| {
        (
            Duration::from_millis(if index == 0 { 50 } else { 2 }),
            Outcome::SUCCESS,
        )
    });
    assert!(picks[1] > 3 * picks[0], "{picks:?}");
}

#[test]
fn failing_fast_does_not_look_fast() {
    let clock = ManualClock::new();
    let set = set(2, Panic::Never, &clock);
    let fails = |index| match index {
        0 => (Duration::from_micros(10), Outcome::FAILURE),
        _ => (Duration::from_millis(20), Outcome::SUCCESS),
    };
    let picks = play(&set, &clock, fails);
    assert!(picks[0] < 50, "{picks:?}");
}

#[test]
fn a_penalised_endpoint_is_forgiven_in_time() {
    let ewma = Ewma::new(10 * SECOND);
    let clock = ManualClock::new();
    ewma.observe(clock.now(), 5 * SECOND);
    assert!((ewma.read(clock.now()) - 5.0).abs() < 1e-3);
    clock.advance(60 * SECOND);
    assert!(ewma.read(clock.now()) < 0.02);
}

#[test]
fn an_open_endpoint_is_left_out_and_the_tried_one_comes_last() {
    let clock = ManualClock::new();
    let set = set(3, Panic::Never, &clock);
    set.endpoints()[0].breaker().try_acquire().unwrap().failure();
    for _ in 0..50 {
        assert_ne!(set.pick(Tried::default()).unwrap().index(), 0);
        assert_eq!(set.pick(Tried::default().and(1)).unwrap().index(), 2);
        assert_ne!(set.pick(Tried::default().and(1).and(2)).unwrap().index(), 0);
    }
}

#[test]
fn when_all_are_open_the_set_is_open_or_panics() {
    let clock = ManualClock::new();
    let strict = set(2, Panic::Never, &clock);
    let loose = set(2, Panic::Below(0.5), &clock);
    for set in [&strict, &loose] {
        set.endpoints()
            .iter()
            .for_each(|endpoint| endpoint.breaker().try_acquire().unwrap().failure());
    }
    let rejected = strict.pick(Tried::default()).unwrap_err();
    assert_eq!(rejected.why, Why::NoEndpoint);
    assert!(rejected.retry_after.is_some());
    let picked = loose.pick(Tried::default()).unwrap();
    assert!(
        picked.permit().unwrap().is_none(),
        "used without its breaker's leave"
    );
    loose
        .endpoints()
        .iter()
        .for_each(|endpoint| endpoint.breaker().isolate());
    assert!(
        loose.pick(Tried::default()).unwrap().permit().is_err(),
        "what an operator took out stays out"
    );
}

#[test]
fn an_empty_set_says_so() {
    let set = set(0, Panic::Below(0.5), &ManualClock::new());
    assert_eq!(set.pick(Tried::default()).unwrap_err().why, Why::NoEndpoint);
}

#[test]
fn a_dropped_choice_frees_its_place() {
    let set = set(1, Panic::Never, &ManualClock::new());
    let picked = set.pick(Tried::default()).unwrap();
    assert_eq!(set.endpoints()[0].in_flight(), 1);
    drop(picked);
    assert_eq!(set.endpoints()[0].in_flight(), 0);
}

#[test]
fn a_penalty_without_bounds_saturates() {
    let clock = ManualClock::new();
    let endpoints = (0..2).map(|index| Endpoint::new(index, Breaker::builder("b").build().unwrap()));
    let (random, forever) = (SplitMix::seeded(1), Duration::MAX);
    let set = Replicas::with("set", endpoints, Panic::Never, forever, clock, random);
    let punished = set.pick(Tried::default()).unwrap();
    let index = punished.index();
    punished.record(Outcome::throttled(Some(SECOND)));
    assert_ne!(set.pick(Tried::default()).unwrap().index(), index);
}
