//! What happens to every request, from the outside in: a request id and a line in the log, the bound on
//! requests at once, the time limit, the gate.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AGE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use contextkeep_core::Invalid;
use contextkeep_core::session::{Consistency, Session, Token};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Rest;
use super::problem::Problem;
use crate::auth::Gatekeeper;
use crate::telemetry::metrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TOKEN: HeaderName = HeaderName::from_static("contextkeep-token");
const CONSISTENCY: HeaderName = HeaderName::from_static("contextkeep-consistency");
/// Longest request id of a client that is passed on.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What every request passes. One layer and not five: each would box its future and clone what is behind it.
pub(super) fn around(routes: Router, rest: &Rest, gatekeeper: Gatekeeper) -> Router {
    let guards = Arc::new(Guards {
        gatekeeper,
        permits: Semaphore::new(rest.settings.max_requests),
        limit: rest.settings.request_timeout,
    });
    routes.layer(from_fn_with_state(guards, observe))
}

struct Guards {
    gatekeeper: Gatekeeper,
    permits: Semaphore,
    limit: Duration,
}

type Answer = Response<axum::body::Body>;

async fn observe(State(guards): State<Arc<Guards>>, request: Request, next: Next) -> Answer {
    let id = request_id(&request);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = Instant::now();
    let mut response = limit_requests(&guards, request, next).await;
    let status = response.status();
    let code = response
        .headers()
        .get("contextkeep-code")
        .and_then(|code| code.to_str().ok())
        .unwrap_or_default();
    // Paths carry ids and bodies carry conversations: neither is logged.
    let took = begun.elapsed();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics::served(&method, route, status, took);
    let duration_ms = took.as_secs_f64() * 1000.0;
    if status.is_server_error() {
        tracing::warn!(%method, route, status = status.as_u16(), code, duration_ms, request_id = id, "request failed");
    } else {
        tracing::debug!(%method, route, status = status.as_u16(), code, duration_ms, request_id = id, "request served");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The client's id for the request, or one of ours.
fn request_id(request: &Request) -> String {
    request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

async fn limit_requests(guards: &Guards, request: Request, next: Next) -> Answer {
    // Whether the server lives and is ready must be answered under load as well,
    // and so must what is wrong.
    let path = request.uri().path();
    if matches!(path, "/healthz" | "/readyz" | "/metrics") || path.starts_with("/admin/") {
        return limit_time(guards, request, next).await;
    }
    match guards.permits.try_acquire() {
        Ok(_permit) => limit_time(guards, request, next).await,
        Err(_) => Problem::new("busy", "as many requests as server.max_requests are being served")
            .retry_after(1)
            .into_response(),
    }
}

async fn limit_time(guards: &Guards, request: Request, next: Next) -> Answer {
    // An import reads for as long as the client sends; it bounds the wait for each piece itself.
    if request.uri().path() == "/v1/import" {
        return gate(guards, request, next).await;
    }
    let limit = guards.limit;
    match tokio::time::timeout(limit, gate(guards, request, next)).await {
        Ok(response) => response,
        Err(_) => Problem::new("timeout", format!("the request took longer than {limit:?}"))
            .hint("repeat a write with the same Idempotency-Key")
            .retry_after(1)
            .into_response(),
    }
}

async fn gate(guards: &Guards, mut request: Request, next: Next) -> Answer {
    if matches!(request.uri().path(), "/healthz" | "/readyz" | "/openapi.json") {
        return next.run(request).await;
    }
    match guards.gatekeeper.admit(request.headers()) {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            if request.uri().path().starts_with("/mcp") {
                // A client of MCP has no place to keep a token, and its reads are answered by the primary.
                next.run(request).await
            } else {
                session(request, next).await
            }
        }
        Err(refusal) => Problem::new("unauthorized", refusal.to_string())
            .hint(refusal.hint())
            .into_response(),
    }
}

/// Puts a request into its client's session (G4).
async fn session(request: Request, next: Next) -> Answer {
    let session = match asked(request.headers()) {
        Ok(session) => session,
        Err(error) => return Problem::from(error).into_response(),
    };
    let mut response = session.scope(next.run(request)).await;
    if let Some(token) = session.token().encode()
        && let Ok(token) = HeaderValue::from_str(&token)
    {
        response.headers_mut().insert(TOKEN, token);
    }
    if let Some(age) = session.age() {
        response
            .headers_mut()
            .insert(AGE, HeaderValue::from(age.as_secs()));
    }
    response
}

fn asked(headers: &HeaderMap) -> Result<Arc<Session>, contextkeep_core::Error> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let consistency = match text(&CONSISTENCY) {
        None => Consistency::default(),
        Some(name) => Consistency::parse(name).ok_or_else(|| {
            Invalid::new("Contextkeep-Consistency", format!("is {name:?}"))
                .hint("strong, session, bounded or any; session if it is left out")
        })?,
    };
    let token = text(&TOKEN).map_or_else(|| Ok(Token::default()), Token::parse)?;
    Ok(Session::new(consistency, token))
}
