//! What a run happens on: three servers on a Postgres primary with two streaming replicas and a Redis Cluster of three,
//! everything switched on. Servers reach each member of the database through a proxy of its own.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use contextkeep_test_support::postgres::PgMember;
use contextkeep_test_support::process::{self, Pid, Signal};
use contextkeep_test_support::{PgCluster, Proxy, RedisCluster};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{ACME, Folder, OTHER, Server, Start, Stopped, folder};

/// Server processes.
pub(super) const NODES: usize = 3;

/// Everything that runs, and what may be done to it.
pub(super) struct Stage {
    pub(super) postgres: PgCluster,
    pub(super) redis: RedisCluster,
    /// In the order of the members.
    pub(super) proxies: Vec<Proxy>,
    pub(super) nodes: Vec<Node>,
}

/// One server process.
pub(super) struct Node {
    state: Mutex<Option<State>>,
    _folder: TempDir,
}

enum State {
    Up(Box<Server>),
    Down(Box<Stopped>),
}

impl Stage {
    /// Starts everything; replicas show each commit so much later than they have it.
    pub(super) fn start(lag: Duration) -> Self {
        let lag = format!("{}ms", lag.as_millis());
        let postgres = std::thread::spawn(move || {
            PgCluster::builder()
                .replicas(2)
                // `replicated` waits for one of whoever follows, also after a promotion.
                .setting("synchronous_standby_names", "ANY 1 (*)")
                .slowable(true)
                // Without it no commit waits for the disk.
                .setting("fsync", "on")
                .setting("recovery_min_apply_delay", &lag)
                .start()
                .unwrap()
        });
        let redis = RedisCluster::builder().start().unwrap();
        let postgres = postgres.join().unwrap();
        let proxies: Vec<Proxy> = postgres
            .members()
            .iter()
            .map(|member| Proxy::start(member.addr()).unwrap())
            .collect();
        let start = configuration(&postgres, &proxies, &redis);
        // The first brings the schema; the others would wait for it.
        let nodes = (0..NODES).map(|_| Node::start(&start)).collect();
        Self {
            postgres,
            redis,
            proxies,
            nodes,
        }
    }

    /// The n-th of those that are replicas now.
    pub(super) fn replica(&self, n: usize) -> &PgMember {
        let replicas: Vec<&PgMember> = self.postgres.replicas().collect();
        replicas[n % replicas.len()]
    }

    /// The proxy in front of a member.
    pub(super) fn proxy_of(&self, member: &PgMember) -> &Proxy {
        let place = self
            .postgres
            .members()
            .iter()
            .position(|other| other.name() == member.name());
        &self.proxies[place.unwrap()]
    }
}

fn configuration(postgres: &PgCluster, proxies: &[Proxy], redis: &RedisCluster) -> Start {
    let endpoints: Vec<String> = redis.nodes().iter().map(|node| node.addr().to_string()).collect();
    let mut config = reaching(postgres, proxies, &endpoints);
    let manager = &mut config["context_manager"];
    manager["database"]["durability"] = json!("replicated");
    manager["circuit_breaker"] = json!({"timeout": "2s"});
    config["server"] = json!({"request_timeout": "4s"});
    Start::with(&config.to_string())
}

/// A configuration with everything switched on and nothing else than it is by default.
pub(super) fn reaching(postgres: &PgCluster, proxies: &[Proxy], redis: &[String]) -> serde_json::Value {
    let mut addresses = postgres
        .members()
        .iter()
        .zip(proxies)
        .map(|(member, proxy)| member.dsn_at(proxy.addr(), contextkeep_test_support::postgres::DATABASE));
    let primary = addresses.next().unwrap();
    let replicas: Vec<_> = addresses.map(|dsn| json!({ "dsn": dsn })).collect();
    json!({
        "auth": {"keys": [
            {"name": "acme", "tenant": "acme", "secret": ACME, "admin": true},
            {"name": "other", "tenant": "other", "secret": OTHER},
        ]},
        "context_manager": {
            "database": {"dsn": primary, "max_open_conns": 12},
            "read_replicas": replicas,
            "cache": {"redis": {"enabled": true, "endpoints": redis, "min_idle_conns": 0}},
            "rollout": {"optimized": "on", "l1": "on", "l2": "on", "replicas": "on", "hedging": "on"},
        },
    })
}

impl Node {
    fn start(start: &Start) -> Self {
        let own = folder();
        let server = start.clone().up(Folder::Shared(own.path().to_owned()));
        Self {
            state: Mutex::new(Some(State::Up(Box::new(server)))),
            _folder: own,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&Server) -> T) -> T {
        match self.state.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(State::Up(server)) => act(server),
            _ => panic!("the node is down"),
        }
    }

    pub(super) fn address(&self) -> std::net::SocketAddr {
        self.with(Server::address)
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match state.take() {
            Some(State::Up(server)) => Some(State::Down(Box::new(server.kill()))),
            other => other,
        };
    }

    /// Starts it again, on another port.
    pub(super) fn revive(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match state.take() {
            Some(State::Down(stopped)) => Some(State::Up(Box::new(stopped.up()))),
            other => other,
        };
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub(super) fn freeze(&self) {
        process::signal(self.pid(), Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn thaw(&self) {
        process::signal(self.pid(), Signal::CONT);
    }

    fn pid(&self) -> Pid {
        self.with(Server::pid)
    }

    /// Why it is not ready, if it is not.
    pub(super) fn not_ready(&self) -> Option<String> {
        let client = self.with(Server::client);
        match client.try_send("GET", "/readyz", &[], b"") {
            Ok(response) if response.status == 200 => None,
            Ok(response) => Some(response.text()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The end of what it logged.
    pub(super) fn log_tail(&self, lines: usize) -> String {
        let log = self.with(Server::log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
