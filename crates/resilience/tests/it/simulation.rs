//! A fleet of clients and hosts that misbehave, in virtual time.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_resilience::breaker::{HalfOpen, State};
use contextkeep_resilience::replicas::Panic;
use contextkeep_resilience::{
    Again, Backoff, Breaker, Endpoint, Idempotent, Jitter, Outcome, Policy, Replicas, SplitMix, TokioClock,
    Verdict,
};
use tokio::time::{Instant, sleep, sleep_until};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SECOND: Duration = ms(1000);

/// What a host does with a call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Health {
    Well,
    /// Never answers, as behind a partition.
    Silent,
    /// Answers late.
    Slow,
    /// Answers 429 and asks for this much time.
    Busy(Duration),
    /// Breaks connections.
    Resets,
}

#[derive(Debug, PartialEq)]
enum Trouble {
    Reset,
    TooMany(Duration),
}

fn judge<T>(result: Result<&T, &Trouble>) -> Outcome {
    match result {
        Ok(_) => Outcome::SUCCESS,
        Err(Trouble::Reset) => Outcome::new(Verdict::Failure, Again::IfIdempotent),
        Err(Trouble::TooMany(wait)) => Outcome::throttled(Some(*wait)),
    }
}

/// A host whose health is a function of time, and which remembers every call that reached it.
struct Host {
    start: Instant,
    health: fn(Duration) -> Health,
    hits: Mutex<Vec<Duration>>,
}

impl Host {
    fn new(health: fn(Duration) -> Health) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            health,
            hits: Mutex::new(Vec::new()),
        })
    }

    async fn call(&self) -> Result<(), Trouble> {
        let now = self.start.elapsed();
        self.hits.lock().unwrap().push(now);
        match (self.health)(now) {
            Health::Well => sleep(ms(5)).await,
            Health::Silent => pending().await,
            Health::Slow => sleep(ms(80)).await,
            Health::Busy(wait) => return Err(Trouble::TooMany(wait)),
            Health::Resets => return Err(Trouble::Reset),
        }
        Ok(())
    }

    fn hits(&self, from: Duration, to: Duration) -> usize {
        self.hits
            .lock()
            .unwrap()
            .iter()
            .filter(|at| (from..to).contains(at))
            .count()
    }

    /// The most hits in any slice of that length.
    fn peak(&self, from: Duration, to: Duration, slice: Duration) -> usize {
        let slices = to.checked_sub(from).unwrap().as_millis() / slice.as_millis();
        let slices = u32::try_from(slices).unwrap();
        (0..slices)
            .map(|number| self.hits(from + slice * number, from + slice * (number + 1)))
            .max()
            .unwrap_or(0)
    }
}

const CLIENTS: u32 = 20;
/// Calls a second of each client.
const RATE: u32 = 50;

type Changes = Arc<Mutex<Vec<(u32, State, Duration)>>>;

/// Runs the fleet for that long; every change of any client's breaker.
async fn run_fleet(hosts: &[Arc<Host>], length: Duration) -> Vec<(u32, State, Duration)> {
    let changes = Changes::default();
    let start = hosts[0].start;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            tokio::spawn(run_client(
                client,
                hosts.to_vec(),
                start,
                length,
                Arc::clone(&changes),
            ))
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    Arc::try_unwrap(changes).unwrap().into_inner().unwrap()
}

async fn run_client(client: u32, hosts: Vec<Arc<Host>>, start: Instant, length: Duration, changes: Changes) {
    let endpoint = |(index, host): (usize, Arc<Host>)| {
        let seed = u64::from(client) * 31 + index as u64;
        let breaker = Breaker::builder(format!("host-{index}"))
            .consecutive(5)
            .open(Backoff::exponential(SECOND, 4 * SECOND).jitter(Jitter::Upper(0.5)))
            .half_open(HalfOpen::probes(3, 2, SECOND))
            .clock(TokioClock)
            .random(SplitMix::seeded(seed))
            .build()
            .unwrap();
        let changes = Arc::clone(&changes);
        let listener = move |event: &contextkeep_resilience::breaker::Transition| {
            changes.lock().unwrap().push((client, event.to, start.elapsed()));
        };
        breaker.on_transition(listener).forever();
        Endpoint::new(host, breaker)
    };
    let endpoints = hosts.into_iter().enumerate().map(endpoint);
    let set = Replicas::with(
        "hosts",
        endpoints,
        Panic::Never,
        SECOND,
        TokioClock,
        SplitMix::seeded(client.into()),
    );
    let policy = Policy::named("client")
        .classify(judge::<()>)
        .replicas(set)
        .attempt_timeout(ms(100))
        .build();
    let policy = Arc::new(policy);
    let period = SECOND / RATE;
    let mut calls = tokio::task::JoinSet::new();
    for call in 0.. {
        let due = period * call + period * client / CLIENTS;
        if due >= length {
            break;
        }
        sleep_until(start + due).await;
        let policy = Arc::clone(&policy);
        calls.spawn(async move {
            let call = policy.run(Idempotent::Yes, |attempt| async move {
                attempt.endpoint().call().await
            });
            call.await.is_ok()
        });
    }
    while calls.join_next().await.is_some() {}
}

const STEADY: usize = (CLIENTS * RATE) as usize;

#[tokio::test(start_paused = true)]
async fn a_partition_opens_fast_is_left_alone_and_heals_without_a_herd() {
    let (cut, heal, end) = (3 * SECOND, 13 * SECOND, 23 * SECOND);
    let host = Host::new(|now| {
        if (3..13).contains(&now.as_secs()) {
            Health::Silent
        } else {
            Health::Well
        }
    });
    let changes = run_fleet(&[Arc::clone(&host)], end).await;
    for client in 0..CLIENTS {
        let first = |state, after| {
            let mine = changes
                .iter()
                .filter(|(who, to, at)| *who == client && *to == state && *at >= after);
            mine.map(|(_, _, at)| *at).min().unwrap()
        };
        let opened = first(State::Open, cut).checked_sub(cut).unwrap();
        // Five calls 20 ms apart, the last of which times out after 100 ms.
        assert!(opened <= ms(220), "opened after {opened:?}");
        let closed = first(State::Closed, heal).checked_sub(heal).unwrap();
        // The longest open time, and two probes.
        assert!(closed <= ms(4100), "closed after {closed:?}");
    }
    let probes = host.hits(cut + SECOND, heal);
    let per_client_second = f64::from(u32::try_from(probes).unwrap()) / f64::from(CLIENTS) / 9.0;
    assert!(
        per_client_second <= 2.0,
        "{per_client_second} probes a second and client"
    );
    let herd = host.peak(heal, end, ms(100));
    assert!(
        herd * 10 <= STEADY * 3 / 2,
        "{herd} calls in 100 ms at recovery, {} when steady",
        STEADY / 10
    );
    assert!(host.hits(end.checked_sub(2 * SECOND).unwrap(), end) >= STEADY * 2 * 99 / 100);
}

#[tokio::test(start_paused = true)]
async fn a_flapping_host_is_not_followed() {
    let end = 20 * SECOND;
    let host = Host::new(|now| {
        if now.as_millis() / 300 % 2 == 0 {
            Health::Well
        } else {
            Health::Resets
        }
    });
    let changes = run_fleet(&[Arc::clone(&host)], end).await;
    for client in 0..CLIENTS {
        let opened = changes
            .iter()
            .filter(|(who, to, _)| *who == client && *to == State::Open)
            .count();
        // Sixty-six flaps; a breaker that followed would open thirty-three times.
        assert!(opened <= 14, "client {client} opened {opened} times");
    }
    assert!(
        host.hits(10 * SECOND, end) < STEADY * 10 / 3,
        "most of the traffic is spared"
    );
}

#[tokio::test(start_paused = true)]
async fn a_429_storm_is_waited_out_as_asked() {
    let (storm, over, end) = (2 * SECOND, 12 * SECOND, 20 * SECOND);
    let busy = |now: Duration| {
        if (2..12).contains(&now.as_secs()) {
            Health::Busy(ms(3000))
        } else {
            Health::Well
        }
    };
    let host = Host::new(busy);
    run_fleet(&[Arc::clone(&host)], end).await;
    let per_client = host.hits(storm, over) / CLIENTS as usize;
    // Ten seconds at three seconds a wait: the call that met it, then two failed probes at most each time.
    assert!(
        per_client <= 1 + 2 * 4,
        "{per_client} calls into the storm by each client"
    );
    let herd = host.peak(over, end, ms(100));
    assert!(
        herd * 10 <= STEADY * 3 / 2,
        "{herd} calls in 100 ms after the storm"
    );
    assert!(host.hits(end.checked_sub(SECOND).unwrap(), end) >= STEADY * 99 / 100);
}

#[tokio::test(start_paused = true)]
async fn a_slow_host_among_three_gets_little_and_a_silent_one_next_to_nothing() {
    let end = 8 * SECOND;
    for health in [|_: Duration| Health::Slow, |_| Health::Silent, |_| Health::Resets] {
        let hosts = [
            Host::new(health),
            Host::new(|_| Health::Well),
            Host::new(|_| Health::Well),
        ];
        run_fleet(&hosts, end).await;
        let [sick, ..] = hosts.each_ref().map(|host| host.hits(2 * SECOND, end));
        assert!(
            sick < STEADY * 6 / 20,
            "{sick} of {} calls went to the sick host",
            STEADY * 6
        );
    }
}
