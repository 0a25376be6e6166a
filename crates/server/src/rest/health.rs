//! Liveness, readiness and the API's own description.

use axum::extract::State;
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, plain};

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
}

/// Whether requests can be served now. Not ready while the store does not answer or the server is draining.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = Ready), (status = 503, body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn readyz(State(rest): State<Rest>) -> Answered {
    if rest.draining.is_cancelled() {
        return Err(Problem::new("unavailable", "the server is shutting down").retry_after(1));
    }
    let health = rest.manager.check().await?;
    Ok(plain(
        StatusCode::OK,
        &Ready {
            status: "ready",
            store: health.kind,
            writes_waiting: health.writes_waiting,
            search_lag_items: health.search_lag_items,
        },
    ))
}
