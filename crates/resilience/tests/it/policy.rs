//! The stack, stage by stage, in paused time.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contextkeep_resilience::breaker::State;
use contextkeep_resilience::deadline::scope;
use contextkeep_resilience::replicas::Panic;
use contextkeep_resilience::{
    Again, Attempt, Backoff, Breaker, Budget, Bulkhead, Deadline, Endpoint, Error, Fallback, Hedge,
    Idempotent, Outcome, Policy, Replicas, Retry, Served, Source, SplitMix, TokioClock, Verdict, Why,
};
use tokio::time::{Instant, sleep};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn breaker(name: &'static str) -> Breaker {
    Breaker::builder(name)
        .consecutive(3)
        .clock(TokioClock)
        .build()
        .unwrap()
}

fn lenient() -> Breaker {
    Breaker::builder("lenient")
        .consecutive(None)
        .failure_rate(None)
        .clock(TokioClock)
        .build()
        .unwrap()
}

fn why<T, E>(result: Result<T, Error<E>>) -> Option<Why> {
    result.err()?.rejected().map(|rejected| rejected.why)
}

fn two_replicas() -> Replicas<&'static str> {
    let endpoints = ["a", "b"].map(|name| Endpoint::new(name, breaker(name)));
    Replicas::with(
        "set",
        endpoints,
        Panic::Never,
        ms(5000),
        TokioClock,
        SplitMix::seeded(2),
    )
}

fn retry(max: u32) -> Retry {
    Retry::unbudgeted(max).backoff(Backoff::constant(ms(10)))
}

#[tokio::test(start_paused = true)]
async fn attempts_that_time_out_are_failures_and_open_the_breaker() {
    let breaker = breaker("b"); // H, with the timeout where it belongs
    let policy = Policy::named("p")
        .guard(breaker.clone(), None)
        .attempt_timeout(ms(50))
        .build();
    for _ in 0..3 {
        let result = policy.run(Idempotent::No, |_| pending::<Result<(), ()>>()).await;
        assert_eq!(why(result), Some(Why::AttemptTimeout));
    }
    assert_eq!(breaker.state(), State::Open);
    let result = policy.run(Idempotent::No, |_| async { Ok::<_, ()>(()) }).await;
    let rejected = result.unwrap_err().into_inner().unwrap_err();
    assert_eq!(rejected.why, Why::Open);
    assert!(rejected.retry_after.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_total_timeout_covers_retries_and_the_deadline_covers_it() {
    let policy = Policy::named("p")
        .total_timeout(ms(100))
        .retry(retry(50))
        .guard(breaker("b"), None)
        .build();
    let start = Instant::now();
    let slow_failure = |_: Attempt<'_, ()>| async {
        sleep(ms(60)).await;
        Err::<(), _>("down")
    };
    assert_eq!(
        why(policy.run(Idempotent::Yes, slow_failure).await),
        Some(Why::Deadline)
    );
    assert_eq!(start.elapsed(), ms(100));
    let start = Instant::now();
    let nearer = Deadline::within(ms(30), &TokioClock);
    let result = scope(
        nearer,
        policy.run(Idempotent::Yes, |_| pending::<Result<(), ()>>()),
    )
    .await;
    assert_eq!((why(result), start.elapsed()), (Some(Why::Deadline), ms(30)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_a_hurry_does_not_open_the_breaker() {
    let breaker = breaker("b");
    let policy = Policy::named("p")
        .guard(breaker.clone(), None)
        .attempt_timeout(ms(500))
        .build();
    for _ in 0..10 {
        let hurry = Deadline::within(ms(5), &TokioClock);
        let result = scope(
            hurry,
            policy.run(Idempotent::Yes, |_| pending::<Result<(), ()>>()),
        )
        .await;
        assert_eq!(why(result), Some(Why::Deadline));
    }
    assert_eq!(breaker.snapshot().consecutive_failures, 0);
    assert_eq!(breaker.snapshot().totals.abandoned, 10);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_knows_what_time_it_has() {
    let policy = Policy::named("p")
        .total_timeout(ms(100))
        .guard(breaker("b"), None)
        .attempt_timeout(ms(500))
        .build();
    let remaining = policy
        .run(Idempotent::Yes, |attempt| async move {
            Ok::<_, ()>(attempt.remaining())
        })
        .await;
    assert_eq!(remaining, Ok(Some(ms(100))));
}

#[tokio::test(start_paused = true)]
async fn retries_stop_at_success_at_the_maximum_and_at_the_budget() {
    let calls = AtomicU32::new(0);
    let fails_until = |good: u32| {
        calls.store(0, Ordering::Relaxed);
        let calls = &calls;
        move |_: Attempt<'_, ()>| async move {
            if calls.fetch_add(1, Ordering::Relaxed) + 1 < good {
                Err("down")
            } else {
                Ok(())
            }
        }
    };
    let policy = Policy::named("p").retry(retry(4)).guard(lenient(), None).build();
    assert_eq!(policy.run(Idempotent::Yes, fails_until(3)).await, Ok(()));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert!(policy.run(Idempotent::Yes, fails_until(100)).await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 5);
    assert!(policy.run(Idempotent::No, fails_until(100)).await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let budget = Budget::tokens(0.0, 2);
    let retry = Retry::new(4, &budget).backoff(Backoff::constant(ms(1)));
    let policy = Policy::named("p").retry(retry).guard(lenient(), None).build();
    assert!(policy.run(Idempotent::Yes, fails_until(100)).await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_replica() {
    let policy = Policy::named("p")
        .retry(retry(1))
        .replicas(two_replicas())
        .build();
    for _ in 0..20 {
        let first = AtomicU32::new(u32::MAX);
        let result = policy.run(Idempotent::Yes, |attempt| {
            let index = u32::try_from(attempt.index()).unwrap();
            let before = first.swap(index, Ordering::Relaxed);
            async move {
                if attempt.number() == 1 {
                    Err("down")
                } else {
                    Ok((before, index))
                }
            }
        });
        let (before, index) = result.await.unwrap();
        assert_ne!(before, index);
        policy
            .replicas()
            .endpoints()
            .iter()
            .for_each(|endpoint| endpoint.breaker().reset());
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_read_is_hedged_at_another_replica_and_the_first_answer_wins() {
    let budget = Budget::share_of_in_flight(0.0, 1);
    let hedge = Hedge::p95(&budget).between(ms(10), ms(10)).min_samples(0);
    let policy = Policy::named("p").hedge(hedge).replicas(two_replicas()).build();
    let start = Instant::now();
    let answer = policy.run(Idempotent::Yes, |attempt| async move {
        if attempt.is_hedge() {
            sleep(ms(5)).await;
        } else {
            sleep(ms(1000)).await;
        }
        Ok::<_, ()>((attempt.is_hedge(), *attempt.endpoint()))
    });
    assert!(answer.await.unwrap().0);
    assert_eq!(start.elapsed(), ms(15));
    let idle = |endpoint: &Endpoint<_>| endpoint.in_flight() == 0;
    assert!(policy.replicas().endpoints().iter().all(idle));
    // A write is never hedged, whatever it takes.
    let start = Instant::now();
    let write = policy.run(Idempotent::No, |attempt| async move {
        sleep(ms(1000)).await;
        Ok::<_, ()>(attempt.is_hedge())
    });
    assert_eq!((write.await, start.elapsed()), (Ok(false), ms(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_hedge_does_not_spoil_the_first() {
    let budget = Budget::share_of_in_flight(0.0, 1);
    let hedge = Hedge::p95(&budget).between(ms(10), ms(10)).min_samples(0);
    let policy = Policy::named("p").hedge(hedge).replicas(two_replicas()).build();
    let answer = policy.run(Idempotent::Yes, |attempt| async move {
        if attempt.is_hedge() {
            return Err("down");
        }
        sleep(ms(100)).await;
        Ok(7)
    });
    assert_eq!(answer.await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_long_queue_have_names() {
    let bulkhead = Bulkhead::new("b", 1, 1);
    let policy = Policy::named("p")
        .guard(breaker("b"), Some(bulkhead.clone()))
        .queue_wait(ms(20))
        .build();
    let held = bulkhead.try_acquire().unwrap();
    let call = || policy.run(Idempotent::Yes, |_| async { Ok::<_, ()>(()) });
    let (first, second) = tokio::join!(call(), call());
    assert_eq!(
        (why(first), why(second)),
        (Some(Why::QueueTimeout), Some(Why::BulkheadFull))
    );
    drop(held);
    assert_eq!(call().await, Ok(()));
    assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_says_what_it_serves_and_leaves_answers_alone() {
    let not_found = |result: Result<&u32, &u32>| match result {
        Ok(_) => Outcome::SUCCESS,
        Err(404) => Outcome::NEUTRAL,
        Err(_) => Outcome::new(Verdict::Failure, Again::No),
    };
    let policy = Policy::named("p")
        .classify(not_found)
        .fallback(Fallback::max_age(ms(300_000)))
        .guard(lenient(), None)
        .build();
    let stale = |age| move |_: &Error<u32>| async move { Some(Served::stale(1, age)) };
    let served = policy
        .run_or(Idempotent::Yes, |_| async { Err(500) }, stale(ms(1000)))
        .await
        .unwrap();
    assert_eq!(
        (served.value, served.source),
        (1, Source::Stale { age: ms(1000) })
    );
    let too_old = policy
        .run_or(Idempotent::Yes, |_| async { Err(500) }, stale(ms(400_000)))
        .await;
    assert_eq!(too_old, Err(Error::Inner(500)));
    let answer = policy
        .run_or(Idempotent::Yes, |_| async { Err(404) }, stale(ms(1000)))
        .await;
    assert_eq!(answer, Err(Error::Inner(404)));
    let start = Instant::now();
    let hung = policy
        .run_or(Idempotent::Yes, |_| async { Err(500) }, |_| pending())
        .await;
    assert_eq!((hung, start.elapsed()), (Err(Error::Inner(500)), ms(100)));
    let fresh = policy
        .run_or(Idempotent::Yes, |_| async { Ok(2) }, stale(ms(1)))
        .await
        .unwrap();
    assert!(fresh.is_fresh());
}
