use super::{Budget, Extra};

#[test]
fn deposits_of_six_tenths_allow_six_tenths_of_retries() {
    let budget = Budget::tokens(0.6, 0); // defect F: 1000 deposits allowed 1000 retries elsewhere
    for _ in 0..1000 {
        drop(budget.call());
    }
    let granted = (0..1000)
        .filter(|_| budget.try_spend(Extra::Retry).is_some())
        .count();
    assert_eq!(granted, 600);
}

#[test]
fn tokens_do_not_pile_up_for_ever() {
    let budget = Budget::tokens(0.1, 5);
    for _ in 0..1_000_000 {
        drop(budget.call());
    }
    let granted = (0..1_000_000)
        .take_while(|_| budget.try_spend(Extra::Hedge).is_some())
        .count();
    assert_eq!(granted, 105);
}

#[test]
fn a_retry_after_a_timeout_costs_twice() {
    let budget = Budget::tokens(0.0, 4);
    let granted = (0..10)
        .take_while(|_| budget.try_spend(Extra::AfterTimeout).is_some())
        .count();
    assert_eq!(granted, 2);
}

#[test]
fn a_share_follows_the_calls_in_flight() {
    let budget = Budget::share_of_in_flight(0.2, 3);
    let calls: Vec<_> = (0..100).map(|_| budget.call()).collect();
    let extra: Vec<_> = std::iter::from_fn(|| budget.try_spend(Extra::Retry)).collect();
    assert_eq!(extra.len(), 20);
    drop((extra, calls));
    let extra: Vec<_> = std::iter::from_fn(|| budget.try_spend(Extra::Retry)).collect();
    assert_eq!(extra.len(), 3);
}
