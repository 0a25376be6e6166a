//! What `tower` expects of a service, probed on each layer: T1 to T4.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use contextkeep_resilience::breaker::State;
use contextkeep_resilience::tower::{
    Always, BreakerLayer, BulkheadLayer, FallbackLayer, HedgeLayer, LiftLayer, RetryLayer, TimeoutLayer,
};
use contextkeep_resilience::{
    AnyError, Backoff, Breaker, Budget, Bulkhead, Error, Extra, Fallback, Hedge, Retry, Served, Source,
    TokioClock, Why,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn breaker(failures: u16) -> Breaker {
    Breaker::builder("b")
        .consecutive(failures)
        .clock(TokioClock)
        .build()
        .unwrap()
}

fn hedge() -> Hedge {
    Hedge::p95(&Budget::share_of_in_flight(0.0, 1))
        .between(ms(10), ms(10))
        .min_samples(0)
}

fn retry() -> Retry {
    Retry::unbudgeted(3).backoff(Backoff::constant(ms(5)))
}

/// A service that insists on its contract: an instance is ready after its own `poll_ready`, at the second
/// asking, and for one call; a clone is not ready.
struct Strict {
    ready: bool,
    asked: bool,
    failures: Arc<AtomicU32>,
}

impl Strict {
    fn failing(times: u32) -> Self {
        Self {
            ready: false,
            asked: false,
            failures: Arc::new(AtomicU32::new(times)),
        }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            asked: false,
            failures: Arc::clone(&self.failures),
        }
    }
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = &'static str;
    type Future = Ready<Result<u32, &'static str>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.asked {
            self.asked = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(self.ready, "T2: called an instance that was not ready");
        (self.ready, self.asked) = (false, false);
        let left = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        ready(if left.is_ok() { Err("down") } else { Ok(request) })
    }
}

/// Probes a layer over the strict service.
async fn probe<L>(layer: L)
where
    L: Layer<Strict> + Clone,
    L::Service: Service<u32, Error = Error<&'static str>> + Clone + Send + 'static,
    <L::Service as Service<u32>>::Future: Send,
    <L::Service as Service<u32>>::Response: Send,
{
    let mut service = layer.layer(Strict::failing(0));
    for request in 0..3 {
        // T1: asking twice is as good as asking once.
        service.ready().await.unwrap();
        assert!(
            service
                .poll_ready(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        );
        assert!(service.call(request).await.is_ok());
    }
    assert!(service.clone().oneshot(1).await.is_ok());
    // Inside a buffer, which drives readiness on its own.
    let buffered = tower::buffer::Buffer::new(service.map_err(|error| error.to_string()), 4);
    assert!(buffered.oneshot(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn every_layer_keeps_the_contract() {
    let on = |error| matches!(error, Error::Inner(_)).then(|| Served::default_value(0));
    probe(LiftLayer).await;
    probe(
        ServiceBuilder::new()
            .layer(BreakerLayer::new(breaker(5), AnyError))
            .layer(LiftLayer),
    )
    .await;
    probe(
        ServiceBuilder::new()
            .layer(BulkheadLayer::new(Bulkhead::new("b", 2, 0)))
            .layer(LiftLayer),
    )
    .await;
    probe(
        ServiceBuilder::new()
            .layer(TimeoutLayer::attempt("t", ms(50)))
            .layer(LiftLayer),
    )
    .await;
    probe(
        ServiceBuilder::new()
            .layer(TimeoutLayer::total("t", ms(50)))
            .layer(LiftLayer),
    )
    .await;
    probe(
        ServiceBuilder::new()
            .layer(RetryLayer::new(retry(), AnyError, Always))
            .layer(LiftLayer),
    )
    .await;
    probe(
        ServiceBuilder::new()
            .layer(HedgeLayer::new(hedge(), Always))
            .layer(LiftLayer),
    )
    .await;
    let serve = move |_: u32, error: &Error<&'static str>| ready(on(error.clone()));
    probe(
        ServiceBuilder::new()
            .layer(FallbackLayer::new(Fallback::max_age(ms(1)), serve))
            .layer(LiftLayer),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_each_attempts_readiness() {
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(retry(), AnyError, Always))
        .layer(LiftLayer);
    assert_eq!(service.service(Strict::failing(2)).oneshot(7).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_layer_applied_twice_shares_its_breaker() {
    let breaker = breaker(2); // T3
    let layer = ServiceBuilder::new()
        .layer(BreakerLayer::new(breaker.clone(), AnyError))
        .layer(LiftLayer);
    for _ in 0..2 {
        let service = layer.clone().service(Strict::failing(9));
        assert_eq!(service.oneshot(1).await, Err(Error::Inner("down")));
    }
    assert_eq!(breaker.state(), State::Open);
    let refused = layer.service(Strict::failing(0)).oneshot(1).await.unwrap_err();
    assert_eq!(refused.rejected().unwrap().why, Why::Open);
}

#[tokio::test(start_paused = true)]
async fn a_readied_but_idle_clone_holds_no_slot() {
    let layer = ServiceBuilder::new()
        .layer(BulkheadLayer::new(Bulkhead::new("g", 1, 0)))
        .layer(LiftLayer); // G
    let mut idle = layer.service(Strict::failing(0));
    idle.ready().await.unwrap();
    assert_eq!(idle.clone().oneshot(3).await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn timeouts_are_judged_where_they_stand() {
    let hang = || service_fn(|_: u32| std::future::pending::<Result<u32, &'static str>>());
    let inside = breaker(2);
    let outside = breaker(2);
    for _ in 0..2 {
        let attempt = ServiceBuilder::new()
            .layer(BreakerLayer::new(inside.clone(), AnyError))
            .layer(TimeoutLayer::attempt("t", ms(50)))
            .layer(LiftLayer)
            .service(hang());
        assert_eq!(
            attempt.oneshot(1).await.unwrap_err().rejected().unwrap().why,
            Why::AttemptTimeout
        );
        let total = ServiceBuilder::new()
            .layer(TimeoutLayer::total("t", ms(1500)))
            .layer(BreakerLayer::new(outside.clone(), AnyError))
            .layer(LiftLayer)
            .service(hang());
        assert_eq!(
            total.oneshot(1).await.unwrap_err().rejected().unwrap().why,
            Why::Deadline
        );
    }
    assert_eq!(inside.state(), State::Open);
    assert_eq!(
        outside.state(),
        State::Open,
        "H: dropped after the slow threshold"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hedge_wins_over_a_late_first() {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let service = service_fn(move |request: u32| {
        let first = counter.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            tokio::time::sleep(ms(if first { 1000 } else { 5 })).await;
            Ok::<_, &'static str>(request)
        }
    });
    let start = tokio::time::Instant::now();
    let service = ServiceBuilder::new()
        .layer(HedgeLayer::new(hedge(), Always))
        .layer(LiftLayer)
        .service(service);
    assert_eq!(service.oneshot(7).await, Ok(7));
    assert_eq!((calls.load(Ordering::Relaxed), start.elapsed()), (2, ms(15)));
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_retry_and_hedge_share_books_each_call_once() {
    let budget = Budget::tokens(0.1, 0);
    let layers = ServiceBuilder::new()
        .layer(RetryLayer::new(Retry::new(1, &budget), AnyError, Always))
        .layer(HedgeLayer::new(Hedge::p95(&budget), Always).within_retry())
        .layer(LiftLayer);
    let mut service = layers.service(Strict::failing(0));
    for request in 0..1000 {
        assert!(service.ready().await.unwrap().call(request).await.is_ok());
    }
    let granted = (0..1000)
        .filter(|_| budget.try_spend(Extra::Retry).is_some())
        .count();
    assert_eq!(granted, 100, "a tenth");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_layer_says_what_it_serves() {
    let serve = |request: u32, _: &Error<&'static str>| ready(Some(Served::stale(request + 1, ms(500))));
    for (max_age, expected) in [(ms(1000), Some(Source::Stale { age: ms(500) })), (ms(100), None)] {
        let layers = ServiceBuilder::new()
            .layer(FallbackLayer::new(Fallback::max_age(max_age), serve))
            .layer(LiftLayer);
        let served = layers.service(Strict::failing(9)).oneshot(1).await;
        assert_eq!(served.map(|served| served.source).ok(), expected);
    }
}

/// T4: the futures borrow what the service borrows.
#[test]
fn a_service_that_borrows_can_be_guarded() {
    let word = String::from("here");
    let borrowed = service_fn(|_: u32| ready(Ok::<&str, ()>(word.as_str())));
    let breaker = Breaker::builder("b").build().unwrap();
    let layers = ServiceBuilder::new()
        .layer(BreakerLayer::new(breaker, AnyError))
        .layer(LiftLayer);
    let mut future = Box::pin(layers.service(borrowed).oneshot(1));
    let polled = Pin::as_mut(&mut future).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Ready(Ok("here")));
}
