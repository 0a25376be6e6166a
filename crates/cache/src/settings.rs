//! The settings of a two-level cache. Plain data: another crate fills them.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Both levels and what goes on between them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// The level in the process.
    pub in_memory: InMemorySettings,
    /// The level that processes share.
    pub redis: RedisSettings,
    /// Loading before anybody asks.
    pub warming: WarmingSettings,
    /// How far an answer may lag behind.
    pub coherence: CoherenceSettings,
    /// Times to live by use.
    pub adaptive: AdaptiveSettings,
    /// Smaller values in the level that processes share.
    pub compression: CompressionSettings,
}

/// The level in the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct InMemorySettings {
    /// Whether there is one.
    pub enabled: bool,
    /// Most entries.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_size: u64,
    /// Most bytes of keys and values.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub max_bytes: ByteSize,
    /// How long an entry may be served.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub ttl: Duration,
    /// Values over this are not kept in the process.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub max_item_size: ByteSize,
}

impl Default for InMemorySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_size: 10_000,
            max_bytes: ByteSize::mib(256),
            ttl: Duration::from_mins(5),
            max_item_size: ByteSize::mib(1),
        }
    }
}

/// The level that processes share: a Redis node or a Redis Cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// Whether there is one.
    pub enabled: bool,
    /// `host:port` or `redis://` and `rediss://` addresses; one may be a single node, several mean a cluster.
    pub endpoints: Vec<String>,
    /// PEM file with the certificates that may sign the servers', for `rediss://`; absent: Mozilla's list as of the
    /// build.
    pub ca_file: Option<PathBuf>,
    /// What the server asks for.
    #[serde(skip_serializing)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub password: Option<SecretString>,
    /// The database of a single node; a cluster has only 0.
    pub db: u32,
    /// How long an entry may be served.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub ttl: Duration,
    /// Retries of one command.
    pub max_retries: u32,
    /// Longest wait for a connection to be made.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub dial_timeout: Duration,
    /// Longest wait for an answer to a read.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub read_timeout: Duration,
    /// Longest wait for an answer to a write.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub write_timeout: Duration,
    /// Most connections for commands that block.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub pool_size: u32,
    /// Connections kept open unused.
    pub min_idle_conns: u32,
    /// Age at which a connection is replaced; 0 means never.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub max_conn_age: Duration,
    /// Longest wait for a pooled connection.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub pool_timeout: Duration,
    /// Time after which an unused connection is closed.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub idle_timeout: Duration,
    /// What the endpoints are, where their number does not say it.
    pub mode: RedisMode,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoints: Vec::new(),
            ca_file: None,
            password: None,
            db: 0,
            ttl: Duration::from_hours(1),
            max_retries: 3,
            dial_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(3),
            pool_size: 100,
            min_idle_conns: 10,
            max_conn_age: Duration::ZERO,
            pool_timeout: Duration::from_secs(4),
            idle_timeout: Duration::from_mins(5),
            mode: RedisMode::Auto,
        }
    }
}

impl RedisSettings {
    /// Whether they describe a cluster.
    pub fn is_cluster(&self) -> bool {
        match self.mode {
            RedisMode::Auto => self.endpoints.len() > 1,
            RedisMode::Single => false,
            RedisMode::Cluster => true,
        }
    }
}

/// What the endpoints are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// One is a single node, several are a cluster.
    #[default]
    Auto,
    /// A single node.
    Single,
    /// A cluster.
    Cluster,
}

/// Loading before anybody asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct WarmingSettings {
    /// Whether to.
    pub enabled: bool,
    /// The most recently used ones.
    pub recent_contexts_count: u32,
    /// The most often used ones.
    pub popular_contexts_count: u32,
    /// Time between two rounds.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub warmup_interval: Duration,
}

impl Default for WarmingSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            recent_contexts_count: 100,
            popular_contexts_count: 50,
            warmup_interval: Duration::from_mins(5),
        }
    }
}

/// How far an answer may lag behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CoherenceSettings {
    /// An answer without a token is at most so far behind the last change that the shared level acknowledged.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub bound: Duration,
}

impl Default for CoherenceSettings {
    fn default() -> Self {
        Self {
            bound: Duration::from_millis(300),
        }
    }
}

/// Times to live by use: what is read often is kept longer in the process, what is hardly read shorter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveSettings {
    /// Whether to.
    pub enabled: bool,
    /// The shortest time to live.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub min_ttl: Duration,
    /// The longest time to live.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub max_ttl: Duration,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            min_ttl: Duration::from_mins(1),
            max_ttl: Duration::from_mins(30),
        }
    }
}

/// Smaller values in the level that processes share. What compression does not shrink by a tenth stays as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CompressionSettings {
    /// Whether to, here and in what an application holds beside the cache.
    pub enabled: bool,
    /// Values from this size on are compressed quickly, by lz4.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub lz4_from: ByteSize,
    /// Values from this size on are compressed thoroughly, by zstd.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub zstd_from: ByteSize,
}

impl Default for CompressionSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            lz4_from: ByteSize::kib(4),
            zstd_from: ByteSize::kib(64),
        }
    }
}

#[cfg(not(loom))]
impl CacheSettings {
    /// A cache as described: sizes, times to live, the bound. Levels beyond the process are for the caller to add.
    pub fn builder(&self, name: impl Into<String>) -> crate::Builder {
        let memory = &self.in_memory;
        let adaptive = &self.adaptive;
        let policy = crate::Policy {
            ttl: memory.ttl,
            adaptive: adaptive
                .enabled
                .then(|| crate::Adaptive::between(adaptive.min_ttl, adaptive.max_ttl)),
            ..crate::Policy::default()
        };
        let builder = crate::Cache::builder(name)
            .policy(policy)
            .bound(self.coherence.bound);
        if !memory.enabled {
            return builder.without_memory();
        }
        builder
            .max_entries(memory.max_size)
            .max_bytes(memory.max_bytes.as_u64())
            .max_item(memory.max_item_size.as_u64())
    }
}

impl CacheSettings {
    /// What contradicts itself: key below the section, problem, way out.
    pub fn problems(&self) -> Vec<(String, String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: &str, hint: &str| {
            problems.push((key.to_owned(), problem.to_owned(), hint.to_owned()));
        };
        let redis = &self.redis;
        if redis.enabled && redis.endpoints.is_empty() {
            add(
                "redis.endpoints",
                "is empty although Redis is enabled",
                "name at least one host:port, or set redis.enabled to false",
            );
        }
        let plain = |endpoint: &String| !endpoint.starts_with("rediss://");
        if redis.ca_file.is_some() && redis.endpoints.iter().any(plain) {
            add(
                "redis.ca_file",
                "is set, but an endpoint does not begin with rediss://",
                "write rediss:// before each endpoint, or leave it out",
            );
        }
        if redis.is_cluster() && redis.db != 0 {
            add(
                "redis.db",
                "is not 0, the only database of a cluster",
                "set it to 0, or redis.mode to single",
            );
        }
        if redis.mode == RedisMode::Single && redis.endpoints.len() > 1 {
            add(
                "redis.mode",
                "is single, but there are several endpoints",
                "keep one endpoint, or set it to cluster",
            );
        }
        if redis.min_idle_conns > redis.pool_size {
            add(
                "redis.min_idle_conns",
                "is more than redis.pool_size",
                "lower it, or raise redis.pool_size",
            );
        }
        if self.adaptive.min_ttl > self.adaptive.max_ttl || self.adaptive.min_ttl.is_zero() {
            add(
                "adaptive.min_ttl",
                "is zero or more than adaptive.max_ttl",
                "lower it, or raise adaptive.max_ttl",
            );
        }
        if self.coherence.bound < Duration::from_millis(20) {
            add(
                "coherence.bound",
                "is under 20 ms, which leaves no room for asking",
                "raise it",
            );
        }
        if self.in_memory.max_item_size > self.in_memory.max_bytes {
            add(
                "in_memory.max_item_size",
                "is more than in_memory.max_bytes",
                "lower it, or raise in_memory.max_bytes",
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_do_not_contradict_themselves() {
        assert_eq!(CacheSettings::default().problems(), []);
    }

    #[cfg(not(loom))]
    #[tokio::test]
    async fn a_cache_is_built_as_described() {
        let mut settings = CacheSettings::default();
        settings.coherence.bound = Duration::from_millis(150);
        settings.adaptive.enabled = true;
        let cache = settings.builder("described").build().unwrap();
        assert_eq!(
            (cache.name(), cache.bound()),
            ("described", Duration::from_millis(150))
        );
        settings.in_memory.max_size = 0;
        assert!(settings.builder("none").build().is_err());
        settings.in_memory.enabled = false;
        assert!(settings.builder("no memory").build().is_ok());
    }

    #[test]
    fn contradictions_are_reported_together() {
        let mut settings = CacheSettings::default();
        settings.redis.enabled = true;
        settings.redis.endpoints = vec!["plain:6379".to_owned()];
        settings.redis.ca_file = Some("ca.pem".into());
        settings.redis.mode = RedisMode::Cluster;
        settings.redis.db = 3;
        settings.redis.min_idle_conns = 1000;
        settings.adaptive.min_ttl = Duration::from_hours(1);
        settings.coherence.bound = Duration::from_millis(1);
        settings.in_memory.max_item_size = ByteSize::gib(1);
        let keys = |settings: &CacheSettings| -> Vec<String> {
            settings.problems().into_iter().map(|(key, ..)| key).collect()
        };
        assert_eq!(
            keys(&settings),
            [
                "redis.ca_file",
                "redis.db",
                "redis.min_idle_conns",
                "adaptive.min_ttl",
                "coherence.bound",
                "in_memory.max_item_size"
            ]
        );
        settings.redis.endpoints.clear();
        assert_eq!(
            keys(&settings).first().map(String::as_str),
            Some("redis.endpoints")
        );
    }
}
