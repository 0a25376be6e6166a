//! In front of the router: a window that is kept ready is answered here, everything else behind.
//!
//! Such an answer is a look into memory and a copy of nothing, and the way through the router costs more than that. What
//! is answered here is what the route would have answered, and whatever is out of the ordinary is left to the route:
//! another method, an odd path, a refusal, a parameter that does not parse.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response};
use contextkeep_core::{ContextId, ContextKey};
use futures_util::TryFutureExt as _;
use futures_util::future::{Either, MapOk, Ready, ready};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use super::extract::Params;
use super::middleware::{self, Guards};
use super::request_id::{self, REQUEST_ID};
use super::{Rest, window};
use crate::session;
use crate::telemetry::metrics::requests::{self, Requests};

/// Largest map of a request's headers that is used again for an answer's: a connection keeps the map that it was sent.
const HEADERS_MAX: usize = 16;

/// All that is served on the port.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    rest: Rest,
    guards: Arc<Guards>,
    routes: Router,
    windows: Arc<Requests>,
}

impl Front {
    /// `routes` have `guards` around them already.
    pub(super) fn new(rest: Rest, guards: Arc<Guards>, routes: Router) -> Self {
        Self(Arc::new(Inner {
            rest,
            guards,
            routes,
            windows: requests::of_route(window::PATH),
        }))
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("rest", &self.0.rest)
            .finish_non_exhaustive()
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum FrontBody {
    /// All of it, unless it was taken.
    Ready(Option<Bytes>),
    /// What a route gives.
    Routed(Body),
}

impl From<Bytes> for FrontBody {
    fn from(bytes: Bytes) -> Self {
        Self::Ready(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl hyper::body::Body for FrontBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Ready(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ready(bytes) => bytes.is_none(),
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ready(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Routed(body) => body.size_hint(),
        }
    }
}

type Answer = Response<FrontBody>;
type Routed = MapOk<Oneshot<Router, Request<Incoming>>, fn(Response<Body>) -> Answer>;

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Answer;
    type Error = Infallible;
    type Future = Either<Ready<Result<Answer, Infallible>>, Routed>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(response) = self.0.window(&mut request) {
            return Either::Left(ready(Ok(response)));
        }
        let routed: fn(Response<Body>) -> Answer = |response| response.map(FrontBody::Routed);
        Either::Right(self.0.routes.clone().oneshot(request).map_ok(routed))
    }
}

impl Inner {
    /// The answer, if it is ready; else the request is as it was.
    fn window<B>(&self, request: &mut Request<B>) -> Option<Answer> {
        let id = request
            .uri()
            .path()
            .strip_prefix("/v1/contexts/")?
            .strip_suffix("/window")?;
        if request.method() != Method::GET || self.guards.is_full() {
            return None;
        }
        let begun = Instant::now();
        let principal = self.guards.gatekeeper.admit(request.headers()).ok()?;
        // A percent sign or a slash is not in the alphabet of ids.
        let key = ContextKey::new(principal.tenant.clone(), ContextId::parse(id).ok()?);
        let asked = window::asked(Params::of(request.uri())).ok()?;
        let said = Said::by(request.headers());
        let session = session::of(said.token, said.consistency).ok()?;
        let ready = session.sync_scope(|| self.rest.manager.window_ready(&key, &asked.request))?;
        let id = request_id::or_fresh(said.request_id);
        let trace = self
            .guards
            .trace(&Method::GET, request.headers(), Some(window::PATH), begun);
        let mut response = window::answer(emptied(request.headers_mut()), &ready, asked.format);
        session::tell_with(&session, ready.value.written.token(), &mut response);
        middleware::served(
            &Method::GET,
            window::PATH,
            &self.windows,
            &id,
            begun,
            trace,
            &response,
        );
        response.headers_mut().insert(REQUEST_ID, id);
        Some(response)
    }
}

/// What a request says in headers of ours.
#[derive(Default)]
struct Said<'request> {
    token: Option<&'request HeaderValue>,
    consistency: Option<&'request HeaderValue>,
    request_id: Option<&'request HeaderValue>,
}

impl<'request> Said<'request> {
    /// In one pass: requests have few headers, and to look for a name that is not a standard one is to hash it. Of several
    /// of one name the first counts, as everywhere.
    fn by(headers: &'request HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let place = if *name == session::TOKEN {
                &mut said.token
            } else if *name == session::CONSISTENCY {
                &mut said.consistency
            } else if *name == REQUEST_ID {
                &mut said.request_id
            } else {
                continue;
            };
            place.get_or_insert(value);
        }
        said
    }
}

/// The map of a request that nobody looks at any more, for its answer. hyper hands a connection's next request the map of
/// the answer before, so that most connections make one only.
fn emptied(headers: &mut HeaderMap) -> HeaderMap {
    let mut headers = std::mem::take(headers);
    if headers.capacity() > HEADERS_MAX {
        return HeaderMap::new();
    }
    headers.clear();
    headers
}
