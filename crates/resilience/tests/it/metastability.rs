//! After an outage, does the load that retries add keep the outage going?
//!
//! A server that does 200 calls a second is offered 160. It freezes for ten seconds; its queue holds half a
//! second of work, and it does the work of callers that have long gone. Retries without a budget multiply
//! the load to a multiple of the capacity, every answer comes after its caller's timeout, and the server
//! stays busy with nothing when the outage is long over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_resilience::{
    Backoff, Breaker, Budget, Idempotent, Jitter, Policy, Retry, SplitMix, TokioClock,
};
use tokio::time::{Instant, sleep_until};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SECOND: Duration = ms(1000);
const WORK: Duration = ms(5);
const QUEUE: u32 = 100;
const OFFERED: u32 = 160;
const OUTAGE: (Duration, Duration) = (ms(5000), ms(15_000));
const END: Duration = ms(30_000);

/// One worker, first come, first served; whoever leaves is served all the same.
struct Server {
    start: Instant,
    free_at: Mutex<Instant>,
    arrivals: Mutex<Vec<Duration>>,
}

impl Server {
    async fn call(&self) -> Result<(), &'static str> {
        let now = Instant::now();
        self.arrivals.lock().unwrap().push(now - self.start);
        let done = {
            let mut free_at = self.free_at.lock().unwrap();
            let frozen = (OUTAGE.0..OUTAGE.1).contains(&(now - self.start));
            let works_from = if frozen { self.start + OUTAGE.1 } else { now };
            let begin = works_from.max(*free_at);
            if begin.saturating_duration_since(works_from) > WORK * QUEUE {
                return Err("queue full");
            }
            *free_at = begin + WORK;
            begin + WORK
        };
        sleep_until(done).await;
        Ok(())
    }
}

struct Report {
    /// Share of the offered calls that succeeded, from five seconds after the outage to the end.
    recovered: f64,
    /// Attempts per call during the outage.
    amplification: f64,
}

async fn play(retry: Retry, guarded: bool) -> Report {
    let start = Instant::now();
    let server = Server {
        start,
        free_at: Mutex::new(start),
        arrivals: Mutex::new(Vec::new()),
    };
    let server = Arc::new(server);
    let breaker = Breaker::builder("server")
        .clock(TokioClock)
        .random(SplitMix::seeded(1))
        .observe_only(!guarded);
    let policy = Policy::named("client")
        .retry(retry)
        .guard(breaker.build().unwrap(), None)
        .attempt_timeout(ms(250));
    let policy = Arc::new(policy.build());
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..OFFERED * 30 {
        let begin = SECOND / OFFERED * call;
        sleep_until(start + begin).await;
        let (policy, server) = (Arc::clone(&policy), Arc::clone(&server));
        calls.spawn(async move {
            let good = policy.run(Idempotent::Yes, |_| server.call()).await.is_ok();
            (begin, good)
        });
    }
    let (mut offered, mut good) = (0_u32, 0_u32);
    while let Some(call) = calls.join_next().await {
        let (begin, well) = call.unwrap();
        if (OUTAGE.1 + 5 * SECOND..END).contains(&begin) {
            offered += 1;
            good += u32::from(well);
        }
    }
    let arrivals = server.arrivals.lock().unwrap();
    let during = arrivals
        .iter()
        .filter(|at| (OUTAGE.0..OUTAGE.1).contains(at))
        .count();
    Report {
        recovered: f64::from(good) / f64::from(offered),
        amplification: f64::from(u32::try_from(during).unwrap()) / f64::from(OFFERED * 10),
    }
}

fn retries(budget: Option<&Budget>) -> Retry {
    let retry = budget.map_or_else(|| Retry::unbudgeted(3), |budget| Retry::new(3, budget));
    retry
        .backoff(Backoff::exponential(ms(20), ms(200)).jitter(Jitter::Full))
        .random(SplitMix::seeded(9))
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_the_outage_goes_on_by_itself() {
    let report = play(retries(None), false).await;
    assert!(
        report.recovered < 0.5,
        "the simulation shows nothing: {:.2} recovered",
        report.recovered
    );
    assert!(report.amplification > 3.0);
}

#[tokio::test(start_paused = true)]
async fn with_a_budget_goodput_is_back_within_five_seconds() {
    let report = play(retries(Some(&Budget::tokens(0.1, 10))), false).await;
    assert!(report.recovered >= 0.95, "{:.3}", report.recovered);
    // A tenth for the calls of the outage, and what the calls of the five seconds before it had left over.
    let banked = (10.0 + 0.1 * f64::from(OFFERED) * 5.0) / f64::from(OFFERED * 10);
    assert!(
        report.amplification <= 1.1 + banked,
        "{:.3}",
        report.amplification
    );
}

#[tokio::test(start_paused = true)]
async fn a_breaker_spares_the_server_the_outage_as_well() {
    let report = play(retries(Some(&Budget::tokens(0.1, 10))), true).await;
    assert!(report.recovered >= 0.95, "{:.3}", report.recovered);
    assert!(report.amplification <= 0.1, "{:.3}", report.amplification);
}
