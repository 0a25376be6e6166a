use std::time::Duration;

use super::Hedge;
use crate::{Budget, Random, SplitMix};

/// Plays calls of these durations; the share that was late in the second half.
fn late_share(hedge: &Hedge, calls: u32, duration: impl Fn(&SplitMix) -> f64) -> f64 {
    let random = SplitMix::seeded(11);
    let mut late = 0;
    for call in 0..calls {
        let took = Duration::from_secs_f64(duration(&random));
        if took < hedge.delay() {
            hedge.in_time();
        } else {
            hedge.late();
            late += u32::from(call >= calls / 2);
        }
    }
    f64::from(late) / f64::from(calls / 2)
}

#[test]
fn a_p95_hedge_is_a_five_percent_hedge_under_any_distribution() {
    // Defect K: losers that are never recorded made it 5.8 to 11.5 %.
    let uniform = |random: &SplitMix| 0.010 + 0.010 * random.unit();
    let exponential = |random: &SplitMix| -0.010 * (1.0 - random.unit()).ln();
    let bimodal = |random: &SplitMix| {
        if random.unit() < 0.9 {
            0.005 * random.unit()
        } else {
            0.3 * random.unit()
        }
    };
    let pareto = |random: &SplitMix| 0.004 / (1.0 - random.unit()).powf(0.7);
    let distributions: [&dyn Fn(&SplitMix) -> f64; 4] = [&uniform, &exponential, &bimodal, &pareto];
    for (number, duration) in distributions.into_iter().enumerate() {
        let hedge = Hedge::p95(&Budget::tokens(0.0, 0));
        let share = late_share(&hedge, 40_000, duration);
        assert!((share - 0.05).abs() < 0.005, "distribution {number}: {share}");
    }
}

#[test]
fn it_follows_a_dependency_that_slows_down() {
    let hedge = Hedge::p95(&Budget::tokens(0.0, 0));
    late_share(&hedge, 5000, |_| 0.005);
    late_share(&hedge, 5000, |random| 0.050 + 0.001 * random.unit());
    assert!(hedge.delay() > Duration::from_millis(49), "{:?}", hedge.delay());
}

#[test]
fn delays_keep_their_bounds() {
    let (floor, ceiling) = (Duration::from_millis(5), Duration::from_millis(20));
    let hedge = Hedge::p95(&Budget::tokens(0.0, 0)).between(floor, ceiling);
    (0..1000).for_each(|_| hedge.in_time());
    assert_eq!(hedge.delay(), floor);
    (0..1000).for_each(|_| hedge.late());
    assert_eq!(hedge.delay(), ceiling);
}

#[test]
fn leave_needs_samples_room_and_budget() {
    let hedge = Hedge::p95(&Budget::tokens(0.0, 3))
        .min_samples(10)
        .max_in_flight(2);
    assert!(hedge.try_start().is_none(), "nothing learnt yet");
    (0..10).for_each(|_| hedge.in_time());
    let leaves = [hedge.try_start(), hedge.try_start()];
    assert!(leaves.iter().all(Option::is_some));
    assert!(hedge.try_start().is_none(), "two are out");
    drop(leaves);
    assert!(hedge.try_start().is_some(), "the third token");
    assert!(hedge.try_start().is_none(), "no fourth");
}

#[test]
fn a_quantile_that_is_no_number_is_the_usual_one() {
    let budget = Budget::tokens(0.0, 1);
    let (odd, usual) = (Hedge::at_quantile(f64::NAN, &budget), Hedge::p95(&budget));
    for hedge in [&odd, &usual] {
        hedge.late();
        hedge.in_time();
    }
    assert_eq!(odd.delay(), usual.delay());
}
