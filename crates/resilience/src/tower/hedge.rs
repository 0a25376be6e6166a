//! The hedge as a layer.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use super::retry::{Always, Repeatable};
use crate::budget::InFlight;
use crate::error::Error;
use crate::hedge::{Hedge, Leave};
use crate::outcome::Idempotent;

/// Sends a second call when the first is unusually late.
#[derive(Debug, Clone)]
pub struct HedgeLayer<I = Always> {
    hedge: Hedge,
    idempotent: I,
    books: bool,
}

impl<I> HedgeLayer<I> {
    /// Hedges by `hedge` the requests of which `idempotent` says it.
    pub const fn new(hedge: Hedge, idempotent: I) -> Self {
        Self {
            hedge,
            idempotent,
            books: true,
        }
    }

    /// For a hedge inside a [`RetryLayer`](super::RetryLayer) on the same budget, which books each call in it:
    /// booked here as well, and for each attempt, a tenth would be a fifth and more.
    #[must_use]
    pub const fn within_retry(mut self) -> Self {
        self.books = false;
        self
    }
}

impl<S, I: Clone> Layer<S> for HedgeLayer<I> {
    type Service = HedgeService<S, I>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose late calls are joined by a second.
#[derive(Debug, Clone)]
pub struct HedgeService<S, I = Always> {
    inner: S,
    layer: HedgeLayer<I>,
}

impl<S, Request, E, I> Service<Request> for HedgeService<S, I>
where
    S: Service<Request, Error = Error<E>> + Clone,
    Request: Clone,
    I: Repeatable<Request>,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = HedgeFuture<S, Request, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let fresh = self.inner.clone();
        let mut service = mem::replace(&mut self.inner, fresh);
        let hedge = self.layer.hedge.clone();
        let hedged = self.layer.idempotent.repeatable(&request) == Idempotent::Yes;
        let spare = hedged.then(|| request.clone());
        HedgeFuture {
            delay: hedge.delay(),
            _call: self.layer.books.then(|| hedge.budget().call()),
            first: Some(service.call(request)),
            second: None,
            timer: None,
            leave: None,
            failed: false,
            service,
            spare,
            hedge,
        }
    }
}

pin_project! {
    /// The future of a [`HedgeService`]. The first good answer wins and the other call is dropped.
    #[derive(Debug)]
    pub struct HedgeFuture<S, Request, F> {
        service: S,
        // The request, until a second call has taken it or none will.
        spare: Option<Request>,
        hedge: Hedge,
        delay: Duration,
        #[pin]
        first: Option<F>,
        #[pin]
        second: Option<F>,
        #[pin]
        timer: Option<Sleep>,
        leave: Option<Leave>,
        failed: bool,
        _call: Option<InFlight>,
    }
}

impl<S, Request, E> Future for HedgeFuture<S, Request, S::Future>
where
    S: Service<Request, Error = Error<E>>,
{
    type Output = Result<S::Response, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = first.poll(context)
        {
            this.first.set(None);
            let in_time = this.spare.is_some() && this.leave.is_none();
            if result.is_ok() && in_time {
                this.hedge.in_time();
            }
            if result.is_ok() || this.second.is_none() || mem::replace(this.failed, true) {
                return Poll::Ready(result);
            }
        }
        if this.second.is_none() && this.spare.is_some() {
            if this.leave.is_none() {
                if this.timer.is_none() {
                    this.timer.set(Some(sleep(*this.delay)));
                }
                if this
                    .timer
                    .as_mut()
                    .as_pin_mut()
                    .is_some_and(|timer| timer.poll(context).is_pending())
                {
                    return Poll::Pending;
                }
                this.hedge.late();
                *this.leave = this.hedge.try_start();
            }
            if this.leave.is_none() {
                *this.spare = None;
                return Poll::Pending;
            }
            // A service that cannot take a second call now is not asked to: the first goes on alone.
            match (this.service.poll_ready(context), this.spare.take()) {
                (Poll::Ready(Ok(())), Some(request)) => {
                    let call = this.service.call(request);
                    this.second.set(Some(call));
                }
                _ => *this.leave = None,
            }
        }
        if let Some(second) = this.second.as_mut().as_pin_mut()
            && let Poll::Ready(result) = second.poll(context)
        {
            this.second.set(None);
            *this.leave = None;
            if result.is_ok() || this.first.is_none() || mem::replace(this.failed, true) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }
}
