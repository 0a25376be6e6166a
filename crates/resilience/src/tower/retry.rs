//! The retry as a layer.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::budget::{Budget, InFlight, Spent};
use crate::classify::{AnyError, Classify, judge};
use crate::clock::TokioClock;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::outcome::Idempotent;
use crate::retry::{Ended, Retry};

/// Repeats calls that failed.
#[derive(Debug, Clone)]
pub struct RetryLayer<C = AnyError, I = Always> {
    retry: Retry,
    classify: C,
    idempotent: I,
}

/// Which requests may be repeated. Any `Fn(&Request) -> Idempotent` says so.
pub trait Repeatable<Request>: Send + Sync {
    /// What is known of this one.
    fn repeatable(&self, request: &Request) -> Idempotent;
}

impl<F, Request> Repeatable<Request> for F
where
    F: Fn(&Request) -> Idempotent + Send + Sync,
{
    fn repeatable(&self, request: &Request) -> Idempotent {
        self(request)
    }
}

/// Every request may be repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct Always;

impl<Request> Repeatable<Request> for Always {
    fn repeatable(&self, _: &Request) -> Idempotent {
        Idempotent::Yes
    }
}

impl<C, I> RetryLayer<C, I> {
    /// Repeats by `retry`, judging by `classify`, the requests of which `idempotent` says it.
    pub const fn new(retry: Retry, classify: C, idempotent: I) -> Self {
        Self {
            retry,
            classify,
            idempotent,
        }
    }
}

impl<S, C: Clone, I: Clone> Layer<S> for RetryLayer<C, I> {
    type Service = RetryService<S, C, I>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose calls are repeated.
#[derive(Debug, Clone)]
pub struct RetryService<S, C = AnyError, I = Always> {
    inner: S,
    layer: RetryLayer<C, I>,
}

impl<S, Request, E, C, I> Service<Request> for RetryService<S, C, I>
where
    S: Service<Request, Error = Error<E>> + Clone,
    Request: Clone,
    C: Classify<S::Response, E> + Clone,
    I: Repeatable<Request>,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = RetryFuture<S, Request, S::Future, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // T2: the ready instance makes the first attempt; the later ones wait for theirs.
        let fresh = self.inner.clone();
        let mut service = mem::replace(&mut self.inner, fresh);
        let idempotent = self.layer.idempotent.repeatable(&request);
        let call = self.layer.retry.budget().map(Budget::call);
        let running = service.call(request.clone());
        RetryFuture {
            service,
            request,
            idempotent,
            retry: self.layer.retry.clone(),
            classify: self.layer.classify.clone(),
            attempts: 1,
            leave: None,
            _call: call,
            running: Some(running),
            pause: None,
        }
    }
}

pin_project! {
    /// The future of a [`RetryService`]. Dropping it gives the budget back.
    #[derive(Debug)]
    pub struct RetryFuture<S, Request, F, C> {
        service: S,
        request: Request,
        idempotent: Idempotent,
        retry: Retry,
        classify: C,
        attempts: u32,
        leave: Option<Spent>,
        _call: Option<InFlight>,
        #[pin]
        running: Option<F>,
        #[pin]
        pause: Option<Sleep>,
    }
}

impl<S, Request, E, C> Future for RetryFuture<S, Request, S::Future, C>
where
    S: Service<Request, Error = Error<E>>,
    Request: Clone,
    C: Classify<S::Response, E>,
{
    type Output = Result<S::Response, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(running) = this.running.as_mut().as_pin_mut() {
                let result = ready!(running.poll(context));
                this.running.set(None);
                *this.leave = None;
                let refusal = result
                    .as_ref()
                    .err()
                    .and_then(Error::rejected)
                    .map(|rejected| rejected.why);
                let ended = Ended {
                    attempts: *this.attempts,
                    outcome: judge(this.classify, result.as_ref()),
                    refusal,
                    remaining: Deadline::current()
                        .map(|deadline| deadline.remaining(&TokioClock).unwrap_or_default()),
                };
                if result.is_ok() {
                    return Poll::Ready(result);
                }
                let Some(planned) = this.retry.plan(*this.idempotent, &ended) else {
                    return Poll::Ready(result);
                };
                *this.leave = planned.leave;
                this.pause.set(Some(sleep(planned.delay)));
            }
            if let Some(pause) = this.pause.as_mut().as_pin_mut() {
                ready!(pause.poll(context));
                this.pause.set(None);
            }
            ready!(this.service.poll_ready(context))?;
            *this.attempts += 1;
            let attempt = this.service.call(this.request.clone());
            this.running.set(Some(attempt));
        }
    }
}
