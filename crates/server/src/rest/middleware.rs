//! What happens to every request, from the outside in: a request id and a line in the log, the bound on
//! requests at once, the time limit, the gate.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use contextkeep_core::session::Session;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tracing::field::display;

use super::problem::{CODE, Problem};
use super::request_id::{self, REQUEST_ID};
use super::{ORIGIN, Rest};
use crate::auth::Gatekeeper;
use crate::telemetry::metrics::requests::{self, Requests};
use crate::telemetry::slow;
use crate::telemetry::traces::{Answered, Trace};
use crate::{mcp, session};

/// What every request passes.
pub(super) struct Guards {
    pub(super) gatekeeper: Gatekeeper,
    permits: Semaphore,
    rest: Rest,
}

impl Guards {
    pub(super) fn new(rest: Rest, gatekeeper: Gatekeeper) -> Self {
        Self {
            gatekeeper,
            permits: Semaphore::new(rest.settings.max_requests),
            rest,
        }
    }

    /// The right to be served among `server.max_requests`.
    pub(super) fn permit(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.try_acquire().ok()
    }

    /// Whether `server.max_requests` are being served. What is answered at once, without waiting for anything, asks this
    /// and takes no permit: there are never more of its kind than threads, and a permit would travel between them.
    pub(super) fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// The trace of a request, if it is traced. `route` is the path of the route.
    pub(super) fn trace(
        &self,
        method: &Method,
        headers: &HeaderMap,
        route: Option<&str>,
        begun: Instant,
    ) -> Option<Trace> {
        let traces = self.rest.traces.as_ref()?;
        // Probes and scrapes come by the clock, and nobody wants to know what they waited for.
        let is_probe = || matches!(route, Some("/healthz" | "/readyz" | "/metrics"));
        let root = traces.of_request(headers, || !is_probe() && self.gatekeeper.admit(headers).is_ok())?;
        Some(root.request(method, route, begun))
    }
}

/// One layer and not five: each would box its future and clone what is behind it.
pub(super) fn around(routes: Router, guards: Arc<Guards>) -> Router {
    routes.layer(from_fn_with_state(guards, observe))
}

type Answer = Response<Body>;

async fn observe(State(guards): State<Arc<Guards>>, mut request: Request, next: Next) -> Answer {
    let id = request_id::of(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = Instant::now();
    let trace = guards.trace(
        &method,
        request.headers(),
        route.as_ref().map(MatchedPath::as_str),
        begun,
    );
    if let (None, Some(traces)) = (&trace, &guards.rest.traces)
        && request.uri().path().starts_with(mcp::PATH)
    {
        request.extensions_mut().insert(traces.calls_of_others());
    }
    let mut response = match &trace {
        None => limit_requests(&guards, request, next).await,
        // In a box, so that a request that is not traced has no room for it in its future.
        Some(trace) => Box::pin(limit_traced(&guards, request, next, trace)).await,
    };
    let session = response.extensions_mut().remove::<Arc<Session>>();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let passed = Passed {
        method: &method,
        route,
        requests: &requests::of_route(route),
        id,
        begun,
        trace,
        session: session.as_deref(),
    };
    guards.served(passed, &mut response);
    response
}

/// A request that was answered.
pub(super) struct Passed<'request> {
    pub(super) method: &'request Method,
    /// The path of its route.
    pub(super) route: &'request str,
    /// Those of the route.
    pub(super) requests: &'request Requests,
    pub(super) id: HeaderValue,
    pub(super) begun: Instant,
    pub(super) trace: Option<Trace>,
    /// Where the time went, if it took long.
    pub(super) session: Option<&'request Session>,
}

impl Guards {
    /// Notes that a request was answered, and gives the answer its name.
    pub(super) fn served<B>(&self, passed: Passed<'_>, response: &mut Response<B>) {
        let Passed { method, route, .. } = passed;
        let status = response.status();
        // Paths carry ids and bodies carry conversations: neither is logged.
        let took = passed.begun.elapsed();
        passed.requests.served(method, status, took);
        let duration_ms = took.as_secs_f64() * 1000.0;
        let request_id = request_id::text(&passed.id);
        let trace_id = passed.trace.as_ref().map(Trace::id);
        if let Some(trace) = passed.trace {
            let text = |name: &HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
            trace.answered(&Answered {
                status,
                code: text(&CODE),
                origin: text(&ORIGIN),
                request_id,
            });
        }
        let trace = trace_id.map(display);
        if status.is_server_error() {
            let code = response.headers().get(CODE);
            let code = code.and_then(|code| code.to_str().ok()).unwrap_or_default();
            tracing::warn!(%method, route, status = status.as_u16(), code, duration_ms, request_id, trace_id = trace, "request failed");
        } else {
            tracing::debug!(%method, route, status = status.as_u16(), duration_ms, request_id, trace_id = trace, "request served");
        }
        // These take as long as there is to read or to send.
        if self.rest.slow.is(took) && !matches!(route, "/v1/import" | "/v1/contexts/{id}/export") {
            self.rest.slow.tell(&slow::Request {
                id: request_id,
                trace_id,
                method: method.as_str(),
                route,
                status: status.as_u16(),
                took,
                session: passed.session,
            });
        }
        response.headers_mut().insert(REQUEST_ID, passed.id);
    }
}

/// As [`limit_requests`], with what it waits for kept for the trace, and the calls in it traced.
async fn limit_traced(guards: &Guards, mut request: Request, next: Next, trace: &Trace) -> Answer {
    request.extensions_mut().insert(trace.calls());
    Box::pin(trace.scope(limit_requests(guards, request, next))).await
}

async fn limit_requests(guards: &Guards, request: Request, next: Next) -> Answer {
    // Whether the server lives and is ready must be answered under load as well,
    // and so must what is wrong.
    let path = request.uri().path();
    if matches!(path, "/healthz" | "/readyz" | "/metrics") || path.starts_with("/admin/") {
        return limit_time(guards, request, next).await;
    }
    match guards.permit() {
        Some(_permit) => limit_time(guards, request, next).await,
        None => busy().into_response(),
    }
}

async fn limit_time(guards: &Guards, request: Request, next: Next) -> Answer {
    // An import reads for as long as the client sends; it bounds the wait for each piece itself.
    if request.uri().path() == "/v1/import" {
        return gate(guards, request, next).await;
    }
    let limit = guards.rest.settings.request_timeout;
    match within(limit, gate(guards, request, next)).await {
        Some(response) => response,
        None => late(limit).into_response(),
    }
}

/// For whom there is no [permit](Guards::permit).
pub(super) fn busy() -> Problem {
    Problem::new("busy", "as many requests as server.max_requests are being served").retry_after(1)
}

/// For who was not answered [within](within) the limit.
pub(super) fn late(limit: Duration) -> Problem {
    Problem::new("timeout", format!("the request took longer than {limit:?}"))
        .hint("repeat a write with the same Idempotency-Key")
        .retry_after(1)
}

/// As [`tokio::time::timeout`]: what is answered from memory arms no timer, and what waits is not polled again for one.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut timer) = (pin!(work), pin!(None));
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(limit)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

async fn gate(guards: &Guards, mut request: Request, next: Next) -> Answer {
    if matches!(request.uri().path(), "/healthz" | "/readyz" | "/openapi.json") {
        return next.run(request).await;
    }
    match guards.gatekeeper.admit(request.headers()) {
        Ok(principal) => {
            request.extensions_mut().insert(principal.clone());
            if request.uri().path().starts_with(mcp::PATH) {
                // Its endpoint looks for a session itself: without the headers there is none.
                next.run(request).await
            } else {
                in_session(guards, request, next).await
            }
        }
        Err(refusal) => Problem::new("unauthorized", refusal.to_string())
            .hint(refusal.hint())
            .into_response(),
    }
}

/// Puts a request into its client's session (G4).
async fn in_session(guards: &Guards, request: Request, next: Next) -> Answer {
    let begun = Instant::now();
    let session = match session::asked(request.headers()) {
        Ok(session) => session,
        Err(error) => return Problem::from(error).into_response(),
    };
    let mut response = session.scope(next.run(request)).await;
    session::tell(&session, &mut response);
    if guards.rest.slow.is(begun.elapsed()) {
        // For the line in the log: where the time went.
        response.extensions_mut().insert(session);
    }
    response
}
