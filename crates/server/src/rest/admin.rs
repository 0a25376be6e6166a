//! How the server and its database fare, for whoever runs them: figures of all tenants together, nothing of what one
//! of them stored.

mod cache;
mod gates;
mod view;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use contextkeep_core::postgres::insight::Insight;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::view::{DatabaseView, QueriesView};
use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, plain};
use crate::auth::Principal;

/// The text format of Prometheus, as its exporter writes it.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new()
        .routes(routes!(database))
        .routes(routes!(queries))
        .routes(routes!(metrics))
        .routes(routes!(cache::cache))
        .routes(routes!(cache::rollout, cache::set_rollout))
}

/// A caller who may see how the server fares. Nobody else learns even which store it has.
struct Admin;

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if Principal::from_request_parts(parts, state).await?.admin {
            return Ok(Self);
        }
        Err(Problem::new(
            "forbidden",
            "this credential is not one of whoever runs the server",
        )
        .hint("use a key of auth.keys with admin: true"))
    }
}

fn insight(rest: &Rest) -> Result<Insight, Problem> {
    rest.storage.insight().ok_or_else(|| {
        Problem::new(
            "no_database",
            "contexts are kept in the embedded store, which has nothing of the kind",
        )
        .hint("GET /readyz says how it fares")
    })
}

/// The servers of the database, the connections to them, and which of them answered reads. Asks no server anything.
#[utoipa::path(get, path = "/admin/v1/database", tag = "operations",
    responses(
        (status = 200, body = DatabaseView),
        (status = 403, body = ProblemDocument<'_>, content_type = "application/problem+json"),
        (status = 404, description = "The embedded store is in use", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn database(_: Admin, State(rest): State<Rest>) -> Answered {
    Ok(plain(StatusCode::OK, &DatabaseView::from(&insight(&rest)?)))
}

/// What the statements cost since the start, the slow ones of late, and plans of some of those.
///
/// A plan is the one for any values, taken without running anything. Of a statement that calls a function it shows
/// the call only, not what the function runs inside.
#[utoipa::path(get, path = "/admin/v1/queries", tag = "operations",
    responses(
        (status = 200, body = QueriesView),
        (status = 403, body = ProblemDocument<'_>, content_type = "application/problem+json"),
        (status = 404, description = "The embedded store is in use", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn queries(_: Admin, State(rest): State<Rest>) -> Answered {
    Ok(plain(StatusCode::OK, &QueriesView::from(&insight(&rest)?)))
}

/// Figures in the text format of Prometheus; the reference of metrics lists them.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses(
        (status = 200, description = "Figures", body = String, content_type = "text/plain"),
        (status = 403, body = ProblemDocument<'_>, content_type = "application/problem+json"),
        (status = 404, description = "Metrics are off", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn metrics(_: Admin, State(rest): State<Rest>) -> Answered {
    let metrics = rest.metrics.as_ref().ok_or_else(|| {
        Problem::new("metrics_disabled", "the configuration turns metrics off")
            .hint("set context_manager.monitoring.metrics_enabled to true")
    })?;
    let text = metrics.render(rest.storage.insight().as_ref());
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, EXPOSITION);
    Ok(response)
}
