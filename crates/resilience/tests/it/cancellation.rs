//! Every layer, dropped after every number of polls, gives back everything it took.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use contextkeep_resilience::replicas::Panic;
use contextkeep_resilience::tower::{
    Always, BreakerLayer, BulkheadLayer, FallbackLayer, HedgeLayer, LiftLayer, RetryLayer, TimeoutLayer,
};
use contextkeep_resilience::{
    AnyError, Attempt, Backoff, Breaker, Budget, Bulkhead, Endpoint, Error, Extra, Fallback, Gate, Guard,
    Hedge, Idempotent, Policy, Replicas, Retry, Served, SplitMix, TokioClock, gate,
};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One breaker, bulkhead, budget and hedge, and whether they are as new.
struct World {
    breaker: Breaker,
    bulkhead: Bulkhead,
    budget: Budget,
    hedge: Hedge,
}

impl World {
    fn new() -> Self {
        let budget = Budget::share_of_in_flight(0.0, 2);
        Self {
            breaker: Breaker::builder("w")
                .consecutive(None)
                .failure_rate(None)
                .clock(TokioClock)
                .build()
                .unwrap(),
            bulkhead: Bulkhead::new("w", 2, 2),
            hedge: Hedge::p95(&budget).between(ms(10), ms(10)).min_samples(0),
            budget,
        }
    }

    fn retry(&self) -> Retry {
        Retry::new(2, &self.budget).backoff(Backoff::constant(ms(5)))
    }

    fn check(&self, polls: usize) {
        assert_eq!(
            (self.bulkhead.in_use(), self.bulkhead.waiting()),
            (0, 0),
            "after {polls} polls"
        );
        assert_eq!(self.breaker.snapshot().probes_in_flight, 0, "after {polls} polls");
        let extra = [
            self.budget.try_spend(Extra::Retry),
            self.budget.try_spend(Extra::Hedge),
        ];
        assert!(
            extra.iter().all(Option::is_some),
            "budget lost after {polls} polls"
        );
        drop(extra);
        let leaves = [self.hedge.try_start(), self.hedge.try_start()];
        assert!(
            leaves.iter().all(Option::is_some),
            "hedge lost after {polls} polls"
        );
    }
}

/// An attempt that is pending several times, in several ways.
async fn work(number: u32) -> Result<u32, &'static str> {
    tokio::task::yield_now().await;
    sleep(ms(30)).await;
    tokio::task::yield_now().await;
    if number == 1 { Err("down") } else { Ok(number) }
}

/// Polls `make`'s future so many times and drops it; `true` if it was done by then.
fn dropped_after<F: Future>(polls: usize, make: impl FnOnce() -> F) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut future = pin!(make());
        let mut polled = 0;
        poll_fn(move |context| {
            if polled == polls {
                return Poll::Ready(false);
            }
            polled += 1;
            match future.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if polled == polls => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    })
}

/// Drops at every number of polls, from none, until the future is done; at least `least` of them.
fn drop_everywhere<F: Future>(least: usize, make: impl Fn(&World) -> F) {
    for polls in 0.. {
        let world = World::new();
        let done = dropped_after(polls, || make(&world));
        world.check(polls);
        if done {
            assert!(
                polls >= least,
                "the future was done after {polls} polls: nothing was tried"
            );
            return;
        }
    }
}

/// Counts up, so that the first attempt fails and the later ones do not.
fn counting() -> impl Service<(), Response = u32, Error = &'static str, Future: Send> + Clone {
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    service_fn(move |()| {
        let number = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        work(number)
    })
}

#[test]
fn a_guarded_call_gives_everything_back() {
    drop_everywhere(3, |world| {
        let guard = Guard::new(world.breaker.clone(), world.bulkhead.clone()).queue_wait(ms(50));
        async move { gate::run(&guard as &dyn Gate, &AnyError, || work(2)).await }
    });
}

#[test]
fn a_queued_call_leaves_the_queue() {
    drop_everywhere(3, |world| {
        let guard = Guard::new(world.breaker.clone(), world.bulkhead.clone()).queue_wait(ms(50));
        let held = [
            world.bulkhead.try_acquire().unwrap(),
            world.bulkhead.try_acquire().unwrap(),
        ];
        async move {
            let release = async {
                sleep(ms(10)).await;
                drop(held);
            };
            tokio::join!(gate::run(&guard as &dyn Gate, &AnyError, || work(2)), release)
        }
    });
}

#[test]
fn a_policy_gives_everything_back() {
    drop_everywhere(8, |world| {
        let endpoint = |name| Endpoint::new(name, world.breaker.clone()).bulkhead(world.bulkhead.clone());
        let endpoints = [endpoint("a"), endpoint("b")];
        let set = Replicas::with(
            "set",
            endpoints,
            Panic::Never,
            ms(100),
            TokioClock,
            SplitMix::seeded(1),
        );
        let policy = Policy::named("p")
            .fallback(Fallback::max_age(ms(1000)))
            .total_timeout(ms(10_000))
            .retry(world.retry())
            .hedge(world.hedge.clone())
            .replicas(set)
            .queue_wait(ms(50))
            .attempt_timeout(ms(500))
            .build();
        async move {
            let op = |attempt: Attempt<'_, _>| work(attempt.number());
            let last = |_: &Error<_>| async { Some(Served::default_value(0)) };
            let result = policy.run_or(Idempotent::Yes, op, last).await;
            assert!(
                policy
                    .replicas()
                    .endpoints()
                    .iter()
                    .all(|endpoint| endpoint.in_flight() == 0)
            );
            result
        }
    });
}

#[test]
fn each_layer_gives_everything_back() {
    drop_everywhere(3, |world| {
        let layers = ServiceBuilder::new()
            .layer(BreakerLayer::new(world.breaker.clone(), AnyError))
            .layer(LiftLayer);
        layers.service(counting()).oneshot(())
    });
    drop_everywhere(3, |world| {
        let layer = BulkheadLayer::new(world.bulkhead.clone()).queue_wait(ms(50));
        ServiceBuilder::new()
            .layer(layer)
            .layer(LiftLayer)
            .service(counting())
            .oneshot(())
    });
    drop_everywhere(3, |_| LiftLayer.layer(counting()).oneshot(()));
    drop_everywhere(3, |world| {
        let layer = BreakerLayer::new(world.breaker.clone(), AnyError).unready_while_open();
        let layers = ServiceBuilder::new().layer(layer).layer(LiftLayer);
        world.breaker.isolate();
        let breaker = world.breaker.clone();
        let service = layers.service(counting());
        async move {
            let release = async {
                sleep(ms(10)).await;
                breaker.release();
            };
            tokio::join!(service.oneshot(()), release).0
        }
    });
    drop_everywhere(3, |_| {
        let layers = ServiceBuilder::new()
            .layer(TimeoutLayer::attempt("t", ms(20)))
            .layer(LiftLayer);
        layers.service(counting()).oneshot(())
    });
    drop_everywhere(3, |_| {
        let layers = ServiceBuilder::new()
            .layer(TimeoutLayer::total("t", ms(20)))
            .layer(LiftLayer);
        layers.service(counting()).oneshot(())
    });
    drop_everywhere(7, |world| {
        let layers = ServiceBuilder::new()
            .layer(RetryLayer::new(world.retry(), AnyError, Always))
            .layer(LiftLayer);
        layers.service(counting()).oneshot(())
    });
    drop_everywhere(4, |world| {
        let layers = ServiceBuilder::new()
            .layer(HedgeLayer::new(world.hedge.clone(), Always))
            .layer(LiftLayer);
        layers.service(counting()).oneshot(())
    });
    drop_everywhere(4, |_| {
        let serve = |(), _: &Error<_>| async {
            tokio::task::yield_now().await;
            Some(Served::default_value(0))
        };
        let layers = ServiceBuilder::new()
            .layer(FallbackLayer::new(Fallback::max_age(ms(1)), serve))
            .layer(LiftLayer);
        layers.service(counting()).oneshot(())
    });
}

#[test]
fn the_whole_tower_gives_everything_back() {
    drop_everywhere(8, |world| {
        ServiceBuilder::new()
            .layer(TimeoutLayer::total("t", ms(10_000)))
            .layer(RetryLayer::new(world.retry(), AnyError, Always))
            .layer(HedgeLayer::new(world.hedge.clone(), Always))
            .layer(BreakerLayer::new(world.breaker.clone(), AnyError))
            .layer(BulkheadLayer::new(world.bulkhead.clone()))
            .layer(TimeoutLayer::attempt("t", ms(500)))
            .layer(LiftLayer)
            .service(counting())
            .oneshot(())
    });
}

#[test]
fn a_panic_in_the_call_is_a_failure_and_gives_everything_back() {
    let world = World::new();
    let guard = Guard::new(world.breaker.clone(), world.bulkhead.clone());
    let polls = Cell::new(0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        dropped_after(9, || async {
            let op = || async {
                polls.set(1);
                tokio::task::yield_now().await;
                panic!("the call's own");
            };
            gate::run::<(), (), _, _>(&guard as &dyn Gate, &AnyError, op).await
        })
    }));
    assert!(panicked.is_err() && polls.get() == 1);
    world.check(2);
    assert_eq!(world.breaker.snapshot().totals.failure, 1);
}
