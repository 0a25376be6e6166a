use std::time::Duration;

use proptest::prelude::*;

use super::{Counts, Divisor, Ring};
use crate::Nanos;

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Nanos {
    Nanos::ZERO.after(Duration::from_millis(millis))
}

#[test]
fn a_slice_is_forgotten_when_the_window_has_passed_it() {
    let ring = Ring::new(SECOND, 10);
    ring.add(0, at(50), Counts::one(true, false));
    assert_eq!(
        ring.counts(0, at(999)),
        Counts {
            total: 1,
            failed: 1,
            slow: 0
        }
    );
    assert_eq!(ring.counts(0, at(1000)), Counts::default());
}

#[test]
fn a_slot_used_again_forgets_its_older_slice() {
    let ring = Ring::new(SECOND, 10);
    ring.add(0, at(0), Counts::one(true, true));
    ring.add(0, at(1600), Counts::one(false, false)); // sixteen slices on: the same slot
    assert_eq!(
        ring.counts(0, at(1600)),
        Counts {
            total: 1,
            failed: 0,
            slow: 0
        }
    );
}

#[test]
fn a_lapped_sample_is_dropped() {
    let ring = Ring::new(SECOND, 10);
    ring.add(0, at(1600), Counts::one(false, false));
    ring.add(0, at(0), Counts::one(true, false));
    assert_eq!(ring.counts(0, at(1600)).failed, 0);
}

#[test]
fn a_sample_of_an_ended_generation_is_dropped() {
    let ring = Ring::new(SECOND, 10);
    ring.clear(7);
    ring.add(6, at(0), Counts::one(true, false));
    assert_eq!(ring.counts(7, at(0)), Counts::default());
}

#[test]
fn a_full_slice_keeps_its_ratio() {
    let ring = Ring::new(SECOND, 10);
    for call in 0..50_000 {
        ring.add(0, at(10), Counts::one(call % 4 == 0, false));
    }
    let counts = ring.counts(0, at(10));
    assert!(counts.total >= super::MAX_EXACT);
    let share = f64::from(counts.failed) / f64::from(counts.total);
    assert!((share - 0.25).abs() < 0.005, "{share}");
}

#[test]
fn an_idle_time_longer_than_the_slice_number_does_not_blind_the_ring() {
    let ring = Ring::new(Duration::from_nanos(10), 10);
    ring.add(0, Nanos::from_nanos(5), Counts::one(false, false));
    for idle in [1_u64 << 21, 3 << 20, (1 << 22) - 20] {
        let later = Nanos::from_nanos(idle * 3);
        ring.add(0, later, Counts::one(true, false));
        assert!(ring.counts(0, later).failed >= 1, "idle for {idle} slices");
    }
}

proptest! {
    #[test]
    fn a_reciprocal_divides_exactly(dividend: u64, shift in 0_u32..64, divisor: u64) {
        for divisor in [divisor >> shift, (divisor >> shift).wrapping_add(1)] {
            let exact = Divisor::new(divisor);
            for dividend in [dividend, dividend >> shift, u64::MAX, 0, divisor, divisor.wrapping_sub(1)] {
                prop_assert_eq!(exact.divide(dividend), dividend / divisor.max(1));
            }
        }
    }
}
