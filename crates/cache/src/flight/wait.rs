//! Waiting for a flight, and flying it meanwhile (F5, F6).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Flight, State};
use crate::sync::{lock, spawn};

/// Somebody waiting for a flight.
pub(crate) struct Wait<T> {
    flight: Arc<Flight<T>>,
    /// Among those who are woken, once it was polled.
    id: Option<u64>,
    /// Whether those who wait were to go on flying it when it was polled last.
    is_flown: bool,
}

impl<T> Wait<T> {
    pub(super) fn new(flight: Arc<Flight<T>>) -> Self {
        Self {
            flight,
            id: None,
            is_flown: false,
        }
    }

    /// Whether the flight has a pilot, as far as the last poll has shown: then the pilot's next step wakes this too (F5).
    pub(crate) const fn is_flown(&self) -> bool {
        self.is_flown
    }
}

impl<T: Clone> Wait<T> {
    /// The outcome, or a place among those who are woken.
    pub(super) fn register(&mut self, waker: &Waker) -> Option<T> {
        match &mut *lock(&self.flight.state) {
            State::Landed(outcome) => return Some(outcome.clone()),
            State::Flying { wakers, next, .. } => {
                let known = self
                    .id
                    .and_then(|id| wakers.iter_mut().find(|(held, _)| *held == id));
                if let Some((_, known)) = known {
                    known.clone_from(waker);
                } else {
                    *next += 1;
                    self.id = Some(*next);
                    wakers.push((*next, waker.clone()));
                }
            }
        }
        None
    }
}

impl<T: Clone + Send + Sync + 'static> Future for Wait<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // F5: first a place among those who are woken, then a look at the pilot.
        if let Some(outcome) = self.register(context.waker()) {
            return Poll::Ready(outcome);
        }
        let (is_flown, outcome) = self.flight.fly(self.id);
        self.is_flown = is_flown;
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Wait<T> {
    fn drop(&mut self) {
        let was_last = match &mut *lock(&self.flight.state) {
            State::Flying { wakers, .. } => {
                let id = self.id;
                wakers.retain(|(held, _)| Some(*held) != id);
                wakers.is_empty()
            }
            State::Landed(_) => false,
        };
        if !was_last {
            return;
        }
        // F6. Somebody who begins to wait just now waits for the task.
        let pilot = lock(&self.flight.pilot).take();
        if let Some(pilot) = pilot {
            spawn(pilot);
        }
    }
}
