//! Real dependencies that freeze, hang, ask for a pause or reset, behind a policy under load.
//!
//! Each test asserts how the breaker behaves and prints what it took:
//! `cargo test -p contextkeep-resilience --all-features --test it live -- --include-ignored --nocapture`.

mod http;
mod postgres;
mod redis;

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_resilience::breaker::{State, Transition};
use contextkeep_resilience::{Breaker, Bulkhead, Clock, Idempotent, Nanos, Outcome, Policy, SystemClock};
use contextkeep_test_support::eventually_async;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// So many callers, each of which comes back at once, want the dependency all the time.
const CALLERS: usize = 32;
const SLOTS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(30);

/// Something real that can be made not to answer.
trait Dependency: Send + Sync + 'static {
    /// One call; its error is already judged.
    fn call(&self) -> impl Future<Output = Result<(), Outcome>> + Send;

    /// From now on it does not answer, or not as it should.
    fn fail(&self);

    /// Ends that, and returns when it has ended.
    fn heal(&self) -> impl Future<Output = ()> + Send;
}

/// What reaches the dependency.
#[derive(Default)]
struct Traffic {
    inside: AtomicU32,
    succeeded: AtomicU32,
    /// Calls let through by a breaker that was not closed.
    probes: AtomicU32,
    /// The most calls at once that one of these found.
    crowd: AtomicU32,
    /// The most calls at once ever.
    peak: AtomicU32,
}

/// A call that is with the dependency until this is dropped.
struct Inside<'a>(&'a Traffic);

impl Traffic {
    fn enter(&self, breaker: &Breaker) -> Inside<'_> {
        // Counted before the state is read: whoever is seen inside came in no later than this call.
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(inside, Ordering::SeqCst);
        if breaker.state() != State::Closed {
            self.probes.fetch_add(1, Ordering::SeqCst);
            self.crowd.fetch_max(inside, Ordering::SeqCst);
        }
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Outage<D> {
    dependency: D,
    breaker: Breaker,
    traffic: Traffic,
    heard: Arc<Mutex<Vec<Transition>>>,
}

type Judge = fn(Result<&(), &Outcome>) -> Outcome;

impl<D: Dependency> Outage<D> {
    fn new(dependency: D, breaker: Breaker) -> Arc<Self> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        breaker
            .on_transition(move |event| ear.lock().unwrap().push(event.clone()))
            .forever();
        Arc::new(Self {
            dependency,
            breaker,
            traffic: Traffic::default(),
            heard,
        })
    }

    /// Callers without end.
    fn load(self: &Arc<Self>, attempt_timeout: Duration) -> JoinSet<()> {
        let judge: Judge = |result| result.err().copied().unwrap_or(Outcome::SUCCESS);
        let policy = Policy::named("live")
            .classify(judge)
            .guard(self.breaker.clone(), Some(Bulkhead::new("live", SLOTS, SLOTS)))
            .queue_wait(Duration::from_millis(100))
            .attempt_timeout(attempt_timeout)
            .build();
        let policy = Arc::new(policy);
        let caller = |_| {
            let (this, policy) = (Arc::clone(self), Arc::clone(&policy));
            async move {
                loop {
                    let call = policy.run(Idempotent::No, |_| async {
                        let _inside = this.traffic.enter(&this.breaker);
                        this.dependency.call().await
                    });
                    if call.await.is_ok() {
                        this.traffic.succeeded.fetch_add(1, Ordering::SeqCst);
                    }
                    sleep(Duration::from_millis(5)).await; // the rate of the load
                }
            }
        };
        (0..CALLERS).map(caller).collect()
    }

    /// When the breaker went from one of these states into the other, each time.
    fn times(&self, from: State, to: State) -> Vec<Nanos> {
        let heard = self.heard.lock().unwrap();
        let found = heard.iter().filter(|event| event.from == from && event.to == to);
        found.map(|event| event.at).collect()
    }

    async fn until(&self, what: &str, mut seen: impl FnMut() -> bool) {
        eventually_async(what, PATIENCE, async || seen().then_some(())).await;
    }

    async fn until_flowing(&self) {
        let before = self.traffic.succeeded.load(Ordering::SeqCst);
        self.until("calls that succeed", || {
            self.breaker.state() == State::Closed
                && self.traffic.succeeded.load(Ordering::SeqCst) >= before + 100
        })
        .await;
    }
}

/// An outage that lasts until two rounds of probes have failed, under load throughout.
async fn endure<D: Dependency>(
    what: &str,
    dependency: D,
    breaker: Breaker,
    attempt_timeout: Duration,
    probes: u32,
) {
    let outage = Outage::new(dependency, breaker);
    let mut load = outage.load(attempt_timeout);
    outage.until_flowing().await;

    let failed_at = SystemClock.now();
    outage.dependency.fail();
    let opened = || outage.times(State::Closed, State::Open);
    outage.until("the breaker to open", || !opened().is_empty()).await;
    let reopened = || outage.times(State::HalfOpen, State::Open).len();
    outage
        .until("two rounds of probes to fail", || reopened() >= 2)
        .await;
    outage.dependency.heal().await;
    let healed_at = SystemClock.now();
    // In this order: a round that begins between the two readings only widens the bound.
    let reached = outage.traffic.probes.load(Ordering::SeqCst);
    let rounds = outage.times(State::Open, State::HalfOpen).len();
    assert!(
        reached >= 1 && reached <= probes * u32::try_from(rounds).unwrap(),
        "{reached} calls reached the dead host in {rounds} rounds of {probes}"
    );

    outage.until_flowing().await;
    let crowd = outage.traffic.crowd.load(Ordering::SeqCst);
    assert!(crowd <= probes, "a herd of {crowd} at recovery");
    let peak = outage.traffic.peak.load(Ordering::SeqCst);
    assert!(peak <= SLOTS, "the bulkhead let {peak} in");
    load.abort_all();
    while load.join_next().await.is_some() {}

    let opened_at = opened()[0];
    let closed_at = *outage.times(State::HalfOpen, State::Closed).last().unwrap();
    let dead = healed_at.since(opened_at).as_secs_f64();
    println!(
        "live: {what} | open after {:.2?} | {reached} calls in {dead:.1} s dead, {:.1} a second | closed after {:.2?} | at most {crowd} at once before",
        opened_at.since(failed_at),
        f64::from(reached) / dead,
        closed_at.since(healed_at),
    );
}
