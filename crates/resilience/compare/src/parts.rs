//! What is not a breaker: backoff, budget, limit and hedge, ours and tower's.

use std::collections::BTreeSet;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use contextkeep_resilience::tower::{BulkheadLayer, LiftLayer};
use contextkeep_resilience::{
    Backoff, Breaker, Budget, Bulkhead, Extra, Hedge, Idempotent, Policy, Random, SplitMix,
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::ms;

/// Prints each, ours first.
pub fn run() {
    println!("## parts: ours, tower 0.5.3");
    let [ours, theirs] = e_distinct_delays();
    println!("E    {ours} / {theirs} distinct first delays of 1000 requests");
    let [ours, theirs] = f_granted();
    println!("F    {ours} / {theirs} retries for 1000 deposits at 0.6");
    let [ours, theirs] = g_idle_clone();
    println!("G    {ours} / {theirs}: a limit of one, and a clone that is ready and idle");
    for (name, draw) in DISTRIBUTIONS {
        let [ours, theirs] = k_hedges(draw);
        println!("K    {ours:.1} % / {theirs:.1} % of the calls hedged at p95, {name} latencies");
    }
}

fn paused<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(future)
}

fn e_distinct_delays() -> [usize; 2] {
    use tower::retry::backoff::{Backoff as _, ExponentialBackoffMaker, MakeBackoff};
    use tower::util::rng::HasherRng;
    let random = SplitMix::from_entropy();
    let backoff = Backoff::exponential(ms(100), ms(10_000));
    let ours: BTreeSet<_> = (0..1000).map(|_| backoff.delay(0, &random)).collect();
    let theirs: BTreeSet<_> = paused(async {
        let mut maker = ExponentialBackoffMaker::<HasherRng>::new(ms(100), ms(10_000), 0.5, HasherRng::new())
            .expect("valid");
        (0..1000)
            .map(|_| maker.make_backoff().next_backoff().deadline())
            .collect()
    });
    [ours.len(), theirs.len()]
}

fn f_granted() -> [usize; 2] {
    use tower::retry::budget::{Budget as _, TpsBudget};
    let budget = Budget::tokens(0.6, 0);
    (0..1000).for_each(|_| drop(budget.call()));
    let ours = (0..2000).filter(|_| budget.try_spend(Extra::Retry).is_some()).count();
    let budget = TpsBudget::new(Duration::from_secs(10), 0, 0.6);
    (0..1000).for_each(|_| budget.deposit());
    [ours, (0..2000).filter(|_| budget.withdraw()).count()]
}

/// Whether another clone can call while one is ready and makes no call.
fn g_idle_clone() -> [&'static str; 2] {
    fn served<S: Service<(), Response = ()> + Clone>(service: S) -> &'static str {
        let mut context = Context::from_waker(Waker::noop());
        let mut idle = service.clone();
        assert!(idle.poll_ready(&mut context).is_ready());
        let called = pin!(service.oneshot(())).poll(&mut context).is_ready();
        if called { "served" } else { "starves" }
    }
    let inner = service_fn(|()| ready(Ok::<_, std::fmt::Error>(())));
    let ours = ServiceBuilder::new()
        .layer(BulkheadLayer::new(Bulkhead::new("one", 1, 0)))
        .layer(LiftLayer);
    let theirs = ServiceBuilder::new().concurrency_limit(1);
    [served(ours.service(inner)), served(theirs.service(inner))]
}

type Draw = fn(&SplitMix) -> Duration;

const DISTRIBUTIONS: [(&str, Draw); 3] = [
    ("exponential", |random| {
        ms(20).mul_f64(-(1.0 - random.unit()).ln())
    }),
    ("uniform", |random| ms(40).mul_f64(random.unit())),
    ("two-peaked", |random| {
        let peak = if random.unit() < 0.1 { 100.0 } else { 10.0 };
        Duration::from_secs_f64(peak * (0.8 + 0.4 * random.unit()) / 1e3)
    }),
];

/// How many of 20,000 calls, one after the other in virtual time, were joined by a second, after 2,000 to
/// learn from.
fn k_hedges(draw: Draw) -> [f64; 2] {
    const LEARN: u32 = 2_000;
    const CALLS: u32 = 20_000;
    let work = || {
        let (calls, random) = (Arc::new(AtomicU32::new(0)), Arc::new(SplitMix::seeded(7)));
        let counter = Arc::clone(&calls);
        let work = move || {
            calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(draw(&random))
        };
        (counter, work)
    };
    let share = |counter: &AtomicU32, learned: u32| {
        f64::from(counter.load(Ordering::Relaxed) - learned - CALLS) / f64::from(CALLS) * 100.0
    };
    let ours = paused(async {
        let (counter, work) = work();
        let budget = Budget::share_of_in_flight(1.0, 1000);
        let policy = Policy::named("k")
            .hedge(Hedge::p95(&budget).max_in_flight(1000))
            .guard(Breaker::builder("k").build().expect("valid"), None)
            .build();
        let mut learned = 0;
        for call in 0..LEARN + CALLS {
            if call == LEARN {
                learned = counter.load(Ordering::Relaxed);
            }
            let attempt = |_| async {
                work().await;
                Ok::<_, ()>(())
            };
            policy.run(Idempotent::Yes, attempt).await.expect("it works");
        }
        share(&counter, learned)
    });
    let theirs = paused(async {
        let (counter, work) = work();
        let service = service_fn(move |()| {
            let work = work();
            async {
                work.await;
                Ok::<_, std::fmt::Error>(())
            }
        });
        let mut hedge = tower::hedge::Hedge::new(service, EveryRequest, 100, 0.95, Duration::from_secs(60));
        let mut learned = 0;
        for call in 0..LEARN + CALLS {
            if call == LEARN {
                learned = counter.load(Ordering::Relaxed);
            }
            let ready = hedge.ready().await.expect("it is ready");
            ready.call(()).await.expect("it works");
        }
        share(&counter, learned)
    });
    [ours, theirs]
}

#[derive(Clone)]
struct EveryRequest;

impl tower::hedge::Policy<()> for EveryRequest {
    fn clone_request(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn can_retry(&self, (): &()) -> bool {
        true
    }
}
