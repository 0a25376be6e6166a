//! A service's own error, lifted into the crate's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;

/// The innermost layer of a stack.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiftLayer;

impl<S> Layer<S> for LiftLayer {
    type Service = LiftService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LiftService { inner }
    }
}

/// A service whose error is an [`Error`].
#[derive(Debug, Clone)]
pub struct LiftService<S> {
    inner: S,
}

impl<S, Request> Service<Request> for LiftService<S>
where
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = LiftFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        LiftFuture {
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of a [`LiftService`].
    #[derive(Debug)]
    pub struct LiftFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, T, E> Future for LiftFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(context).map_err(Error::Inner)
    }
}
