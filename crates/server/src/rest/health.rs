//! Liveness, readiness and the API's own description.

use axum::extract::State;
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, plain};
use crate::caching::Caching;

/// What is said while Redis does not answer.
const REDIS_DOWN: &str =
    "redis does not answer: heads that it would have held are read from the database, and more often";

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
}

/// Whether the process lives. Asks nothing of the store: a slow disk is no reason to restart a server.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()), responses((status = 200, description = "It lives")))]
async fn healthz() -> Response<axum::body::Body> {
    plain(StatusCode::OK, &Alive { status: "alive" })
}

#[derive(Serialize)]
struct Alive {
    status: &'static str,
}

/// Readiness in numbers.
#[derive(Serialize, ToSchema)]
struct Ready {
    /// `ready`.
    status: &'static str,
    /// Which store answers.
    store: &'static str,
    /// Writes that wait for their commit.
    writes_waiting: u64,
    /// Acknowledged items that the search index does not have yet.
    search_lag_items: u64,
    /// The Redis of the cache, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisView>,
    /// What does not work and is not needed to serve requests, in words; empty if all is well.
    degraded: Vec<&'static str>,
}

/// Whether Redis answers this server.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(super) struct RedisView {
    /// `reachable`, `unreachable`, or `unknown` in the first moments.
    #[schema(value_type = String)]
    state: &'static str,
    /// How long that has been so, in seconds.
    for_seconds: Option<u64>,
}

impl RedisView {
    /// `None` if there is no Redis. Asks nobody: the cache polls it several times a second.
    pub(super) fn of(caching: &Caching) -> Option<Self> {
        let reach = caching.levels().redis.then(|| caching.redis_reach())?;
        Some(Self {
            state: match reach {
                None => "unknown",
                Some(reach) if reach.reachable => "reachable",
                Some(_) => "unreachable",
            },
            for_seconds: reach.map(|reach| reach.lasting.as_secs()),
        })
    }

    fn is_down(self) -> bool {
        self.state == "unreachable"
    }
}

/// Whether requests can be served now. Not ready while the store does not answer, its breaker refuses calls, or the server
/// is draining. A Redis that does not answer is shown; the server is ready without it.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = Ready), (status = 503, body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn readyz(State(rest): State<Rest>) -> Answered {
    if rest.draining.is_cancelled() {
        return Err(Problem::new("unavailable", "the server is shutting down").retry_after(1));
    }
    let health = rest.manager.check().await?;
    let redis = rest.caching.as_deref().and_then(RedisView::of);
    Ok(plain(
        StatusCode::OK,
        &Ready {
            status: "ready",
            store: health.kind,
            writes_waiting: health.writes_waiting,
            search_lag_items: health.search_lag_items,
            redis,
            degraded: redis
                .filter(|redis| redis.is_down())
                .map_or_else(Vec::new, |_| vec![REDIS_DOWN]),
        },
    ))
}
