use std::time::Duration;

use super::Registry;
use crate::breaker::State;
use crate::{Breaker, ManualClock};

const MINUTE: Duration = Duration::from_mins(1);

fn registry(max: usize, clock: &ManualClock) -> Registry<String> {
    let breakers = clock.clone();
    Registry::new(max, MINUTE, clock.clone(), move |key: &String| {
        Breaker::builder(key.clone())
            .consecutive(1)
            .clock(breakers.clone())
            .build()
            .unwrap()
    })
}

#[test]
fn a_key_keeps_its_breaker() {
    let registry = registry(10, &ManualClock::new());
    registry.get_or_insert("a").isolate();
    assert_eq!(registry.get_or_insert("a").state(), State::Isolated);
    assert_eq!(registry.get_or_insert("b").state(), State::Closed);
    assert_eq!(registry.len(), 2);
}

#[test]
fn keys_from_requests_do_not_grow_it() {
    let registry = registry(10, &ManualClock::new());
    for key in 0..10_000 {
        registry.get_or_insert(&key.to_string());
    }
    assert_eq!(registry.len(), 10);
}

#[test]
fn an_open_breaker_outlives_newcomers() {
    let clock = ManualClock::new();
    let registry = registry(3, &clock);
    registry.get_or_insert("open").try_acquire().unwrap().failure();
    for key in 0..50 {
        clock.advance(Duration::from_secs(1));
        registry.get_or_insert(&key.to_string());
    }
    assert_eq!(registry.get_or_insert("open").state(), State::Open);
}

#[test]
fn idle_keys_go_first() {
    let clock = ManualClock::new();
    let registry = registry(2, &clock);
    registry.get_or_insert("idle");
    clock.advance(MINUTE);
    registry.get_or_insert("used").isolate();
    registry.get_or_insert("new");
    let mut keys: Vec<_> = registry.all().into_iter().map(|(key, _)| key).collect();
    keys.sort();
    assert_eq!(keys, ["new", "used"]);
}
