//! Transitions, told in order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::State;
use super::machine::Core;
use crate::clock::Nanos;
use crate::name::Name;

/// Why a breaker changed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too large a share of failures.
    FailureRate,
    /// Too large a share of slow calls.
    SlowRate,
    /// The dependency asked for a pause.
    Throttled,
    /// Call after call was given up without an answer.
    AllAbandoned,
    /// The open time was over and a call came.
    OpenElapsed,
    /// Enough probes succeeded.
    ProbesPassed,
    /// Too many probes failed.
    ProbesFailed,
    /// A probe never answered.
    ProbesLost,
    /// All stages of the ramp went by.
    RampDone,
    /// Somebody asked for it.
    Manual,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The breaker's name.
    pub breaker: Name,
    /// The generation that begins here. Listeners see generations in order, and without gaps from their first
    /// unless one of them holds up more than a thousand.
    pub generation: u64,
    /// The state left.
    pub from: State,
    /// The state entered.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// When, on the breaker's clock.
    pub at: Nanos,
    /// How long it will stay open, if it opened.
    pub open_for: Option<Duration>,
}

/// So many events wait for a listener that holds the others up; then the oldest are lost.
const MAX_QUEUED: usize = 1024;

pub(super) type Listener = Arc<dyn Fn(&Transition) + Send + Sync>;
/// Copied on registration, shared with a delivery that is under way.
pub(super) type Listeners = Arc<Vec<(u64, Listener)>>;

/// Keeps a listener registered; dropping it ends the registration.
#[must_use = "dropping the subscription removes the listener"]
pub struct Subscription {
    pub(super) core: Weak<Core>,
    pub(super) id: u64,
}

impl Subscription {
    /// Lets the listener live as long as the breaker.
    pub fn forever(mut self) {
        self.core = Weak::new();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.unsubscribe(self.id);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The queue between transitions, which happen under a lock, and listeners, who are called outside it.
///
/// One thread at a time delivers; others leave their events to it. That keeps the order without holding
/// the lock during foreign code, and lets a listener use the breaker it hears about.
#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Transition>,
    delivering: bool,
    listeners: Listeners,
    next_id: u64,
}

impl Outbox {
    pub(super) fn push(&mut self, transition: Transition) {
        if self.listeners.is_empty() {
            return;
        }
        if self.queue.len() == MAX_QUEUED {
            self.queue.pop_front();
        }
        self.queue.push_back(transition);
    }

    /// Claims the role of the one who delivers.
    pub(super) fn claim(&mut self) -> bool {
        let claimed = !self.delivering && !self.queue.is_empty();
        self.delivering |= claimed;
        claimed
    }

    /// The next event for the claimant, who is released when there is none.
    pub(super) fn next(&mut self) -> Option<(Transition, Listeners)> {
        let event = self.queue.pop_front();
        self.delivering = event.is_some();
        event.map(|event| (event, Arc::clone(&self.listeners)))
    }

    pub(super) fn add(&mut self, listener: Listener) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        Arc::make_mut(&mut self.listeners).push((id, listener));
        id
    }

    /// The listeners as they were, for the caller to drop.
    pub(super) fn remove(&mut self, id: u64) -> Listeners {
        let others = self.listeners.iter().filter(|(each, _)| *each != id);
        let others = others.cloned().collect();
        std::mem::replace(&mut self.listeners, Arc::new(others))
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}
