//! Postgres: the primary, its pool, its replicas and how reads are routed among them.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

#[cfg(feature = "postgres")]
use super::MonitoringSettings;

/// A problem: key below the section, what is wrong, the way out.
type Problem = (String, String, String);

/// What `relay_interval` may be: within the time that the outbox is kept, by far.
const RELAY_MIN: Duration = Duration::from_millis(10);
const RELAY_MAX: Duration = Duration::from_mins(1);

/// All that a [`PgContextStore`](crate::postgres::PgContextStore) is made of.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// The primary.
    pub database: DatabaseSettings,
    /// The replicas.
    pub replicas: Vec<ReplicaSettings>,
    /// How reads are spread over them.
    pub routing: RoutingSettings,
    /// The breaker of each server.
    pub breaker: contextkeep_resilience::BreakerSettings,
    /// How far a read without a floor may be behind the newest acknowledged change.
    pub bound: Duration,
    /// Which statements are slow, and how many of them are explained.
    pub monitoring: MonitoringSettings,
}

#[cfg(feature = "postgres")]
impl From<DatabaseSettings> for PostgresSettings {
    /// One server, everything else as it is by default.
    fn from(database: DatabaseSettings) -> Self {
        Self {
            database,
            replicas: Vec::new(),
            routing: RoutingSettings::default(),
            breaker: contextkeep_resilience::BreakerSettings::default(),
            bound: Duration::from_millis(300),
            monitoring: MonitoringSettings::default(),
        }
    }
}

/// The Postgres primary and the pool of connections to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database`; `env:NAME` and `file:PATH` keep it out of the file.
    /// `sslmode` in it: `disable`; `prefer` (encrypted if the server can, not verified); `require` and
    /// `verify-full` (both verify the server's certificate and name).
    #[serde(skip_serializing)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub dsn: Option<SecretString>,
    /// PEM file with the certificates that may sign the server's; absent: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Most connections to this server, of every kind: the pool's, the shared ones and the health check's.
    #[cfg_attr(feature = "schema", schemars(range(min = 3, max = 10_000)))]
    pub max_open_conns: u32,
    /// Most pooled connections that stay open unused; the ones used longest ago are closed, within seconds. More than
    /// `max_open_conns` is the same as that.
    pub max_idle_conns: u32,
    /// Age at which a connection is replaced, give or take a tenth; 0 means never.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub conn_max_lifetime: Duration,
    /// Time after which an unused connection is closed; 0 means never.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub conn_max_idle_time: Duration,
    /// Time between two health checks, on a connection of their own.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub health_check_interval: Duration,
    /// Connections that short reads share, several at a time on each; opened when they are needed.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub shared_conns: u32,
    /// Most reads under way on one shared connection; more are refused with `overloaded`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65_535)))]
    pub shared_in_flight: u32,
    /// Longest wait for a pooled connection; then `overloaded`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub pool_timeout: Duration,
    /// Longest time for opening a connection, for each address of the DSN.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub connect_timeout: Duration,
    /// Longest time for one statement. A request's deadline shortens it.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub statement_timeout: Duration,
    /// Whether statements are prepared once a connection.
    pub prepared_statements: PreparedStatements,
    /// What a commit waits for before it is acknowledged.
    pub durability: Durability,
    /// Whether the server brings the schema up to date when it starts; else `contextkeep migrate` has to.
    pub migrate: bool,
    /// Whether the server ends when the database does not answer at its start; else it starts and answers 503
    /// until the database is there.
    pub require_at_start: bool,
    /// Writes that may wait for their commit; more are refused with `overloaded`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1_000_000)))]
    pub write_queue: u32,
    /// Most bytes of items that may wait for their commit; more are refused with `overloaded`.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub write_queue_size: ByteSize,
    /// Most writes in one commit.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000)))]
    pub group_commit: u32,
    /// Commits under way at the same time, each on a pooled connection.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub write_lanes: u32,
    /// Time between two looks, of servers with a cache in Redis, for changes that the writer did not tell it: because it
    /// died after its commit, or knows no cache (`contextkeep import`, `contextkeep ctx`).
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub relay_interval: Duration,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            dsn: None,
            ca_file: None,
            max_open_conns: 50,
            max_idle_conns: 25,
            conn_max_lifetime: Duration::from_mins(5),
            conn_max_idle_time: Duration::from_secs(90),
            health_check_interval: Duration::from_secs(30),
            shared_conns: 4,
            shared_in_flight: 256,
            pool_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(30),
            prepared_statements: PreparedStatements::Auto,
            durability: Durability::Local,
            migrate: true,
            require_at_start: false,
            write_queue: 4096,
            write_queue_size: ByteSize::mib(256),
            group_commit: 256,
            write_lanes: 2,
            relay_interval: Duration::from_secs(1),
        }
    }
}

/// Whether statements are prepared once a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PreparedStatements {
    /// On connections that are shown to be the server's own, not a pooler's.
    #[default]
    Auto,
    /// Always. Behind a pooler in transaction mode this needs `PgBouncer` 1.21 or newer with
    /// `max_prepared_statements` above 0.
    On,
    /// Never: each statement carries its text. Works behind every pooler.
    Off,
}

/// What a commit waits for before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The primary's disk: survives a crash of the primary.
    #[default]
    Local,
    /// Also the disk of the standbys in the server's `synchronous_standby_names`, which has to name some:
    /// survives the loss of the primary.
    Replicated,
}

#[cfg(feature = "postgres")]
impl Durability {
    /// The value of `synchronous_commit` that it stands for.
    pub(crate) const fn synchronous_commit(self) -> &'static str {
        match self {
            Self::Local => "local",
            // Waits for the standbys in `synchronous_standby_names`, if there are any.
            Self::Replicated => "on",
        }
    }
}

/// A read replica: its address; pool keys that are absent are those of `database`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplicaSettings {
    /// As `database.dsn`. One server: give each replica an entry of its own.
    #[serde(skip_serializing)]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub dsn: SecretString,
    /// As `database.ca_file`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// As `database.max_open_conns`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 3, max = 10_000)))]
    pub max_open_conns: Option<u32>,
    /// As `database.max_idle_conns`.
    #[serde(default)]
    pub max_idle_conns: Option<u32>,
    /// As `database.conn_max_lifetime`.
    #[serde(default, with = "humantime_serde::option")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "duration")))]
    pub conn_max_lifetime: Option<Duration>,
    /// As `database.conn_max_idle_time`.
    #[serde(default, with = "humantime_serde::option")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "duration")))]
    pub conn_max_idle_time: Option<Duration>,
    /// As `database.health_check_interval`.
    #[serde(default, with = "humantime_serde::option")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "duration")))]
    pub health_check_interval: Option<Duration>,
    /// As `database.shared_conns`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub shared_conns: Option<u32>,
}

impl ReplicaSettings {
    /// A replica with the pool keys of the primary.
    pub fn at(dsn: impl Into<SecretString>) -> Self {
        Self {
            dsn: dsn.into(),
            ca_file: None,
            max_open_conns: None,
            max_idle_conns: None,
            conn_max_lifetime: None,
            conn_max_idle_time: None,
            health_check_interval: None,
            shared_conns: None,
        }
    }

    /// The settings of the replica's own pool: its keys over those of the primary.
    pub fn over(&self, primary: &DatabaseSettings) -> DatabaseSettings {
        let or = |own: Option<Duration>, theirs| own.unwrap_or(theirs);
        DatabaseSettings {
            dsn: Some(self.dsn.clone()),
            ca_file: self.ca_file.clone().or_else(|| primary.ca_file.clone()),
            max_open_conns: self.max_open_conns.unwrap_or(primary.max_open_conns),
            max_idle_conns: self.max_idle_conns.unwrap_or(primary.max_idle_conns),
            conn_max_lifetime: or(self.conn_max_lifetime, primary.conn_max_lifetime),
            conn_max_idle_time: or(self.conn_max_idle_time, primary.conn_max_idle_time),
            health_check_interval: or(self.health_check_interval, primary.health_check_interval),
            shared_conns: self.shared_conns.unwrap_or(primary.shared_conns),
            ..primary.clone()
        }
    }
}

/// How reads are spread over the replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RoutingSettings {
    /// A replica that is more than this behind the primary, and more than `lag_time_max`, gets no reads.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub lag_bytes_max: ByteSize,
    /// A replica that is more than this behind the primary, and more than `lag_bytes_max`, gets no reads.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub lag_time_max: Duration,
    /// Time between two looks at each server's role and position. How old a replica's data may be is known to
    /// within two of them, so `cache.coherence.bound` has to be longer than that for replicas to keep it.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub probe_interval: Duration,
    /// Longest time for one look; without an answer the server is suspect, after the third it is down.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub probe_timeout: Duration,
    /// A read that is later than this quantile of its like is sent to a second replica as well.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.5, max = 0.999)))]
    pub hedge_quantile: f64,
    /// Extra reads, hedges and second tries, as a share of all reads; 0 turns hedging off.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 1.0)))]
    pub hedge_budget: f64,
    /// Longest time for one try on a replica; then the read goes elsewhere.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub replica_timeout: Duration,
    /// Reads meant for replicas that the primary may serve at the same time, as a share of its
    /// `max_open_conns`; twice as many wait for 100 ms, more are refused with `overloaded`.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 1.0)))]
    pub primary_spill_max: f64,
}

impl Default for RoutingSettings {
    fn default() -> Self {
        Self {
            lag_bytes_max: ByteSize::mib(16),
            lag_time_max: Duration::from_secs(10),
            probe_interval: Duration::from_millis(100),
            probe_timeout: Duration::from_secs(1),
            hedge_quantile: 0.95,
            hedge_budget: 0.1,
            replica_timeout: Duration::from_millis(500),
            primary_spill_max: 0.5,
        }
    }
}

impl DatabaseSettings {
    /// What contradicts itself: key below the section, problem, way out.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: &str, hint: &str| {
            problems.push((key.to_owned(), problem.to_owned(), hint.to_owned()));
        };
        if self.shared_conns == 0 {
            add("shared_conns", "is 0, so that nothing could be read", "4");
        }
        if self.shared_in_flight == 0 {
            add("shared_in_flight", "is 0, so that nothing could be read", "256");
        }
        // The pool gets what the shared connections and the health check's leave.
        if self.max_open_conns < self.shared_conns.saturating_add(2) {
            add(
                "max_open_conns",
                "leaves no connection for writes beside shared_conns and the health check's",
                "raise it to shared_conns + 2 at least, or lower shared_conns",
            );
        }
        let pooled = self
            .max_open_conns
            .saturating_sub(self.shared_conns.saturating_add(1));
        if self.write_lanes == 0 {
            add("write_lanes", "is 0, so that nothing could be written", "2");
        } else if self.write_lanes > pooled.max(1) {
            add(
                "write_lanes",
                "is more than the connections that max_open_conns leaves beside shared_conns",
                "lower it, or raise max_open_conns",
            );
        }
        if self.write_queue == 0 {
            add("write_queue", "is 0, so that nothing could be written", "4096");
        }
        if self.group_commit == 0 {
            add("group_commit", "is 0, so that nothing could be written", "256");
        }
        if !(RELAY_MIN..=RELAY_MAX).contains(&self.relay_interval) {
            add("relay_interval", "is not from 10ms to 1m", "1s");
        }
        for (key, value, usual) in [
            ("pool_timeout", self.pool_timeout, "5s"),
            ("connect_timeout", self.connect_timeout, "2s"),
            ("statement_timeout", self.statement_timeout, "30s"),
            ("health_check_interval", self.health_check_interval, "30s"),
        ] {
            if value < Duration::from_millis(1) {
                add(key, "is less than a millisecond", usual);
            }
        }
        problems
    }
}

impl RoutingSettings {
    /// What contradicts itself: key below the section, problem, way out.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: &str, hint: &str| {
            problems.push((key.to_owned(), problem.to_owned(), hint.to_owned()));
        };
        for (key, value, usual) in [
            ("probe_interval", self.probe_interval, "100ms"),
            ("probe_timeout", self.probe_timeout, "1s"),
            ("replica_timeout", self.replica_timeout, "500ms"),
        ] {
            if value < Duration::from_millis(1) {
                add(key, "is less than a millisecond", usual);
            }
        }
        for (key, value) in [
            ("hedge_budget", self.hedge_budget),
            ("primary_spill_max", self.primary_spill_max),
        ] {
            if !(0.0..=1.0).contains(&value) {
                add(key, "is not a share", "a number from 0 to 1");
            }
        }
        if !(0.5..=0.999).contains(&self.hedge_quantile) {
            add("hedge_quantile", "is out of range", "a number from 0.5 to 0.999");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|(key, ..)| key).collect()
    }

    #[test]
    fn the_defaults_do_not_contradict_themselves() {
        assert_eq!(DatabaseSettings::default().problems(), []);
        assert_eq!(RoutingSettings::default().problems(), []);
    }

    #[test]
    fn contradictions_are_reported_together() {
        let settings = DatabaseSettings {
            max_open_conns: 5,
            max_idle_conns: 6,
            write_lanes: 3,
            statement_timeout: Duration::ZERO,
            ..DatabaseSettings::default()
        };
        let expected = ["max_open_conns", "write_lanes", "statement_timeout"];
        assert_eq!(keys(settings.problems()), expected);
        let routing = RoutingSettings {
            hedge_budget: f64::NAN,
            hedge_quantile: 1.0,
            ..RoutingSettings::default()
        };
        assert_eq!(keys(routing.problems()), ["hedge_budget", "hedge_quantile"]);
    }

    #[test]
    fn a_replica_has_the_primary_s_pool_but_for_what_it_says() {
        let primary = DatabaseSettings {
            max_open_conns: 20,
            ca_file: Some("ca.pem".into()),
            ..DatabaseSettings::default()
        };
        let replica = ReplicaSettings {
            max_idle_conns: Some(1),
            ..ReplicaSettings::at("postgres://replica/db")
        };
        let own = replica.over(&primary);
        assert_eq!((own.max_open_conns, own.max_idle_conns), (20, 1));
        assert_eq!(own.ca_file, primary.ca_file);
    }

    #[test]
    fn a_replica_is_read_from_configuration() {
        let text = r#"{"dsn": "postgres://replica/db", "conn_max_lifetime": "1m", "shared_conns": 2}"#;
        let replica: ReplicaSettings = serde_json::from_str(text).expect("as documented");
        assert_eq!(replica.conn_max_lifetime, Some(Duration::from_mins(1)));
        assert_eq!(replica.shared_conns, Some(2));
        assert!(serde_json::from_str::<ReplicaSettings>(r#"{"dsn": "x", "pool": 1}"#).is_err());
    }
}
