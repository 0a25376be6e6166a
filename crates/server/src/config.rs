//! The sum of all settings. Each crate owns its own section; this file only puts them together, and says what
//! contradicts itself and what has no effect in this version.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use contextkeep_cache::settings::CacheSettings;
use contextkeep_config::{Errors, Finding, Findings, Loaded, Loader};
use contextkeep_core::Tokenizer;
use contextkeep_core::settings::{
    DatabaseSettings, EmbeddedSettings, LimitSettings, MonitoringSettings, PostgresSettings, ReplicaSettings,
    RetentionSettings, RolloutSettings, RoutingSettings,
};
use contextkeep_resilience::BreakerSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::AuthSettings;
use crate::mcp::McpSettings;
use crate::semantic::SemanticSettings;
use crate::summaries::SummariesSettings;
use crate::telemetry::traces::TracesSettings;

/// Variables with the prefix that are not settings.
const NOT_SETTINGS: [&str; 1] = ["CONTEXTKEEP_CONFIG"];
/// Beginning of every variable.
pub const PREFIX: &str = "CONTEXTKEEP_";
/// The file that is read if it is there and `--config` names no other.
pub const FILE: &str = "contextkeep.yaml";

/// Every setting of Contextkeep.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AppConfig {
    /// The HTTP server.
    pub server: ServerSettings,
    /// Who may call.
    pub auth: AuthSettings,
    /// Contexts: where they are kept and how much one request may ask for.
    pub context_manager: ContextManagerSettings,
    /// The MCP endpoint at `/mcp` and the stdio server.
    pub mcp: McpSettings,
    /// What the process says of itself.
    pub telemetry: TelemetrySettings,
}

/// The HTTP server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Address and port. Port 0 takes a free one, which the log names. An address that is not loopback is
    /// refused unless `auth.keys` has a key.
    #[schemars(with = "String")]
    pub bind: SocketAddr,
    /// Largest body of a request; imports are streams and not bounded by it.
    #[schemars(with = "String", extend("format" = "byte-size"))]
    pub max_body: ByteSize,
    /// Requests served at the same time; more are answered 503 with `Retry-After`.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_requests: usize,
    /// Connections open at the same time; more wait to be accepted.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_connections: usize,
    /// Longest time for one request, and for each piece of an import.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub request_timeout: Duration,
    /// Longest time for a client to send the head of a request, and that a connection may idle between two.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub header_timeout: Duration,
    /// How long requests may go on after the signal to stop.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub shutdown_grace: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 7400)),
            max_body: ByteSize::mib(16),
            max_requests: 512,
            max_connections: 4096,
            request_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// Contexts: where they are kept and how much one request may ask for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ContextManagerSettings {
    /// Postgres: used when `dsn` is set.
    pub database: DatabaseSettings,
    /// The embedded store, used when `database.dsn` is absent.
    pub embedded: EmbeddedSettings,
    /// The cache in front of the store: heads of contexts in two levels, the ends of contexts in the process.
    pub cache: CacheSettings,
    /// What is brought into use by and by.
    pub rollout: RolloutSettings,
    /// The gates of the Postgres servers: a breaker each for the reads that a replica serves, a breaker and a limit on
    /// what runs at once each for what the primary does, and for searches, which get at most half of `max_open_conns`.
    /// Ten times as many may wait, for `database.pool_timeout`.
    pub circuit_breaker: BreakerSettings,
    /// Read replicas of Postgres.
    pub read_replicas: Vec<ReplicaSettings>,
    /// How reads are spread over the replicas.
    pub routing: RoutingSettings,
    /// What the server notes about its own work.
    pub monitoring: MonitoringSettings,
    /// How much one request may ask for.
    pub limits: LimitSettings,
    /// How long what is no longer visible is kept.
    pub retention: RetentionSettings,
    /// Tokenizers of your own, by name: each the path of a `tokenizer.json` in Hugging Face's format, read at the start. A
    /// context is created with its name as `tokenizer`. Texts up to 64 KiB are counted exactly, longer ones in pieces. A
    /// context whose tokenizer is not named here any more can be read; appends to it are refused with `tokenizer_missing`.
    pub tokenizers: BTreeMap<String, PathBuf>,
    /// Summaries by a model, beside those that need none.
    pub summaries: SummariesSettings,
    /// Search by meaning, beside that by words. Off unless an endpoint is named; then the text of every item, old and new,
    /// is sent there in the background, and so is each question: configure an endpoint that may see it.
    pub semantic: SemanticSettings,
}

impl ContextManagerSettings {
    /// What the Postgres store is made of.
    pub fn postgres(&self) -> PostgresSettings {
        PostgresSettings {
            database: self.database.clone(),
            replicas: self.read_replicas.clone(),
            routing: self.routing.clone(),
            breaker: self.circuit_breaker.clone(),
            bound: self.cache.coherence.bound,
            monitoring: self.monitoring.clone(),
        }
    }
}

/// What the process says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// The log, on standard error.
    pub log: LogSettings,
    /// Traces by OTLP, off unless enabled.
    pub traces: TracesSettings,
}

/// The log, on standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// What is logged: a level, or levels by target such as `info,contextkeep_server=debug`. The MCP library
    /// logs a line or more a request from `warn` on, hence its own level.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info,rmcp=error".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Where settings come from besides their defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// Flags: key path, value, the flag's name.
    pub flags: Vec<(&'static str, String, &'static str)>,
}

/// Loads the settings: defaults < file < environment < flags.
///
/// # Errors
/// Every problem there is, together.
pub fn load(sources: Sources) -> Result<Loaded<AppConfig>, Errors> {
    let loader = match sources.file {
        Some(file) => Loader::new().file(file),
        None => Loader::new().optional_file(Path::new(FILE)),
    };
    let loader = loader.env(PREFIX).ignore_env(NOT_SETTINGS);
    sources
        .flags
        .into_iter()
        .fold(loader, |loader, (path, value, flag)| {
            loader.flag(path, value, flag)
        })
        .load(validate)
}

fn validate(config: &AppConfig, findings: &mut Findings) {
    let manager = &config.context_manager;
    findings.extend_under("auth", config.auth.problems());
    findings.extend_under("context_manager.cache", manager.cache.problems());
    if let Err(error) = manager.circuit_breaker.validate() {
        findings.extend_under(
            "context_manager.circuit_breaker",
            error
                .into_iter()
                .map(|problem| (problem.key, problem.message, problem.hint)),
        );
    }
    if !config.server.bind.ip().is_loopback() && config.auth.keys.is_empty() {
        findings.push(
            Finding::new(
                "server.bind",
                format!(
                    "is {}, which others can reach, and no credential is configured",
                    config.server.bind
                ),
            )
            .involving("auth.keys")
            .hint("add a key under auth.keys, or bind 127.0.0.1"),
        );
    }
    findings.extend_under("context_manager.database", manager.database.problems());
    findings.extend_under("context_manager.summaries", manager.summaries.problems());
    findings.extend_under("context_manager.semantic", manager.semantic.problems());
    findings.extend_under("telemetry.traces", config.telemetry.traces.problems());
    findings.extend_under("context_manager.routing", manager.routing.problems());
    findings.extend_under("context_manager.monitoring", manager.monitoring.problems());
    if manager.database.dsn.is_none() && !manager.read_replicas.is_empty() {
        findings.push(
            Finding::new("context_manager.read_replicas", "are configured, but the primary is not")
                .hint("set context_manager.database.dsn, for instance by CONTEXTKEEP_CONTEXT_MANAGER__DATABASE__DSN"),
        );
    }
    for name in manager.tokenizers.keys() {
        if let Err(problem) = Tokenizer::check_name(name) {
            findings.push((
                "context_manager.tokenizers",
                problem,
                "for instance my-llama: ./tokenizer.json",
            ));
        }
    }
    let zero = [
        ("server.request_timeout", config.server.request_timeout),
        ("server.header_timeout", config.server.header_timeout),
    ];
    for (path, _) in zero.into_iter().filter(|(_, duration)| duration.is_zero()) {
        findings.push((path, "is 0, so that nothing could be served", "30s"));
    }
    if let Err(error) = config
        .telemetry
        .log
        .filter
        .parse::<tracing_subscriber::filter::EnvFilter>()
    {
        findings.push((
            "telemetry.log.filter",
            format!("is not a filter: {error}"),
            "info, debug, or info,contextkeep_server=debug",
        ));
    }
}

/// What is configured and has no effect in this version, so that nobody relies on it.
pub fn without_effect(loaded: &Loaded<AppConfig>) -> Vec<String> {
    const EMBEDDED: &str =
        "without context_manager.database.dsn the embedded store is used, which needs none of it";
    const NO_REPLICAS: &str = "there are no read_replicas to guard or to choose from";
    const NO_MODEL: &str = "summaries.endpoint is not set, so that no model is asked";
    const NO_EMBEDDER: &str = "semantic.endpoint is not set, so that nothing is embedded";
    const NO_REDIS: &str = "cache.redis is not enabled";
    const NO_TRACES: &str = "telemetry.traces.enabled is false, so that nothing is traced";
    const NO_MEMORY: &str = "cache.in_memory is not enabled, and only what is held in the process is warmed";
    let manager = &loaded.value.context_manager;
    let mut sections = Vec::new();
    if manager.summaries.endpoint.is_none() {
        sections.push(("context_manager.summaries", NO_MODEL));
    }
    if manager.semantic.endpoint.is_none() {
        sections.push(("context_manager.semantic", NO_EMBEDDER));
    }
    if !loaded.value.telemetry.traces.enabled {
        sections.push(("telemetry.traces.endpoint", NO_TRACES));
    }
    if !manager.cache.redis.enabled {
        sections.extend([
            ("context_manager.cache.compression.lz4_from", NO_REDIS),
            ("context_manager.cache.compression.zstd_from", NO_REDIS),
            ("context_manager.rollout.l2", NO_REDIS),
        ]);
    }
    if !manager.cache.in_memory.enabled {
        sections.extend([
            ("context_manager.cache.warming", NO_MEMORY),
            ("context_manager.cache.adaptive", NO_MEMORY),
            ("context_manager.rollout.l1", NO_MEMORY),
        ]);
    }
    if manager.database.dsn.is_none() {
        sections.extend([
            ("context_manager.cache.redis", EMBEDDED),
            ("context_manager.rollout.replicas", EMBEDDED),
            ("context_manager.rollout.hedging", EMBEDDED),
            ("context_manager.circuit_breaker", EMBEDDED),
            ("context_manager.database", EMBEDDED),
            ("context_manager.monitoring.sampling_rate", EMBEDDED),
            ("context_manager.monitoring.slow_query_threshold", EMBEDDED),
            ("context_manager.routing", EMBEDDED),
        ]);
    } else if manager.read_replicas.is_empty() {
        sections.extend([
            ("context_manager.rollout.replicas", NO_REPLICAS),
            ("context_manager.rollout.hedging", NO_REPLICAS),
            ("context_manager.routing", NO_REPLICAS),
        ]);
    }
    sections
        .into_iter()
        .filter(|(section, _)| {
            let said = |path: &str| path == *section || path.starts_with(&format!("{section}."));
            loaded.entries().iter().any(|entry| {
                said(&entry.path.to_string()) && entry.source != contextkeep_config::Source::Default
            })
        })
        .map(|(section, why)| format!("{section}: accepted without effect: {why}"))
        .collect()
}
