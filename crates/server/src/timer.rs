//! The timer of one connection: how long hyper waits for the head of a request, or how long an answer may take.
//!
//! Each request has such a wait, which is dropped when what was waited for is there. A timer of the runtime for each of them
//! would be put into the runtime's wheel and taken out again, under its lock, for nothing: nearly everybody is in time. Here
//! one timer of the runtime stays armed for the whole connection, and a wait only says when it ends. A timer that fires
//! before the present wait ends is armed again, for that end; so a connection in use is woken once in a timeout.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

/// The timer of one connection, and not of several: its waits come one after the other.
#[derive(Clone, Default)]
pub(crate) struct ConnectionTimer(Arc<Mutex<Option<Armed>>>);

/// A timer of the runtime, and whom it wakes.
struct Armed {
    sleep: Pin<Box<tokio::time::Sleep>>,
    waker: Waker,
}

impl Armed {
    fn new(until: Instant, context: &Context<'_>) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(until)),
            waker: context.waker().clone(),
        }
    }

    /// Whether it will wake this task, at `until` or before.
    fn wakes(&self, until: Instant, context: &Context<'_>) -> bool {
        self.sleep.deadline() <= until && !self.sleep.is_elapsed() && self.waker.will_wake(context.waker())
    }

    /// Has this task woken at `until`, if that is not over yet.
    fn arm(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        if self.sleep.deadline() != until {
            self.sleep.as_mut().reset(until);
        }
        self.waker.clone_from(context.waker());
        // A task that has used its turn up would be told to come again, and the timer not be armed.
        Pin::new(&mut unconstrained(self.sleep.as_mut())).poll(context)
    }
}

/// One wait.
struct Wait {
    until: Instant,
    timer: ConnectionTimer,
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut armed = self.timer.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *armed {
            Some(armed) if armed.wakes(self.until, context) => Poll::Pending,
            Some(armed) => armed.arm(self.until, context),
            none => none
                .insert(Armed::new(self.until, context))
                .arm(self.until, context),
        }
    }
}

impl ConnectionTimer {
    /// What `work` comes to within the limit, which counts from `begun`. What is done at once arms no timer.
    pub(crate) async fn within<T>(
        &self,
        begun: Instant,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(until) = begun.checked_add(limit) else {
            return Some(work.await);
        };
        let mut work = pin!(work);
        let mut wait = Wait {
            until,
            timer: self.clone(),
        };
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Pin::new(&mut wait).poll(context).map(|()| None),
        })
        .await
    }
}

impl Sleep for Wait {}

impl Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Wait {
            until: deadline.into(),
            timer: self.clone(),
        })
    }

    /// The runtime's time, which tests can pause.
    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

impl fmt::Debug for ConnectionTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionTimer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    /// Lets the runtime's timers fire that are over by then.
    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_own_time_however_many_were_before_it() {
        let timer = ConnectionTimer::default();
        let begun = Instant::now();
        for _ in 0..7 {
            let mut wait = timer.sleep(SECOND * 10);
            let none = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_pending()));
            assert!(none.await);
            pass(SECOND * 3).await;
        }
        let last = Instant::now();
        timer.sleep(SECOND * 10).await;
        let waited = last.elapsed();
        assert!((SECOND * 10..SECOND * 11).contains(&waited), "{waited:?}");
        assert_eq!(last - begun, SECOND * 21);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up_at_its_own_time() {
        let timer = ConnectionTimer::default();
        for took in [1, 9] {
            let work = tokio::time::sleep(SECOND * took);
            assert_eq!(timer.within(Instant::now(), SECOND * 10, work).await, Some(()));
        }
        let begun = Instant::now();
        pass(SECOND * 4).await;
        let never = std::future::pending::<()>();
        assert_eq!(timer.within(begun, SECOND * 10, never).await, None);
        let waited = begun.elapsed();
        assert!((SECOND * 10..SECOND * 11).contains(&waited), "{waited:?}");
        // What is done is given, however late.
        assert_eq!(timer.within(begun, SECOND, async { 7 }).await, Some(7));
        let endless = timer.within(begun, Duration::MAX, tokio::time::sleep(SECOND));
        assert_eq!(endless.await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_in_use_is_woken_once_in_a_timeout() {
        let (timer, woken) = (ConnectionTimer::default(), Arc::new(Woken::default()));
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        for _ in 0..100 {
            let mut wait = timer.sleep(SECOND * 10);
            assert!(wait.as_mut().poll(&mut context).is_pending());
            pass(SECOND).await;
            // As hyper does when it was woken and no head is there.
            assert!(wait.as_mut().poll(&mut context).is_pending());
        }
        let woken = woken.take();
        assert!((9..=11).contains(&woken), "{woken}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_wait_and_another_task_are_woken_in_time() {
        let (timer, first, second) = (
            ConnectionTimer::default(),
            Arc::new(Woken::default()),
            Arc::new(Woken::default()),
        );
        let mut long = timer.sleep(SECOND * 10);
        let waker = Waker::from(first.clone());
        assert!(long.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let mut short = timer.sleep(SECOND);
        let waker = Waker::from(second.clone());
        assert!(short.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        pass(SECOND + Duration::from_millis(2)).await;
        assert_eq!((first.take(), second.take()), (0, 1));
        assert!(short.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_used_its_turn_up_is_woken_all_the_same() {
        let timer = ConnectionTimer::default();
        let begun = Instant::now();
        let work = async {
            while tokio::task::coop::has_budget_remaining() {
                tokio::task::coop::consume_budget().await;
            }
            timer.sleep(SECOND).await;
        };
        tokio::time::timeout(SECOND * 5, work).await.expect("it is woken");
        assert!(begun.elapsed() < SECOND * 2);
    }
}
