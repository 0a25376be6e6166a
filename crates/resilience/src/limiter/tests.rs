use std::time::Duration;

use super::{Limiter, Limits};
use crate::{Clock, ManualClock, Nanos, Verdict, Why};

fn limiter(clock: &ManualClock) -> Limiter {
    Limiter::new(
        "l",
        Limits {
            min: 2,
            start: 10,
            max: 20,
            decrease: 0.5,
        },
        clock.clone(),
    )
}

#[test]
fn it_grows_only_while_it_is_used() {
    let clock = ManualClock::new();
    let limiter = limiter(&clock);
    for _ in 0..1000 {
        limiter.try_acquire().unwrap().record(Verdict::Success);
    }
    assert_eq!(limiter.limit(), 10, "one call at a time says nothing about ten");
    for _ in 0..100 {
        let crowd: Vec<_> = std::iter::from_fn(|| limiter.try_acquire().ok()).collect();
        for place in crowd {
            place.record(Verdict::Success);
        }
    }
    assert_eq!(limiter.limit(), 20);
    assert_eq!(limiter.in_flight(), 0);
}

#[test]
fn a_crowd_that_fails_together_shrinks_it_once() {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(1));
    let limiter = limiter(&clock);
    let crowd: Vec<_> = std::iter::from_fn(|| limiter.try_acquire().ok()).collect();
    assert_eq!(crowd.len(), 10);
    clock.advance(Duration::from_secs(1));
    for place in crowd {
        place.record(Verdict::Failure);
    }
    assert_eq!(limiter.limit(), 5);
    for _ in 0..10 {
        clock.advance(Duration::from_secs(1));
        let place = limiter.try_acquire().unwrap();
        clock.advance(Duration::from_secs(1));
        place.record(Verdict::Throttled { retry_after: None });
    }
    assert_eq!(limiter.limit(), 2, "never below the minimum");
}

#[test]
fn a_full_limit_rejects_and_a_dropped_place_is_free_again() {
    let limiter = limiter(&ManualClock::new());
    let crowd: Vec<_> = std::iter::from_fn(|| limiter.try_acquire().ok()).collect();
    assert_eq!(limiter.try_acquire().unwrap_err().why, Why::Throttled);
    drop(crowd);
    assert_eq!((limiter.in_flight(), limiter.limit()), (0, 10));
}

#[test]
fn the_end_of_time_is_survived() {
    let clock = ManualClock::new();
    clock.advance(Duration::MAX);
    clock.advance(Duration::MAX);
    assert_eq!(clock.now(), Nanos::MAX, "the clock stops there");
    let limiter = Limiter::new("end", Limits::default(), clock);
    for _ in 0..2 {
        limiter.try_acquire().unwrap().record(Verdict::Failure);
    }
    assert!(limiter.limit() < Limits::default().start);
}
