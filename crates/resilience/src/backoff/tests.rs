use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::{Backoff, Jitter};
use crate::SplitMix;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn delays_double_up_to_the_cap() {
    let backoff = Backoff::exponential(SECOND, 5 * SECOND).jitter(Jitter::None);
    let random = SplitMix::seeded(1);
    let delays: Vec<_> = (0..4)
        .map(|number| backoff.delay(number, &random).as_secs())
        .collect();
    assert_eq!(delays, [1, 2, 4, 5]);
}

#[test]
fn a_thousand_requests_get_a_thousand_delays() {
    // Defect E: a generator cloned per request gives all of them one delay.
    let backoff = Backoff::exponential(SECOND, 60 * SECOND);
    let random = SplitMix::seeded(7);
    let delays: HashSet<_> = (0..1000).map(|_| backoff.delay(0, &random)).collect();
    assert!(delays.len() > 990, "{}", delays.len());
}

proptest! {
    #[test]
    fn no_delay_exceeds_its_ceiling(base in 0_u64..10_000, cap in 0_u64..100_000, number in any::<u32>(), seed: u64, fraction in 0.0..=1.0_f64) {
        let millis = Duration::from_millis;
        for jitter in [Jitter::None, Jitter::Full, Jitter::Upper(fraction)] {
            let backoff = Backoff::exponential(millis(base), millis(cap)).jitter(jitter);
            let delay = backoff.delay(number, &SplitMix::seeded(seed));
            prop_assert!(delay <= backoff.ceiling(number));
            prop_assert!(delay <= millis(base.max(cap)));
            if let Jitter::Upper(fraction) = jitter {
                let floor = backoff.ceiling(number).as_secs_f64() * (1.0 - fraction);
                prop_assert!(delay.as_secs_f64() >= floor - 1e-6);
            }
        }
    }
}
