//! The bulkhead as a layer.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::bulkhead::{Acquire, Bulkhead, Slot};
use crate::error::{Error, Rejected, Why};
use crate::name::Name;

/// Limits the calls to a service. The layer takes the bulkhead, so applying it twice does not make two.
#[derive(Debug, Clone)]
pub struct BulkheadLayer {
    bulkhead: Bulkhead,
    queue_wait: Option<Duration>,
}

impl BulkheadLayer {
    /// Limits by `bulkhead`, without a limit on the time in its queue.
    pub const fn new(bulkhead: Bulkhead) -> Self {
        Self {
            bulkhead,
            queue_wait: None,
        }
    }

    /// Leave the queue after this long.
    #[must_use]
    pub const fn queue_wait(mut self, limit: Duration) -> Self {
        self.queue_wait = Some(limit);
        self
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a bulkhead.
#[derive(Debug, Clone)]
pub struct BulkheadService<S> {
    inner: S,
    layer: BulkheadLayer,
}

impl<S, Request, E> Service<Request> for BulkheadService<S>
where
    S: Service<Request, Error = Error<E>> + Clone,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = BulkheadFuture<S, Request, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // T2: the call may have to wait, so the ready instance goes with it and a fresh one stays.
        let fresh = self.inner.clone();
        let service = mem::replace(&mut self.inner, fresh);
        BulkheadFuture {
            name: self.layer.bulkhead.name_to_share(),
            acquire: Some(self.layer.bulkhead.acquire()),
            waiting: Some((service, request)),
            limit: self.layer.queue_wait,
            timer: None,
            running: None,
            slot: None,
        }
    }
}

pin_project! {
    /// The future of a [`BulkheadService`]. Dropping it leaves the queue or frees the slot.
    #[derive(Debug)]
    pub struct BulkheadFuture<S, Request, F> {
        name: Name,
        acquire: Option<Acquire>,
        waiting: Option<(S, Request)>,
        limit: Option<Duration>,
        #[pin]
        timer: Option<Sleep>,
        #[pin]
        running: Option<F>,
        slot: Option<Slot>,
    }
}

impl<S, Request, E> Future for BulkheadFuture<S, Request, S::Future>
where
    S: Service<Request, Error = Error<E>>,
{
    type Output = Result<S::Response, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(acquire) = this.acquire {
            let Poll::Ready(slot) = Pin::new(acquire).poll(context) else {
                let Some(limit) = *this.limit else {
                    return Poll::Pending;
                };
                if this.timer.is_none() {
                    this.timer.set(Some(sleep(limit)));
                }
                if let Some(timer) = this.timer.as_pin_mut() {
                    ready!(timer.poll(context));
                }
                *this.acquire = None;
                return Poll::Ready(Err(
                    Rejected::new(this.name.clone(), Why::QueueTimeout, None).into()
                ));
            };
            *this.acquire = None;
            this.timer.set(None);
            *this.slot = Some(slot?);
            if let Some((mut service, request)) = this.waiting.take() {
                this.running.set(Some(service.call(request)));
            }
        }
        let Some(running) = this.running.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let result = ready!(running.poll(context));
        this.running.set(None);
        *this.slot = None;
        Poll::Ready(result)
    }
}
