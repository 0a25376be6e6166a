//! G9 in numbers: what each operation does while one dependency is down, frozen or slow. Two servers with default
//! settings on a primary, two replicas and one Redis, each behind a proxy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use contextkeep_test_support::postgres::PgMember;
use contextkeep_test_support::{PgCluster, Proxy, RedisNode};
use serde_json::json;

use super::client::Nodes;
use super::stage::reaching;
use super::wire::{Request, Wire};
use crate::support::{ACME, Folder, Server, Start, folder};

/// What an operation takes at most when nothing is wrong, on a machine that is busy with it.
const PROMPT: Duration = Duration::from_millis(250);
/// What a slow dependency adds in each direction.
const DELAY: Duration = Duration::from_millis(100);
/// Longer than the servers' own limit of a request.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two requests of a worker.
const PACE: Duration = Duration::from_millis(40);
/// A dependency that is back serves everybody again after this time at most: two looks at a server that is down, with
/// two seconds between, and room for a busy machine.
const BACK: Duration = Duration::from_secs(6);
const WORKERS: usize = 4;
const NODES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dependency {
    Redis,
    OneReplica,
    BothReplicas,
    Primary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Down,
    Frozen,
    Slow,
}

/// What is measured, in the order of the columns. `WindowAny` asks for `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Create,
    Append,
    Delete,
    Window,
    WindowAny,
    Items,
    List,
    Search,
}

const KINDS: [Kind; 8] = [
    Kind::Create,
    Kind::Append,
    Kind::Delete,
    Kind::Window,
    Kind::WindowAny,
    Kind::Items,
    Kind::List,
    Kind::Search,
];

impl Kind {
    fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Append | Self::Delete)
    }
}

struct Bench {
    postgres: PgCluster,
    proxies: Vec<Proxy>,
    redis: RedisNode,
    redis_proxy: Proxy,
    _servers: Vec<Server>,
    nodes: Nodes,
}

/// One request.
#[derive(Clone, Copy, Debug)]
struct Sample {
    kind: Kind,
    began: Duration,
    ended: Duration,
    /// 0 without an answer.
    status: u16,
    says_when: bool,
}

impl Sample {
    fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

/// What happened to one dependency.
struct Case {
    on: Dependency,
    how: How,
    broken: Duration,
    mended: Duration,
    samples: Vec<Sample>,
}

impl Bench {
    fn start() -> Self {
        let postgres = PgCluster::builder().replicas(2).start().unwrap();
        let proxies: Vec<Proxy> = postgres
            .members()
            .iter()
            .map(|member| Proxy::start(member.addr()).unwrap())
            .collect();
        let redis = RedisNode::start_alone().unwrap();
        let redis_proxy = Proxy::start(redis.addr()).unwrap();
        let config = reaching(&postgres, &proxies, &[redis_proxy.addr().to_string()]);
        let start = Start::with(&config.to_string());
        let servers: Vec<Server> = (0..NODES)
            .map(|_| start.clone().up(Folder::Own(folder())))
            .collect();
        let nodes = Nodes::new(servers.iter().map(Server::address));
        Self {
            postgres,
            proxies,
            redis,
            redis_proxy,
            _servers: servers,
            nodes,
        }
    }

    fn members(&self, on: Dependency) -> Vec<(&PgMember, &Proxy)> {
        let all: Vec<_> = self.postgres.members().iter().zip(&self.proxies).collect();
        match on {
            Dependency::Redis => Vec::new(),
            Dependency::OneReplica => all[1..2].to_vec(),
            Dependency::BothReplicas => all[1..].to_vec(),
            Dependency::Primary => all[..1].to_vec(),
        }
    }

    fn breaks(&self, on: Dependency, how: How) {
        for (member, proxy) in self.members(on) {
            match how {
                How::Down => member.kill().unwrap(),
                How::Frozen => member.freeze().unwrap(),
                How::Slow => proxy.delay(DELAY),
            }
        }
        if on == Dependency::Redis {
            match how {
                How::Down => self.redis.kill().unwrap(),
                How::Frozen => self.redis.freeze().unwrap(),
                How::Slow => self.redis_proxy.delay(DELAY),
            }
        }
    }

    fn mends(&self, on: Dependency, how: How) {
        for (member, proxy) in self.members(on) {
            match how {
                How::Down => member.start().unwrap(),
                How::Frozen => member.thaw().unwrap(),
                How::Slow => proxy.heal(),
            }
        }
        if on == Dependency::Redis {
            match how {
                How::Down => self.redis.start().unwrap(),
                How::Frozen => self.redis.thaw().unwrap(),
                How::Slow => self.redis_proxy.heal(),
            }
        }
    }

    /// Breaks it under load for `lasts`, and looks on until it has to be back, and a little longer.
    fn case(&self, on: Dependency, how: How, lasts: Duration) -> Case {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|number| {
                    let (nodes, stop) = (&self.nodes, &stop);
                    scope.spawn(move || work(nodes, number, &format!("{on:?}-{how:?}-{number}"), stop))
                })
                .collect();
            wait(&self.nodes, Duration::from_secs(2));
            let broken = self.nodes.now();
            self.breaks(on, how);
            wait(&self.nodes, lasts);
            self.mends(on, how);
            let mended = self.nodes.now();
            wait(&self.nodes, BACK + Duration::from_secs(2));
            stop.store(true, Ordering::Release);
            let samples = workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect();
            Case {
                on,
                how,
                broken,
                mended,
                samples,
            }
        })
    }
}

fn wait(nodes: &Nodes, lasts: Duration) {
    let until = nodes.now() + lasts;
    while let Some(left) = until.checked_sub(nodes.now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

/// Does one of everything in turn, each time on another node. A write is not waited for: one that hangs must not keep
/// anything else from being measured.
fn work(nodes: &Nodes, number: usize, name: &str, stop: &AtomicBool) -> Vec<Sample> {
    let context = format!("c-{name}");
    let samples = Mutex::new(Vec::new());
    let note = |sample| {
        samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sample);
    };
    let fresh = || Wire::patient(PATIENCE);
    note(ask(nodes, 0, &mut fresh(), Kind::Create, &context, 0));
    thread::scope(|scope| {
        let mut wires: Vec<Wire> = (0..NODES).map(|_| fresh()).collect();
        for round in 1.. {
            if stop.load(Ordering::Acquire) {
                break;
            }
            for (place, kind) in KINDS.into_iter().enumerate() {
                let node = (number + round + place) % NODES;
                if kind.is_write() {
                    let (note, context) = (&note, &context);
                    scope.spawn(move || note(ask(nodes, node, &mut fresh(), kind, context, round)));
                } else {
                    note(ask(nodes, node, &mut wires[node], kind, &context, round));
                }
                thread::park_timeout(PACE);
            }
        }
    });
    samples.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn ask(nodes: &Nodes, node: usize, wire: &mut Wire, kind: Kind, context: &str, round: usize) -> Sample {
    let item = r#"{"items":[{"role":"user","content":"one two three"}]}"#;
    let one = format!("/v1/contexts/{context}");
    // Round 0 makes the context that all others are about; later ones make one and delete it again.
    let other = format!("{context}-{round}");
    let made = if round == 0 { context } else { &other };
    let (method, path, body) = match kind {
        Kind::Create => (
            "POST",
            "/v1/contexts".to_owned(),
            json!({"id": made, "agent_id": "a"}).to_string(),
        ),
        Kind::Append => ("POST", format!("{one}/items"), item.to_owned()),
        Kind::Delete => ("DELETE", format!("/v1/contexts/{other}"), String::new()),
        Kind::Window | Kind::WindowAny => ("GET", format!("{one}/window?max_tokens=500"), String::new()),
        Kind::Items => ("GET", format!("{one}/items?order=desc&limit=10"), String::new()),
        Kind::List => ("GET", "/v1/contexts?limit=5".to_owned(), String::new()),
        Kind::Search => (
            "POST",
            "/v1/search".to_owned(),
            r#"{"query":"two","limit":3}"#.to_owned(),
        ),
    };
    let bearer = format!("Bearer {ACME}");
    let mut headers = vec![("authorization", bearer.as_str())];
    if kind == Kind::WindowAny {
        headers.push(("contextkeep-consistency", "any"));
    }
    let began = nodes.now();
    let reply = wire.call(
        nodes.address(node),
        &Request {
            method,
            path,
            headers,
            body,
        },
    );
    let ended = nodes.now();
    let (mut status, mut says_when) = (0, false);
    if let Ok(response) = &reply {
        (status, says_when) = (response.status, response.header("retry-after").is_some());
        // What could not be made can't be deleted: that it is not there is a good answer.
        if kind == Kind::Delete && status == 404 {
            status = 204;
        }
    }
    Sample {
        kind,
        began,
        ended,
        status,
        says_when,
    }
}

impl Case {
    fn during(&self, kind: Kind) -> impl Iterator<Item = &Sample> {
        let within = |sample: &&Sample| sample.began >= self.broken && sample.began < self.mended;
        self.samples
            .iter()
            .filter(move |sample| sample.kind == kind)
            .filter(within)
    }

    /// Share of good answers, and how long 99 of 100 took at most.
    fn cell(&self, kind: Kind) -> String {
        let mut took: Vec<Duration> = self.during(kind).map(Sample::took).collect();
        took.sort_unstable();
        let good = self.during(kind).filter(|sample| sample.is_good()).count();
        let Some(last) = took.len().checked_sub(1) else {
            return "none".to_owned();
        };
        let p99 = took[last * 99 / 100].as_millis();
        format!("{} %, {p99} ms", good * 100 / took.len())
    }

    /// From when on 99 of 100 requests had a prompt answer, whichever it was; nothing if that never came.
    fn noticed(&self) -> Option<Duration> {
        let during = self
            .samples
            .iter()
            .filter(|sample| sample.began >= self.broken && sample.began < self.mended);
        let mut during: Vec<&Sample> = during.collect();
        during.sort_by_key(|sample| sample.began);
        let mut late = during.iter().filter(|sample| sample.took() > PROMPT).count();
        for (place, sample) in during.iter().enumerate() {
            if late * 100 <= during.len() - place {
                return Some(sample.began.saturating_sub(self.broken));
            }
            late -= usize::from(sample.took() > PROMPT);
        }
        None
    }

    /// Until the last request that failed.
    fn recovered(&self) -> Option<Duration> {
        let failed = self
            .samples
            .iter()
            .filter(|sample| sample.began >= self.mended && !sample.is_good());
        failed
            .map(|sample| sample.ended.saturating_sub(self.mended))
            .max()
    }

    fn row(&self) -> String {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let noticed = self.noticed().map_or("never".to_owned(), seconds);
        let recovered = self.recovered().map_or("at once".to_owned(), seconds);
        let mut row = format!("| {} |", self.name());
        for kind in KINDS {
            write!(row, " {} |", self.cell(kind)).unwrap();
        }
        write!(row, " {noticed} | {recovered} |").unwrap();
        row
    }

    fn name(&self) -> String {
        let on = match self.on {
            Dependency::Redis => "Redis",
            Dependency::OneReplica => "one replica",
            Dependency::BothReplicas => "both replicas",
            Dependency::Primary => "primary",
        };
        let how = match self.how {
            How::Down => "killed".to_owned(),
            How::Frozen => "frozen".to_owned(),
            How::Slow => format!("{} ms slower", 2 * DELAY.as_millis()),
        };
        format!("{on} {how}")
    }

    /// What G9 promises. Slow is no promise: it is only measured.
    fn broken_promises(&self) -> Vec<String> {
        if self.how == How::Slow {
            return Vec::new();
        }
        let refused = |sample: &&Sample| match self.on {
            Dependency::Redis => !sample.is_good(),
            Dependency::OneReplica | Dependency::BothReplicas => !sample.kind.is_write() && !sample.is_good(),
            // Fast, and says when to come again; `any` is served.
            Dependency::Primary => {
                let hangs = sample.status != 503 || !sample.says_when;
                !sample.is_good() && hangs
            }
        };
        let all = KINDS.into_iter().flat_map(|kind| self.during(kind));
        let not_back = |sample: &&Sample| sample.began >= self.mended + BACK && !sample.is_good();
        all.filter(refused)
            .chain(self.samples.iter().filter(not_back))
            .map(|sample| format!("{:?} {:?}: {sample:?}", self.on, self.how))
            .collect()
    }
}

#[test]
#[ignore = "needs server binaries"]
fn one_dependency_down_is_survived() {
    let full = super::variable("CHAOS_TABLE").is_some();
    let (cases, lasts) = if full {
        let on = [
            Dependency::Redis,
            Dependency::OneReplica,
            Dependency::BothReplicas,
            Dependency::Primary,
        ];
        let all = on
            .into_iter()
            .flat_map(|on| [How::Down, How::Frozen, How::Slow].map(|how| (on, how)));
        (all.collect(), Duration::from_secs(8))
    } else {
        let few = vec![
            (Dependency::Redis, How::Down),
            (Dependency::OneReplica, How::Frozen),
            (Dependency::Primary, How::Down),
        ];
        (few, Duration::from_secs(4))
    };
    let bench = Bench::start();
    let mut table = String::from(
        "| | create | append | delete | window | window, `any` | items | list | search | noticed | recovered |\n|",
    );
    table.push_str(&" --- |".repeat(KINDS.len() + 3));
    let mut broken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (on, how) in cases {
        let case = bench.case(on, how, lasts);
        println!("{}", case.row());
        write!(table, "\n{}", case.row()).unwrap();
        let promises = case.broken_promises();
        if !promises.is_empty() {
            broken.insert(format!("{on:?} {how:?}"), promises);
        }
        bench.postgres.wait_replayed(Duration::from_mins(1)).unwrap();
    }
    println!("\n{table}");
    for (case, promises) in &broken {
        println!("{case}: {} requests, such as {}", promises.len(), promises[0]);
    }
    assert!(broken.is_empty(), "G9 does not hold: {:?}", broken.keys());
}
