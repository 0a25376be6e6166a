use std::time::Duration;

use contextkeep_resilience::breaker::State;

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn settings() -> BreakerSettings {
    BreakerSettings {
        max_concurrent_requests: 2,
        ..BreakerSettings::default()
    }
}

fn gate(settings: &BreakerSettings) -> Gate {
    Gate::of_server(&"primary".into(), settings, PATIENCE).unwrap()
}

async fn fail(gate: &Gate, kind: Kind) {
    let entered = gate.enter().await.unwrap();
    entered.end::<()>(&Err(Fault::new(kind, "on purpose")));
}

#[tokio::test(start_paused = true)]
async fn a_run_of_failures_closes_the_way_and_says_for_how_long() {
    let gate = gate(&settings());
    for _ in 0..5 {
        fail(&gate, Kind::TimedOut).await;
    }
    let fault = gate.enter().await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Open);
    let status = gate.status();
    assert_eq!(
        (status.breaker, status.refused, status.running),
        (State::Open, 1, 0)
    );
    let Error::Unavailable { detail, retry_after } = Error::from(fault) else {
        panic!("a dependency that fails is unavailable")
    };
    assert!(
        detail.contains("primary") && detail.contains("on purpose"),
        "{detail}"
    );
    let (least, most) = (Duration::from_secs(54), Duration::from_mins(1));
    assert!((least..=most).contains(&retry_after), "{retry_after:?}");
    tokio::time::advance(most).await;
    gate.enter().await.unwrap().end_by(None);
    gate.enter().await.unwrap().end_by(None);
    assert_eq!(gate.status().breaker, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn who_asks_whether_it_would_let_in_takes_and_counts_nothing() {
    let gate = gate(&settings());
    let held = [gate.enter().await, gate.enter().await];
    gate.would_admit().unwrap();
    drop(held);
    for _ in 0..5 {
        fail(&gate, Kind::TimedOut).await;
    }
    let fault = gate.would_admit().unwrap_err();
    assert_eq!(fault.kind(), Kind::Open);
    assert!(fault.to_string().contains("on purpose"), "{fault}");
    assert_eq!(gate.status().refused, 0);
    tokio::time::advance(Duration::from_mins(1)).await;
    // Only calls can tell now.
    gate.would_admit().unwrap();
    assert_eq!(gate.status().breaker, State::Open);
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_the_server_does_not_count() {
    let gate = gate(&settings());
    for _ in 0..50 {
        for kind in [
            Kind::PoolTimeout,
            Kind::Busy,
            Kind::Spill,
            Kind::Constraint,
            Kind::Full,
            Kind::Damaged,
            Kind::Deadline,
        ] {
            fail(&gate, kind).await;
        }
    }
    assert_eq!(gate.status().breaker, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn those_beyond_the_limit_wait_for_a_time_and_are_refused_then() {
    let gate = gate(&settings());
    let (first, second) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
    let begun = Instant::now();
    let fault = gate.enter().await.unwrap_err();
    assert_eq!((fault.kind(), begun.elapsed()), (Kind::Crowded, PATIENCE));
    assert!(matches!(Error::from(fault), Error::Overloaded { .. }));
    let (third, ()) = tokio::join!(gate.enter(), async {
        assert_eq!(gate.status().waiting, 1);
        first.end_by(None);
    });
    assert_eq!(gate.status().running, 2);
    second.end_by(None);
    third.unwrap().end_by(None);
    assert_eq!((gate.status().running, gate.status().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refused_where_it_is_switched_off() {
    let gate = gate(&BreakerSettings {
        enabled: false,
        ..settings()
    });
    for _ in 0..20 {
        fail(&gate, Kind::Unreachable).await;
    }
    let held = [gate.enter().await, gate.enter().await, gate.enter().await];
    assert!(held.iter().all(Result::is_ok));
    gate.would_admit().unwrap();
    assert_eq!((gate.status().limit, gate.status().refused), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_few_searches_that_take_too_long_do_not_end_everybody_s() {
    let late = || Err::<(), _>(Fault::new(Kind::Cancelled, "too long"));
    let gate = Gate::of_searches(&settings(), 12, PATIENCE).unwrap();
    for _ in 0..5 {
        gate.enter().await.unwrap().end_search(&late());
    }
    assert_eq!(gate.status().breaker, State::Closed);
    for _ in 0..200 {
        if let Ok(entered) = gate.enter().await {
            entered.end_search(&late());
        }
    }
    assert_eq!(gate.status().breaker, State::Open, "all of them fail");
}

// Y4.
#[tokio::test(start_paused = true)]
async fn searches_are_not_shut_out_for_longer_than_the_server_is() {
    let gate = Gate::of_searches(&settings(), 12, PATIENCE).unwrap();
    for kind in [
        Kind::Unreachable,
        Kind::Lost,
        Kind::Silent,
        Kind::Starting,
        Kind::Open,
        Kind::Crowded,
    ] {
        for _ in 0..200 {
            let entered = gate.enter().await.unwrap();
            entered.end_search::<()>(&Err(Fault::new(kind, "on purpose")));
        }
        assert_eq!(gate.status().breaker, State::Closed, "{kind:?}");
    }
}

#[test]
fn searches_leave_half_of_the_pool_to_the_others() {
    let limit = |most, connections| {
        let settings = BreakerSettings {
            max_concurrent_requests: most,
            ..BreakerSettings::default()
        };
        let gate = Gate::of_searches(&settings, connections, PATIENCE).unwrap();
        gate.status().limit
    };
    assert_eq!(
        [limit(100, 50), limit(10, 50), limit(100, 1)],
        [Some(25), Some(10), Some(1)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_seen_to_work_is_used_again_unless_it_was_its_statements_that_hung() {
    for (kind, closes) in [(Kind::Lost, true), (Kind::Silent, true), (Kind::TimedOut, false)] {
        let gate = gate(&settings());
        for _ in 0..5 {
            fail(&gate, kind).await;
        }
        gate.seen_to_work();
        assert_eq!(gate.status().breaker, State::Open, "it has only just failed");
        tokio::time::advance(SETTLED).await;
        gate.seen_to_work();
        assert_eq!(gate.status().breaker == State::Closed, closes, "{kind:?}");
    }
}
