//! Readiness that follows a breaker.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{Sleep, sleep};

use crate::breaker::{Breaker, Subscription};

/// Pending while the breaker would refuse. Woken by the breaker's next transition, and by a timer for what
/// comes without one: the end of the open time, and of the wait for a probe.
///
/// Each clone waits for itself. While the breaker admits, nothing is registered with it.
#[derive(Debug)]
pub(super) struct Readiness {
    breaker: Breaker,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    waker: Arc<Mutex<Waker>>,
    timer: Option<Pin<Box<Sleep>>>,
    _subscription: Subscription,
}

impl Readiness {
    pub(super) const fn of(breaker: Breaker) -> Self {
        Self {
            breaker,
            waiting: None,
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.breaker.peek().is_ok() {
            self.waiting = None;
            return Poll::Ready(());
        }
        let breaker = &self.breaker;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Waiting::on(breaker, context.waker()));
        waiting.wake(context.waker());
        loop {
            // Looked at again after the registration: a transition between the two looks woke nobody.
            let Err(rejected) = breaker.peek() else {
                self.waiting = None;
                return Poll::Ready(());
            };
            waiting.timer = rejected.retry_after.map(|wait| Box::pin(sleep(wait)));
            match &mut waiting.timer {
                Some(timer) => ready!(timer.as_mut().poll(context)),
                None => return Poll::Pending,
            }
        }
    }
}

impl Clone for Readiness {
    fn clone(&self) -> Self {
        Self::of(self.breaker.clone())
    }
}

impl Waiting {
    fn on(breaker: &Breaker, waker: &Waker) -> Self {
        let waker = Arc::new(Mutex::new(waker.clone()));
        let shared = Arc::clone(&waker);
        let subscription = breaker.on_transition(move |_| {
            let waker = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
            waker.wake();
        });
        Self {
            waker,
            timer: None,
            _subscription: subscription,
        }
    }

    fn wake(&self, waker: &Waker) {
        self.waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(waker);
    }
}
