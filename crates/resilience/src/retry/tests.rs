use std::time::Duration;

use super::{Ended, Retry};
use crate::{Again, Backoff, Budget, Idempotent, Outcome, Verdict, Why};

const SECOND: Duration = Duration::from_secs(1);

fn ended(outcome: Outcome) -> Ended {
    Ended {
        attempts: 1,
        outcome,
        refusal: None,
        remaining: None,
    }
}

fn retry() -> Retry {
    Retry::unbudgeted(2).backoff(Backoff::constant(Duration::from_millis(10)))
}

#[test]
fn a_call_that_is_not_idempotent_repeats_only_what_had_no_effect() {
    let retry = retry();
    assert!(retry.plan(Idempotent::No, &ended(Outcome::FAILURE)).is_none());
    assert!(
        retry
            .plan(Idempotent::No, &ended(Outcome::throttled(Some(SECOND))))
            .is_none()
    );
    let rolled_back = Outcome::new(Verdict::Neutral, Again::NotApplied);
    assert!(retry.plan(Idempotent::No, &ended(rolled_back)).is_some());
    assert!(retry.plan(Idempotent::Yes, &ended(Outcome::FAILURE)).is_some());
    assert!(retry.plan(Idempotent::Yes, &ended(Outcome::NEUTRAL)).is_none());
}

#[test]
fn refusals_of_our_own_are_not_retried_but_timeouts_are() {
    let refused = |why| Ended {
        refusal: Some(why),
        ..ended(Outcome::FAILURE)
    };
    for why in [
        Why::Open,
        Why::BulkheadFull,
        Why::QueueTimeout,
        Why::Deadline,
        Why::NoEndpoint,
    ] {
        assert!(retry().plan(Idempotent::Yes, &refused(why)).is_none(), "{why:?}");
    }
    assert!(
        retry()
            .plan(Idempotent::Yes, &refused(Why::AttemptTimeout))
            .is_some()
    );
}

#[test]
fn retry_after_is_obeyed_or_ends_the_matter() {
    let throttled = ended(Outcome::throttled(Some(SECOND)));
    assert_eq!(retry().plan(Idempotent::Yes, &throttled).unwrap().delay, SECOND);
    let hurried = Ended {
        remaining: Some(SECOND),
        ..throttled
    };
    assert!(retry().plan(Idempotent::Yes, &hurried).is_none());
}

#[test]
fn attempts_are_counted_and_the_budget_is_asked() {
    let third = Ended {
        attempts: 3,
        ..ended(Outcome::FAILURE)
    };
    assert!(retry().plan(Idempotent::Yes, &third).is_none());
    let budget = Budget::tokens(0.0, 1);
    let retry = Retry::new(2, &budget);
    assert!(retry.plan(Idempotent::Yes, &ended(Outcome::FAILURE)).is_some());
    assert!(
        retry.plan(Idempotent::Yes, &ended(Outcome::FAILURE)).is_none(),
        "the token is spent"
    );
}

#[test]
fn a_pause_that_is_too_long_to_wait_for_ends_the_matter() {
    let retry = retry().max_wait(SECOND);
    let asked = |wait| retry.plan(Idempotent::Yes, &ended(Outcome::throttled(Some(wait))));
    assert_eq!(asked(SECOND).map(|planned| planned.delay), Some(SECOND));
    assert!(asked(Duration::MAX).is_none());
}
