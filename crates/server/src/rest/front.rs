//! In front of the router: heads, and windows that are kept ready, are answered here, everything else behind.
//!
//! An answer from memory is a look and a copy of nothing, and the way through the router costs more than that; for a head
//! that is waited for it is much beside the waiting. What is answered here is what the route would have answered, and whatever is out of the
//! ordinary is left to the route: another method, an odd path, a parameter that does not parse.

mod body;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response};
use axum::response::IntoResponse as _;
use contextkeep_core::session::Session;
use contextkeep_core::window::Format;
use contextkeep_core::{ContextId, ContextKey, Head, Window};
use futures_util::future::{Either, MapOk, Ready, ready};
use futures_util::{FutureExt as _, TryFutureExt as _};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower::util::Oneshot;

pub use self::body::FrontBody;
use super::extract::Params;
use super::middleware::{self, Guards, Passed};
use super::problem::Problem;
use super::request_id::{self, REQUEST_ID};
use super::{Rest, contexts, window};
use crate::session;
use crate::telemetry::metrics::requests::{self, Requests};
use crate::telemetry::traces::Trace;
use crate::timer::ConnectionTimer;

/// Largest map of a request's headers that is used again for an answer's: a connection keeps the map that it was sent.
const HEADERS_MAX: usize = 16;

/// All that is served on the port.
#[derive(Clone)]
pub struct Front {
    inner: Arc<Inner>,
    /// For what is waited for here. Requests of a connection come one after the other.
    timer: ConnectionTimer,
}

struct Inner {
    rest: Rest,
    guards: Arc<Guards>,
    routes: Router,
    heads: Arc<Requests>,
    windows: Arc<Requests>,
}

impl Front {
    /// `routes` have `guards` around them already.
    pub(super) fn new(rest: Rest, guards: Arc<Guards>, routes: Router) -> Self {
        let inner = Arc::new(Inner {
            rest,
            guards,
            routes,
            heads: requests::of_route(contexts::PATH),
            windows: requests::of_route(window::PATH),
        });
        Self {
            inner,
            timer: ConnectionTimer::default(),
        }
    }

    /// For one more connection.
    #[must_use]
    pub fn on_connection(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            timer: ConnectionTimer::default(),
        }
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("rest", &self.inner.rest)
            .finish_non_exhaustive()
    }
}

type Answer = Response<FrontBody>;
type Routed = MapOk<Oneshot<Router, Request<Incoming>>, fn(Response<Body>) -> Answer>;
type Waiting = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Answer;
    type Error = Infallible;
    type Future = Either<Ready<Result<Answer, Infallible>>, Either<Waiting, Routed>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(visit) = self.inner.visit(&request) {
            if let Some(found) = self.inner.found(&visit) {
                return Either::Left(ready(Ok(self.inner.answer(
                    &visit,
                    &found,
                    request.headers_mut(),
                ))));
            }
            // Whoever traces wants to know what is waited for, which the routes tell.
            if matches!(visit.asked, Asked::Head) && self.inner.rest.traces.is_none() {
                let headers = emptied(request.headers_mut());
                let head = self.clone().head(visit, headers).map(Ok);
                return Either::Right(Either::Left(Box::pin(head)));
            }
        }
        let routed: fn(Response<Body>) -> Answer = |response| response.map(FrontBody::Routed);
        let routed = self.inner.routes.clone().oneshot(request).map_ok(routed);
        Either::Right(Either::Right(routed))
    }
}

/// A request that may be answered here.
struct Visit {
    begun: Instant,
    key: ContextKey,
    asked: Asked,
    session: Arc<Session>,
    /// As the client named the request.
    id: Option<HeaderValue>,
}

impl Visit {
    fn passed<'visit>(
        &'visit self,
        route: &'visit str,
        requests: &'visit Requests,
        trace: Option<Trace>,
    ) -> Passed<'visit> {
        Passed {
            method: &Method::GET,
            route,
            requests,
            id: request_id::or_fresh(self.id.as_ref()),
            begun: self.begun,
            trace,
            session: Some(&self.session),
        }
    }
}

enum Asked {
    Head,
    Window(window::Asked),
}

impl Asked {
    /// Of which context what is asked for.
    fn by<B>(request: &Request<B>) -> Option<(ContextId, Self)> {
        if request.method() != Method::GET {
            return None;
        }
        let uri = request.uri();
        let path = uri.path().strip_prefix("/v1/contexts/")?;
        // A percent sign or a slash is not in the alphabet of ids.
        match path.strip_suffix("/window") {
            Some(id) => {
                let id = ContextId::parse(id).ok()?;
                Some((id, Self::Window(window::asked(Params::of(uri)).ok()?)))
            }
            None if uri.query().is_none() => Some((ContextId::parse(path).ok()?, Self::Head)),
            None => None,
        }
    }
}

impl Inner {
    fn visit<B>(&self, request: &Request<B>) -> Option<Visit> {
        let (id, asked) = Asked::by(request)?;
        let begun = Instant::now();
        let principal = self.guards.gatekeeper.admit(request.headers()).ok()?;
        let said = Said::by(request.headers());
        Some(Visit {
            begun,
            key: ContextKey::new(principal.tenant.clone(), id),
            asked,
            session: session::of(said.token, said.consistency).ok()?,
            id: said.request_id.cloned(),
        })
    }

    /// What is ready.
    fn found(&self, visit: &Visit) -> Option<Found> {
        if self.guards.is_full() {
            return None;
        }
        let manager = &*self.rest.manager;
        visit.session.sync_scope(|| match &visit.asked {
            Asked::Head => manager.get_ready(&visit.key).map(Found::Head),
            Asked::Window(asked) => {
                let found = manager.window_ready(&visit.key, &asked.request)?;
                Some(Found::Window(found, asked.format))
            }
        })
    }

    fn answer(&self, visit: &Visit, found: &Found, asked: &mut HeaderMap) -> Answer {
        let (route, requests) = match found {
            Found::Head(_) => (contexts::PATH, &self.heads),
            Found::Window(..) => (window::PATH, &self.windows),
        };
        let trace = self.guards.trace(&Method::GET, asked, Some(route), visit.begun);
        let headers = emptied(asked);
        let (mut response, token) = match found {
            Found::Head(head) => (contexts::answer(headers, head), head.value.token()),
            Found::Window(window, format) => {
                let token = window.value.written.token();
                (window::answer(headers, window, *format), token)
            }
        };
        session::tell_with(&visit.session, token, &mut response);
        self.guards
            .served(visit.passed(route, requests, trace), &mut response);
        response
    }

    /// A head that is to be waited for.
    async fn get(&self, visit: &Visit, headers: HeaderMap, timer: &ConnectionTimer) -> Answer {
        let refused = |problem: Problem| problem.into_response().map(FrontBody::Routed);
        let Some(_permit) = self.guards.permit() else {
            return refused(middleware::busy());
        };
        let limit = self.rest.settings.request_timeout;
        let work = visit.session.scope(self.rest.manager.get(&visit.key));
        let mut response = match timer.within(visit.begun, limit, work).await {
            Some(Ok(head)) => contexts::answer(headers, &head),
            Some(Err(error)) => refused(error.into()),
            None => return refused(middleware::late(limit)),
        };
        session::tell(&visit.session, &mut response);
        response
    }
}

impl Front {
    /// As the route answers behind the guards.
    async fn head(self, visit: Visit, headers: HeaderMap) -> Answer {
        let Inner { guards, heads, .. } = &*self.inner;
        let mut response = self.inner.get(&visit, headers, &self.timer).await;
        guards.served(visit.passed(contexts::PATH, heads, None), &mut response);
        response
    }
}

/// What is ready.
enum Found {
    Head(contextkeep_core::Answer<Arc<Head>>),
    Window(contextkeep_core::Answer<Arc<Window>>, Format),
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
