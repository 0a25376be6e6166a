//! The cache, and which reads use it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use contextkeep_core::Invalid;
use contextkeep_core::cached::relay::RelayStatus;
use contextkeep_core::settings::{Flag, RolloutSettings, Switch};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::health::RedisView;
use super::super::problem::{Problem, ProblemDocument};
use super::super::{Answered, Rest, plain};
use super::Admin;
use crate::caching::Caching;

/// How the cache of this process is doing.
#[derive(Serialize, ToSchema)]
pub(super) struct CacheView {
    /// Whether there is a level in the process.
    memory: bool,
    /// Whether there is a level that processes share.
    redis: bool,
    /// Whether that one answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_health: Option<RedisView>,
    /// Who tells of other processes' changes: `redis`, `outbox` (of Postgres) or `data file`.
    backplane: &'static str,
    /// An answer without a token is at most so far behind, in milliseconds.
    bound_ms: u64,
    /// Heads in the process.
    heads: usize,
    /// Their bytes.
    heads_bytes: u64,
    /// Contexts whose ends are held in the process.
    held_contexts: u64,
    /// Their bytes.
    held_bytes: u64,
    /// Those of them that are compressed, because nobody has asked for them lately.
    cold_contexts: u64,
    /// Their bytes, compressed.
    cold_bytes: u64,
    /// Loads under way.
    loads: usize,
    /// Changes that wait for the level that processes share.
    deferred_changes: usize,
    /// Partitions whose entries may be served without asking now; 0 while nobody tells of others' changes.
    trusted_partitions: usize,
    /// Reads tried in the shadow since the start.
    shadows: ShadowsView,
    /// What this server told Redis of changes that their writers may not have told; null without Redis.
    relay: Option<RelayView>,
}

/// What this server told Redis out of the outbox of Postgres since its start.
#[derive(Serialize, ToSchema)]
struct RelayView {
    /// Changes that Redis knew already.
    known: u64,
    /// Changes that whoever made them did not tell, or not yet.
    mended: u64,
    /// Tries that failed and were repeated.
    failed: u64,
    /// Times that all that changed lately was told, because the outbox was purged before.
    walks: u64,
    /// Age of the oldest change that Redis was not told of, by whichever server, in milliseconds; 0 if there is none, null
    /// while the database does not answer.
    lag_ms: Option<u64>,
}

impl From<RelayStatus> for RelayView {
    fn from(status: RelayStatus) -> Self {
        Self {
            known: status.known,
            mended: status.mended,
            failed: status.failed,
            walks: status.walks,
            lag_ms: status
                .lag
                .map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Reads tried in the shadow since the start.
#[derive(Serialize, ToSchema)]
struct ShadowsView {
    /// Answered alike.
    same: u64,
    /// Answered otherwise: a defect, which the log describes.
    different: u64,
    /// The context was changed in between.
    moved: u64,
    /// Failed where the answer did not.
    failed: u64,
    /// Left out, because enough others were running.
    skipped: u64,
}

/// Which reads use what. Each is `on`, `off`, `shadow`, or a percentage of contexts.
#[derive(Serialize, ToSchema)]
struct RolloutView {
    /// Reads through the cache at all.
    #[schema(value_type = FlagView)]
    optimized: Flag,
    /// Reads from the level in the process.
    #[schema(value_type = FlagView)]
    l1: Flag,
    /// Reads from the level that processes share.
    #[schema(value_type = FlagView)]
    l2: Flag,
    /// Reads from read replicas.
    #[schema(value_type = FlagView)]
    replicas: Flag,
    /// A second replica is asked if the first is late.
    #[schema(value_type = FlagView)]
    hedging: Flag,
}

impl From<RolloutSettings> for RolloutView {
    fn from(settings: RolloutSettings) -> Self {
        Self {
            optimized: settings.optimized,
            l1: settings.l1,
            l2: settings.l2,
            replicas: settings.replicas,
            hedging: settings.hedging,
        }
    }
}

/// `on`, `off`, `shadow`, or a percentage of contexts.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes a flag in the API's document")]
enum FlagView {
    /// `on`, `off` or `shadow`.
    Named(String),
    /// 0 to 100.
    Percent(u8),
}

/// The flags that are to change; the others stay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutPatch {
    #[schema(value_type = Option<FlagView>)]
    optimized: Option<serde_json::Value>,
    #[schema(value_type = Option<FlagView>)]
    l1: Option<serde_json::Value>,
    #[schema(value_type = Option<FlagView>)]
    l2: Option<serde_json::Value>,
    #[schema(value_type = Option<FlagView>)]
    replicas: Option<serde_json::Value>,
    #[schema(value_type = Option<FlagView>)]
    hedging: Option<serde_json::Value>,
}

fn caching(rest: &Rest) -> Result<&Arc<Caching>, Problem> {
    rest.caching.as_ref().ok_or_else(|| {
        Problem::new("no_cache", "no level of the cache is enabled").hint(
            "set context_manager.cache.in_memory.enabled or context_manager.cache.redis.enabled to true",
        )
    })
}

/// How the cache of this process is doing.
#[utoipa::path(get, path = "/admin/v1/cache", tag = "operations",
    responses(
        (status = 200, body = CacheView),
        (status = 403, body = ProblemDocument<'_>, content_type = "application/problem+json"),
        (status = 404, description = "There is no cache", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
pub(super) async fn cache(_: Admin, State(rest): State<Rest>) -> Answered {
    let caching = caching(&rest)?;
    let (levels, standing) = (caching.levels(), caching.standing());
    let (heads, shadows) = (standing.heads, standing.shadows);
    let view = CacheView {
        memory: levels.memory,
        redis: levels.redis,
        redis_health: RedisView::of(caching),
        backplane: levels.backplane,
        bound_ms: u64::try_from(caching.store.cache().bound().as_millis()).unwrap_or(u64::MAX),
        heads: heads.entries,
        heads_bytes: heads.bytes,
        held_contexts: standing.held.contexts,
        held_bytes: standing.held.bytes,
        cold_contexts: standing.held.cold_contexts,
        cold_bytes: standing.held.cold_bytes,
        loads: heads.loads,
        deferred_changes: heads.deferred,
        trusted_partitions: heads.trusted_partitions,
        shadows: ShadowsView {
            same: shadows.same,
            different: shadows.different,
            moved: shadows.moved,
            failed: shadows.failed,
            skipped: shadows.skipped,
        },
        relay: standing.relay.map(RelayView::from),
    };
    Ok(plain(StatusCode::OK, &view))
}

/// Which reads use what, on this server, now.
#[utoipa::path(get, path = "/admin/v1/rollout", tag = "operations",
    responses(
        (status = 200, body = RolloutView),
        (status = 403, body = ProblemDocument<'_>, content_type = "application/problem+json"),
        (status = 404, description = "There is no cache", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
pub(super) async fn rollout(_: Admin, State(rest): State<Rest>) -> Answered {
    let settings = caching(&rest)?.rollout.settings();
    Ok(plain(StatusCode::OK, &RolloutView::from(settings)))
}

/// Changes which reads use what, on this server, for requests from now on. A restart begins with the configuration again.
#[utoipa::path(patch, path = "/admin/v1/rollout", tag = "operations", request_body = RolloutPatch,
    responses(
        (status = 200, description = "All flags as they are now", body = RolloutView),
        (status = 400, body = ProblemDocument<'_>, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument<'_>, content_type = "application/problem+json"),
        (status = 404, description = "There is no cache", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
pub(super) async fn set_rollout(_: Admin, State(rest): State<Rest>, body: Bytes) -> Answered {
    let caching = caching(&rest)?;
    let patch: RolloutPatch = serde_json::from_slice(&body).map_err(|error| {
        contextkeep_core::Error::from(
            Invalid::new("body", error.to_string())
                .hint("send flags such as {\"optimized\": \"shadow\", \"l2\": 25}"),
        )
    })?;
    let mut settings = caching.rollout.settings();
    let flags = [
        ("optimized", patch.optimized, &mut settings.optimized),
        ("l1", patch.l1, &mut settings.l1),
        ("l2", patch.l2, &mut settings.l2),
        ("replicas", patch.replicas, &mut settings.replicas),
        ("hedging", patch.hedging, &mut settings.hedging),
    ];
    for (name, value, flag) in flags {
        if let Some(value) = value {
            *flag = parse(name, &value)?;
        }
    }
    caching.rollout.set(settings);
    Ok(plain(StatusCode::OK, &RolloutView::from(settings)))
}

fn parse(name: &'static str, value: &serde_json::Value) -> Result<Flag, Problem> {
    let flag = match (value.as_str(), value.as_u64()) {
        (Some("on"), _) => Some(Flag::Named(Switch::On)),
        (Some("off"), _) => Some(Flag::Named(Switch::Off)),
        (Some("shadow"), _) => Some(Flag::Named(Switch::Shadow)),
        (_, Some(share @ 0..=100)) => u8::try_from(share).ok().map(Flag::Percent),
        _ => None,
    };
    flag.ok_or_else(|| {
        contextkeep_core::Error::from(
            Invalid::new(name, format!("is {value}")).hint("on, off, shadow, or a percentage from 0 to 100"),
        )
        .into()
    })
}
