//! The REST face: `/v1`, health and the API's description. A route and its documentation are one statement,
//! so `/openapi.json` cannot drift from what is served.

mod admin;
mod batch;
mod contexts;
pub(crate) mod dto;
mod extract;
mod front;
mod health;
mod items;
mod middleware;
pub mod problem;
mod request_id;
mod search;
mod summary;
mod transfer;
pub(crate) mod window;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use contextkeep_core::settings::LimitSettings;
use contextkeep_core::{ContextManager, Origin, Version};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use crate::app::Storage;
use crate::auth::Gatekeeper;
use crate::caching::Caching;
use crate::config::ServerSettings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::slow::SlowRequests;
use crate::telemetry::traces::Traces;
pub use front::{Front, FrontBody};
use problem::Problem;

/// Where the answer came from.
const ORIGIN: HeaderName = HeaderName::from_static("contextkeep-origin");

/// What every handler can reach, in one pointer: the router clones it for each request.
#[derive(Clone, Debug)]
pub struct Rest(Arc<Reach>);

impl std::ops::Deref for Rest {
    type Target = Reach;

    fn deref(&self) -> &Reach {
        &self.0
    }
}

impl From<Reach> for Rest {
    fn from(reach: Reach) -> Self {
        Self(Arc::new(reach))
    }
}

/// What every handler can reach.
#[derive(Debug)]
pub struct Reach {
    /// Every operation on contexts.
    pub manager: Arc<dyn ContextManager>,
    /// How much one request may ask for.
    pub limits: Arc<LimitSettings>,
    /// The server's own settings.
    pub settings: Arc<ServerSettings>,
    /// Where contexts are kept, for what it tells about itself.
    pub storage: Storage,
    /// The cache in front of them, if there is one.
    pub caching: Option<Arc<Caching>>,
    /// The figures for Prometheus, if they are kept.
    pub metrics: Option<Arc<Metrics>>,
    /// What traces requests, if any are.
    pub traces: Option<Arc<Traces>>,
    /// Which requests have a line in the log for being slow.
    pub slow: SlowRequests,
    /// Cancelled when the server begins to shut down.
    pub draining: CancellationToken,
}

/// An answer or a problem.
type Answered = Result<Response<Body>, Problem>;

#[derive(OpenApi)]
#[openapi(
    info(title = "Contextkeep", description = "Stores conversations as contexts and items, and gives a model the window that fits its budget."),
    modifiers(&Security),
    security(("bearer" = []), ()),
    tags(
        (name = "contexts", description = "Conversations and tasks"),
        (name = "items", description = "What was said, and the window"),
        (name = "batch", description = "Many contexts in one request"),
        (name = "search", description = "Full text"),
        (name = "transfer", description = "Export and import"),
        (name = "operations", description = "For whoever runs the server"),
    )
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

fn documented() -> OpenApiRouter<Rest> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(contexts::routes())
        .merge(items::routes())
        .merge(window::routes())
        .merge(batch::routes())
        .merge(search::routes())
        .merge(summary::routes())
        .merge(transfer::routes())
        .merge(health::routes())
        .merge(admin::routes())
}

/// The API's description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().split_for_parts().1
}

/// The whole face. `beside` is what else is served on the same port (MCP); it passes the same gate.
pub fn front(rest: Rest, gatekeeper: Gatekeeper, beside: Router) -> Front {
    let (routes, document) = documented().split_for_parts();
    let document = Arc::new(document);
    let routes = routes
        .route(
            "/openapi.json",
            get(move || async move { Json(document.as_ref().clone()) }),
        )
        .fallback(|| async {
            Problem::new("route_not_found", "there is nothing at this path")
                .hint("GET /openapi.json lists all paths")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new("method_not_allowed", "this path has other methods")
        })
        .with_state(rest.clone());
    let guards = Arc::new(middleware::Guards::new(rest.clone(), gatekeeper));
    let routes = middleware::around(routes.merge(beside), guards.clone());
    Front::new(rest, guards, routes)
}

/// An answer as JSON.
fn plain(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => bytes(HeaderMap::new(), status, body),
        Err(error) => {
            axum::response::IntoResponse::into_response(Problem::from(contextkeep_core::Error::Internal {
                detail: format!("an answer does not serialise: {error}"),
            }))
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize, origin: Origin) -> Response<Body> {
    from(plain(status, value), origin)
}

/// An answer that was written as bytes.
fn raw(body: impl Into<Body>, origin: Origin) -> Response<Body> {
    raw_with(HeaderMap::new(), body, origin)
}

/// As [`raw`]. `headers` is an empty map, which may have room.
fn raw_with<B>(headers: HeaderMap, body: impl Into<B>, origin: Origin) -> Response<B> {
    from(bytes(headers, StatusCode::OK, body), origin)
}

fn bytes<B>(headers: HeaderMap, status: StatusCode, body: impl Into<B>) -> Response<B> {
    let mut response = Response::new(body.into());
    *response.headers_mut() = headers;
    // Room for what the layers add, so that the map is made once.
    response.headers_mut().reserve(8);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn from<B>(mut response: Response<B>, origin: Origin) -> Response<B> {
    response
        .headers_mut()
        .insert(ORIGIN, HeaderValue::from_static(origin.as_str()));
    response
}

/// Adds the version as `ETag`.
fn tagged<B>(mut response: Response<B>, version: Version) -> Response<B> {
    // By hand: the formatter costs more than the rest of the header.
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(version).as_bytes();
    let mut text = [b'"'; 22];
    if let Some(place) = text.get_mut(1..=digits.len()) {
        place.copy_from_slice(digits);
    }
    if let Some(Ok(tag)) = text.get(..digits.len() + 2).map(HeaderValue::from_bytes) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_version_in_quotes() {
        for version in [0, 7, 10, 1234, u64::MAX] {
            let response = tagged(Response::new(()), version);
            let tag = response.headers().get(header::ETAG).unwrap();
            assert_eq!(tag.to_str().unwrap(), format!("\"{version}\""));
        }
    }
}
