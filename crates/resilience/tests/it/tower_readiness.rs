//! Readiness of a breaker's layer (T5): ready and refused, or not ready, by choice.

use std::future::{Future, poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use contextkeep_resilience::tower::{BreakerLayer, BreakerService, LiftLayer, LiftService};
use contextkeep_resilience::{AnyError, Backoff, Breaker, TokioClock, Why};
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::Constant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> Breaker {
    let builder = Breaker::builder("b").consecutive(1).clock(TokioClock);
    builder.open(Backoff::constant(SECOND)).build().unwrap()
}

fn open() -> Breaker {
    let breaker = breaker();
    breaker.try_acquire().unwrap().failure();
    breaker
}

type Counted<F> = BreakerService<LiftService<F>>;

fn counted(
    breaker: &Breaker,
    calls: &Arc<AtomicU32>,
    follows: bool,
) -> Counted<impl Service<u32, Response = u32, Error = std::fmt::Error, Future: Send> + Clone + use<>> {
    let layer = BreakerLayer::new(breaker.clone(), AnyError);
    let layer = if follows {
        layer.unready_while_open()
    } else {
        layer
    };
    let calls = Arc::clone(calls);
    let count = service_fn(move |request: u32| {
        calls.fetch_add(1, Ordering::Relaxed);
        ready(Ok::<_, std::fmt::Error>(request))
    });
    ServiceBuilder::new().layer(layer).layer(LiftLayer).service(count)
}

/// Whether its task was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_ready_and_refuses() {
    let calls = Arc::default();
    let mut service = counted(&open(), &calls, false);
    for _ in 0..2 {
        let refused = service.ready().await.unwrap().call(1).await.unwrap_err();
        assert_eq!(refused.rejected().unwrap().why, Why::Open);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_a_buffer_alive() {
    let calls = Arc::default();
    let breaker = open();
    let service = counted(&breaker, &calls, false).map_err(|error| error.to_string());
    let mut buffered = tower::buffer::Buffer::new(service, 4);
    assert!(buffered.ready().await.unwrap().call(1).await.is_err());
    breaker.reset();
    assert_eq!(buffered.ready().await.unwrap().call(2).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_ready_again_when_the_open_time_is_over() {
    let calls = Arc::default();
    let mut service = counted(&open(), &calls, true);
    let start = tokio::time::Instant::now();
    assert_eq!(service.ready().await.unwrap().call(1).await, Ok(1));
    assert_eq!(
        start.elapsed(),
        SECOND,
        "it waited as long as the breaker was open"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_woken_by_hand_as_well() {
    let breaker = breaker();
    let mut service = counted(&breaker, &Arc::default(), true);
    breaker.isolate();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    // The last task to ask is the one to wake.
    let other = Arc::new(Bell::default());
    let other_waker = Waker::from(Arc::clone(&other));
    assert!(
        service
            .poll_ready(&mut Context::from_waker(&other_waker))
            .is_pending()
    );
    breaker.release();
    let rung = |bell: &Bell| bell.0.load(Ordering::Relaxed);
    assert_eq!((rung(&bell), rung(&other)), (false, true));
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_waiting_follower_waits_for_itself() {
    let breaker = open();
    let mut first = counted(&breaker, &Arc::default(), true);
    let mut ready = pin!(first.ready());
    let waiting = poll_fn(|context| Poll::Ready(ready.as_mut().poll(context).is_pending())).await;
    assert!(waiting);
    let mut second = counted(&breaker, &Arc::default(), true).clone();
    assert!(second.ready().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_balancer_passes_an_open_follower_by() {
    let (dead, alive) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let open = open();
    let services = [counted(&open, &dead, true), counted(&breaker(), &alive, true)];
    let list = ServiceList::new::<u32>(services.map(|service| Constant::new(service, 1)));
    let mut balance = Balance::new(list);
    for request in 0..50 {
        assert_eq!(
            balance.ready().await.unwrap().call(request).await.unwrap(),
            request
        );
    }
    assert_eq!(
        (dead.load(Ordering::Relaxed), alive.load(Ordering::Relaxed)),
        (0, 50)
    );
    assert_eq!(open.snapshot().totals.rejected, 0, "nobody had to be refused");
}
