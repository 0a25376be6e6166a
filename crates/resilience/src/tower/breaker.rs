//! The breaker as a layer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "tokio")]
use super::readiness::Readiness;
use crate::breaker::{Breaker, Permit, conclude};
use crate::classify::{AnyError, Classify};
use crate::error::{Error, Rejected};

/// Guards a service by a breaker. The layer takes the breaker, so applying it twice does not make two.
#[derive(Debug, Clone)]
pub struct BreakerLayer<C = AnyError> {
    breaker: Breaker,
    classify: C,
    #[cfg(feature = "tokio")]
    follows: bool,
}

impl<C> BreakerLayer<C> {
    /// Guards by `breaker`, judging by `classify`. An open breaker is ready and refuses the call (T5).
    pub const fn new(breaker: Breaker, classify: C) -> Self {
        Self {
            breaker,
            classify,
            #[cfg(feature = "tokio")]
            follows: false,
        }
    }

    /// Not ready while the breaker would refuse, for a balancer that then picks another service. Somebody has
    /// to bound the wait when there is no other. A call is still refused when the breaker opens, or its last
    /// probe goes out, between readiness and call.
    ///
    /// A half-open breaker whose probes are all out is looked at again when one of them is decided, or is
    /// given up after its wait.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub const fn unready_while_open(mut self) -> Self {
        self.follows = true;
        self
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = BreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService {
            inner,
            breaker: self.breaker.clone(),
            classify: self.classify.clone(),
            #[cfg(feature = "tokio")]
            readiness: self.follows.then(|| Readiness::of(self.breaker.clone())),
        }
    }
}

/// A service behind a breaker.
#[derive(Debug, Clone)]
pub struct BreakerService<S, C = AnyError> {
    inner: S,
    breaker: Breaker,
    classify: C,
    #[cfg(feature = "tokio")]
    readiness: Option<Readiness>,
}

impl<S, Request, E, C> Service<Request> for BreakerService<S, C>
where
    S: Service<Request, Error = Error<E>>,
    C: Classify<S::Response, E> + Clone,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = BreakerFuture<S::Future, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        #[cfg(feature = "tokio")]
        if let Some(readiness) = &mut self.readiness {
            ready!(readiness.poll(context));
        }
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (inner, permit, rejected) = match self.breaker.try_acquire() {
            Ok(permit) => (Some(self.inner.call(request)), Some(permit), None),
            Err(rejected) => (None, None, Some(rejected)),
        };
        BreakerFuture {
            inner,
            permit,
            rejected,
            classify: self.classify.clone(),
        }
    }
}

pin_project! {
    /// The future of a [`BreakerService`]. Dropping it abandons the call.
    #[derive(Debug)]
    pub struct BreakerFuture<F, C> {
        // Turned away: `None`, and the reason until it is told.
        #[pin]
        inner: Option<F>,
        rejected: Option<Rejected>,
        permit: Option<Permit>,
        classify: C,
    }
}

impl<F, C, T, E> Future for BreakerFuture<F, C>
where
    F: Future<Output = Result<T, Error<E>>>,
    C: Classify<T, E>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(rejected) = this.rejected.take() {
            return Poll::Ready(Err(rejected.into()));
        }
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let result = ready!(inner.poll(context));
        this.inner.set(None);
        if let Some(permit) = this.permit.take() {
            conclude(permit, this.classify, &result);
        }
        Poll::Ready(result)
    }
}
