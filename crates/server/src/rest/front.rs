//! In front of the router: a window that is kept ready is answered here, everything else behind.
//!
//! Such an answer is a look into memory and a copy of nothing, and the way through the router costs more than that. What
//! is answered here is what the route would have answered, and whatever is out of the ordinary is left to the route:
//! another method, an odd path, a refusal, a parameter that does not parse.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use contextkeep_core::{ContextId, ContextKey};
use futures_util::future::{Either, Ready, ready};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use super::extract::Params;
use super::middleware::{self, Guards};
use super::{Rest, request_id, window};
use crate::session;

/// All that is served on the port.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    rest: Rest,
    guards: Arc<Guards>,
    routes: Router,
}

impl Front {
    /// `routes` have `guards` around them already.
    pub(super) fn new(rest: Rest, guards: Arc<Guards>, routes: Router) -> Self {
        Self(Arc::new(Inner { rest, guards, routes }))
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("rest", &self.0.rest)
            .finish_non_exhaustive()
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, Oneshot<Router, Request<Incoming>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match self.0.window(&request) {
            Some(response) => Either::Left(ready(Ok(response))),
            None => Either::Right(self.0.routes.clone().oneshot(request)),
        }
    }
}

impl Inner {
    fn window<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let id = request
            .uri()
            .path()
            .strip_prefix("/v1/contexts/")?
            .strip_suffix("/window")?;
        if request.method() != Method::GET {
            return None;
        }
        let begun = Instant::now();
        let _permit = self.guards.permit()?;
        let principal = self.guards.gatekeeper.admit(request.headers()).ok()?;
        // A percent sign or a slash is not in the alphabet of ids.
        let key = ContextKey::new(principal.tenant, ContextId::parse(id).ok()?);
        let asked = window::asked(Params::of(request.uri())).ok()?;
        let session = session::asked(request.headers()).ok()?;
        let ready = session.sync_scope(|| self.rest.manager.window_ready(&key, &asked.request))?;
        let mut response = window::answer(&ready, asked.format);
        session::tell(&session, &mut response);
        let id = request_id::of(request.headers());
        let method = request.method();
        let trace = self
            .guards
            .trace(method, request.headers(), Some(window::PATH), begun);
        middleware::served(method, window::PATH, &id, begun, trace, &mut response);
        Some(response)
    }
}
