//! The deadline: when the whole operation has to be over, handed down to everything it does.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use crate::clock::{Clock, Nanos};

/// A point in time that work must not outlive. Comparable only with deadlines of the same clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Nanos);

impl Deadline {
    /// At this point.
    pub const fn at(point: Nanos) -> Self {
        Self(point)
    }

    /// So long from now.
    pub fn within(budget: Duration, clock: &(impl Clock + ?Sized)) -> Self {
        Self(clock.now().after(budget))
    }

    /// When it is.
    pub const fn point(self) -> Nanos {
        self.0
    }

    /// What is left, or `None` if it has passed.
    pub fn remaining(self, clock: &(impl Clock + ?Sized)) -> Option<Duration> {
        let left = self.0.since(clock.now());
        (!left.is_zero()).then_some(left)
    }

    /// The one the present task runs under: see [`scope`].
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }
}

thread_local! {
    static CURRENT: Cell<Option<Deadline>> = const { Cell::new(None) };
}

/// Runs a future under a deadline that [`Deadline::current`] reads from anywhere inside it. An inner scope
/// can only shorten an outer one. Nothing is cut off here: a `Policy` or a layer does that.
///
/// # Cancellation
/// Dropping it drops the future.
pub async fn scope<F: Future>(deadline: Deadline, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(move |context| {
        let _restore = enter(deadline);
        future.as_mut().poll(context)
    })
    .await
}

/// Puts this thread under a deadline until the guard is dropped.
pub(crate) fn enter(deadline: Deadline) -> Restore {
    let outer = CURRENT.get();
    CURRENT.set(Some(outer.map_or(deadline, |outer| outer.min(deadline))));
    Restore(outer)
}

/// Puts the outer deadline back, also when the poll panics.
pub(crate) struct Restore(Option<Deadline>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
