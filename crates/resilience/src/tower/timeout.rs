//! Timeouts as a layer, for an attempt or for the whole operation.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::TokioClock;
use crate::deadline::{Deadline, enter};
use crate::error::{Error, Rejected, Why};
use crate::name::Name;

/// Ends calls that take too long; sooner, when the task's [`Deadline`] is nearer.
#[derive(Debug, Clone)]
pub struct TimeoutLayer {
    name: Name,
    limit: Duration,
    why: Why,
}

impl TimeoutLayer {
    /// For one attempt, inside the breaker: running out is [`Why::AttemptTimeout`], a failure.
    pub fn attempt(name: impl Into<Name>, limit: Duration) -> Self {
        Self {
            name: name.into(),
            limit,
            why: Why::AttemptTimeout,
        }
    }

    /// For the whole operation, outermost: running out is [`Why::Deadline`], and everything inside runs
    /// under that deadline.
    pub fn total(name: impl Into<Name>, limit: Duration) -> Self {
        Self {
            name: name.into(),
            limit,
            why: Why::Deadline,
        }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = TimeoutService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service under a timeout.
#[derive(Debug, Clone)]
pub struct TimeoutService<S> {
    inner: S,
    layer: TimeoutLayer,
}

impl<S, Request, E> Service<Request> for TimeoutService<S>
where
    S: Service<Request, Error = Error<E>>,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let TimeoutLayer { name, limit, why } = self.layer.clone();
        let outer = Deadline::current().map(|outer| outer.remaining(&TokioClock).unwrap_or_default());
        let (limit, why) = match outer {
            Some(outer) if outer < limit => (outer, Why::Deadline),
            _ => (limit, why),
        };
        let scope = (why == Why::Deadline).then(|| Deadline::within(limit, &TokioClock));
        let _scope = scope.map(enter);
        TimeoutFuture {
            inner: self.inner.call(request),
            timer: None,
            name,
            limit,
            why,
            scope,
        }
    }
}

pin_project! {
    /// The future of a [`TimeoutService`]. The service's future is polled before a timer is armed.
    #[derive(Debug)]
    pub struct TimeoutFuture<F> {
        #[pin]
        inner: F,
        #[pin]
        timer: Option<Sleep>,
        name: Name,
        limit: Duration,
        why: Why,
        scope: Option<Deadline>,
    }
}

impl<F, T, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<T, Error<E>>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let scope = this.scope.map(enter);
        if let Poll::Ready(result) = this.inner.poll(context) {
            return Poll::Ready(result);
        }
        drop(scope);
        if this.timer.is_none() {
            this.timer.set(Some(sleep(*this.limit)));
        }
        match this.timer.as_pin_mut() {
            Some(timer) => timer
                .poll(context)
                .map(|()| Err(Rejected::new(this.name.clone(), *this.why, None).into())),
            None => Poll::Pending,
        }
    }
}
