//! The fallback as a layer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::fallback::{Fallback, Served};

/// Looks for another answer when a call failed. `serve` is given the request and the error, and answers
/// `None` when it has nothing or when the error is itself an answer.
#[derive(Debug, Clone)]
pub struct FallbackLayer<F> {
    bounds: Fallback,
    serve: F,
}

impl<F> FallbackLayer<F> {
    /// Within `bounds`, by `serve`.
    pub const fn new(bounds: Fallback, serve: F) -> Self {
        Self { bounds, serve }
    }
}

impl<S, F: Clone> Layer<S> for FallbackLayer<F> {
    type Service = FallbackService<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        FallbackService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose answers say where they came from.
#[derive(Debug, Clone)]
pub struct FallbackService<S, F> {
    inner: S,
    layer: FallbackLayer<F>,
}

impl<S, Request, E, F, Last> Service<Request> for FallbackService<S, F>
where
    S: Service<Request, Error = Error<E>>,
    Request: Clone,
    F: Fn(Request, &Error<E>) -> Last + Clone,
    Last: Future<Output = Option<Served<S::Response>>>,
{
    type Response = Served<S::Response>;
    type Error = Error<E>;
    type Future = FallbackFuture<S::Future, Request, F, Last, Error<E>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        FallbackFuture {
            inner: self.inner.call(request.clone()),
            request: Some(request),
            layer: self.layer.clone(),
            last: None,
            timer: None,
            error: None,
        }
    }
}

pin_project! {
    /// The future of a [`FallbackService`].
    #[derive(Debug)]
    pub struct FallbackFuture<I, Request, F, Last, E> {
        #[pin]
        inner: I,
        request: Option<Request>,
        layer: FallbackLayer<F>,
        #[pin]
        last: Option<Last>,
        #[pin]
        timer: Option<Sleep>,
        error: Option<E>,
    }
}

impl<I, Request, T, E, F, Last> Future for FallbackFuture<I, Request, F, Last, Error<E>>
where
    I: Future<Output = Result<T, Error<E>>>,
    F: Fn(Request, &Error<E>) -> Last,
    Last: Future<Output = Option<Served<T>>>,
{
    type Output = Result<Served<T>, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(request) = this.request.take() {
            match this.inner.poll(context) {
                Poll::Ready(Ok(value)) => return Poll::Ready(Ok(Served::fresh(value))),
                Poll::Ready(Err(error)) => {
                    this.last.set(Some((this.layer.serve)(request, &error)));
                    *this.error = Some(error);
                }
                Poll::Pending => {
                    *this.request = Some(request);
                    return Poll::Pending;
                }
            }
        }
        let Some(last) = this.last.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let served = if let Poll::Ready(served) = last.poll(context) {
            served.filter(|served| this.layer.bounds.allows(served))
        } else {
            if this.timer.is_none() {
                this.timer.set(Some(sleep(this.layer.bounds.timeout)));
            }
            if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                ready!(timer.poll(context));
            }
            None
        };
        this.last.set(None);
        match (served, this.error.take()) {
            (Some(served), _) => Poll::Ready(Ok(served)),
            (None, Some(error)) => Poll::Ready(Err(error)),
            (None, None) => Poll::Pending,
        }
    }
}
