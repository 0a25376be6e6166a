use std::time::Duration;

use super::Throttle;
use crate::{ManualClock, SplitMix, Why};

const WINDOW: Duration = Duration::from_mins(2);

fn throttle(clock: &ManualClock) -> Throttle {
    Throttle::new("t", 2.0, WINDOW, clock.clone(), SplitMix::seeded(3))
}

/// How many of `calls` the dependency saw, when it accepts a share of them.
fn sent(throttle: &Throttle, calls: u32, accepts: impl Fn(u32) -> bool) -> u32 {
    let mut sent = 0;
    for call in 0..calls {
        match throttle.try_acquire() {
            Ok(ticket) if accepts(call) => {
                sent += 1;
                ticket.accepted();
            }
            Ok(_) => sent += 1,
            Err(rejected) => assert_eq!(rejected.why, Why::Throttled),
        }
    }
    sent
}

#[test]
fn a_healthy_dependency_is_not_throttled() {
    let throttle = throttle(&ManualClock::new());
    assert_eq!(sent(&throttle, 2000, |_| true), 2000);
    assert_eq!(
        sent(&throttle, 1000, |call| call % 2 == 0),
        1000,
        "half accepted is what k = 2 allows"
    );
}

#[test]
fn a_dead_dependency_sees_next_to_nothing() {
    let throttle = throttle(&ManualClock::new());
    assert!(sent(&throttle, 2000, |_| false) < 40);
}

#[test]
fn the_past_is_forgotten_after_the_window() {
    let clock = ManualClock::new();
    let throttle = throttle(&clock);
    sent(&throttle, 2000, |_| false);
    clock.advance(WINDOW);
    assert_eq!(sent(&throttle, 500, |_| true), 500);
}
