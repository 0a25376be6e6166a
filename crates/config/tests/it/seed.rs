//! The configuration example of the document this project was started from loads unchanged, with the
//! database's DSN from the environment.

use std::time::Duration;

use contextkeep_config::Loader;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

const EXAMPLE: &str = r#"context_manager:
  database:
    max_open_conns: 50
    max_idle_conns: 25
    conn_max_lifetime: 5m
  cache:
    in_memory:
      enabled: true
      max_size: 10000
      ttl: 5m
    redis:
      enabled: true
      endpoints: ["redis-node1:6379", "redis-node2:6379"]
      ttl: 1h
  circuit_breaker:
    enabled: true
    failure_threshold: 5
    timeout: 60s
  read_replicas:
    - dsn: "postgres://reader:pass@replica1:5432/mcp"
    - dsn: "postgres://reader:pass@replica2:5432/mcp"
"#;

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Settings {
    context_manager: ContextManager,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct ContextManager {
    database: Database,
    cache: Cache,
    circuit_breaker: CircuitBreaker,
    read_replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Database {
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    dsn: Option<SecretString>,
    #[schemars(range(min = 1))]
    max_open_conns: u32,
    max_idle_conns: u32,
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    conn_max_lifetime: Duration,
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    conn_max_idle_time: Duration,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            dsn: None,
            max_open_conns: 10,
            max_idle_conns: 5,
            conn_max_lifetime: Duration::from_mins(1),
            conn_max_idle_time: Duration::from_secs(90),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Cache {
    in_memory: InMemory,
    redis: Redis,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct InMemory {
    enabled: bool,
    max_size: u64,
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    ttl: Duration,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Redis {
    enabled: bool,
    endpoints: Vec<String>,
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    ttl: Duration,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct CircuitBreaker {
    enabled: bool,
    failure_threshold: u32,
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    timeout: Duration,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Replica {
    #[serde(skip_serializing)]
    #[schemars(with = "String")]
    dsn: SecretString,
}

#[test]
fn the_example_loads_unchanged_with_the_dsn_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contextkeep.yaml");
    std::fs::write(&path, EXAMPLE).unwrap();
    let dsn = "postgres://writer:pass@primary:5432/mcp";
    let loaded = Loader::new()
        .file(&path)
        .env_from(
            "CONTEXTKEEP_",
            [("CONTEXTKEEP_CONTEXT_MANAGER__DATABASE__DSN", dsn)],
        )
        .load(|_: &Settings, _| {})
        .unwrap();

    let manager = &loaded.value.context_manager;
    assert_eq!(manager.database.dsn.as_ref().unwrap().expose_secret(), dsn);
    assert_eq!(
        (manager.database.max_open_conns, manager.database.max_idle_conns),
        (50, 25)
    );
    assert_eq!(manager.database.conn_max_lifetime, Duration::from_mins(5));
    assert_eq!(manager.database.conn_max_idle_time, Duration::from_secs(90));
    assert!(manager.cache.in_memory.enabled && manager.cache.redis.enabled);
    assert_eq!(
        (
            manager.cache.in_memory.max_size,
            manager.cache.in_memory.ttl.as_secs()
        ),
        (10_000, 300)
    );
    assert_eq!(
        manager.cache.redis.endpoints,
        ["redis-node1:6379", "redis-node2:6379"]
    );
    assert_eq!(manager.cache.redis.ttl, Duration::from_hours(1));
    assert!(manager.circuit_breaker.enabled);
    assert_eq!(
        (
            manager.circuit_breaker.failure_threshold,
            manager.circuit_breaker.timeout.as_secs()
        ),
        (5, 60)
    );
    let replicas: Vec<_> = manager
        .read_replicas
        .iter()
        .map(|replica| replica.dsn.expose_secret())
        .collect();
    assert_eq!(
        replicas,
        [
            "postgres://reader:pass@replica1:5432/mcp",
            "postgres://reader:pass@replica2:5432/mcp"
        ]
    );

    let source = loaded.source_of("context_manager.cache.redis.ttl").to_string();
    assert_eq!(source, format!("{}:14", path.display()));
    let source = loaded.source_of("context_manager.database.dsn").to_string();
    assert_eq!(source, "CONTEXTKEEP_CONTEXT_MANAGER__DATABASE__DSN");
    assert!(!loaded.show().contains("pass@"), "{}", loaded.show());
}

#[test]
fn a_misspelt_key_of_the_example_is_reported_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contextkeep.yaml");
    std::fs::write(&path, EXAMPLE.replace("failure_threshold", "failure_treshold")).unwrap();
    let errors = Loader::new().file(&path).load(|_: &Settings, _| {}).unwrap_err();
    assert_eq!(
        errors.to_string(),
        format!(
            "{}:17: context_manager.circuit_breaker.failure_treshold: unknown key; did you mean `failure_threshold`?",
            path.display()
        )
    );
}
