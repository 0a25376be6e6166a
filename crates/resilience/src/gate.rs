//! The object-safe joint: whoever composes behind `dyn` holds an `Arc<dyn Gate>`.
//!
//! A policy cannot be a trait object, because its call is generic; the right to make one call can.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
#[cfg(feature = "tokio")]
use std::time::Duration;

use crate::breaker::{Breaker, Permit, conclude};
use crate::bulkhead::{Bulkhead, Slot};
use crate::classify::{Classify, judge};
use crate::error::{Error, Rejected, Why};
use crate::limiter::{Limiter, Place};
use crate::outcome::{Outcome, Verdict};

/// The answer of a gate that may have to wait.
pub type Admission<'a> = Pin<Box<dyn Future<Output = Result<Pass, Rejected>> + Send + 'a>>;

/// Lets calls through, or does not.
pub trait Gate: fmt::Debug + Send + Sync {
    /// For logs and metrics.
    fn name(&self) -> &str;

    /// The right to make one call now.
    ///
    /// # Errors
    /// The gate's reason.
    fn try_admit(&self) -> Result<Pass, Rejected>;

    /// The right to make one call, waiting for it if the gate has a queue. Allocates; [`run`] comes here
    /// only when [`Gate::try_admit`] found the bulkhead full.
    ///
    /// # Cancellation
    /// Dropping the future gives up the place in the queue.
    fn admit(&self) -> Admission<'_> {
        Box::pin(std::future::ready(self.try_admit()))
    }
}

/// The right to make one call, with everything it holds. Dropped unrecorded, the call counts as abandoned,
/// never as a success.
#[derive(Debug, Default)]
#[must_use = "dropping a pass records the call as abandoned"]
pub struct Pass {
    permit: Option<Permit>,
    slot: Option<Slot>,
    place: Option<Place>,
}

impl Pass {
    /// A pass that holds nothing.
    pub fn free() -> Self {
        Self::default()
    }

    /// Says how the call ended, and gives everything back.
    pub fn record(mut self, verdict: Verdict) {
        // The slot first: what is recorded may wake somebody who wants it.
        drop(self.slot.take());
        if let Some(permit) = self.permit.take() {
            permit.record(verdict);
        }
        if let Some(place) = self.place.take() {
            place.record(verdict);
        }
    }

    /// Whether this call decides over a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(Permit::is_probe)
    }

    /// Ends the call by its result, which may be a refusal of ours.
    pub fn conclude<T, E>(
        mut self,
        classify: &(impl Classify<T, E> + ?Sized),
        result: &Result<T, Error<E>>,
    ) -> Outcome {
        let outcome = match self.permit.take() {
            Some(permit) => conclude(permit, classify, result),
            None => judge(classify, result.as_ref()),
        };
        self.record(outcome.verdict);
        outcome
    }
}

impl From<Permit> for Pass {
    fn from(permit: Permit) -> Self {
        Self {
            permit: Some(permit),
            ..Self::default()
        }
    }
}

impl From<Slot> for Pass {
    fn from(slot: Slot) -> Self {
        Self {
            slot: Some(slot),
            ..Self::default()
        }
    }
}

impl From<Place> for Pass {
    fn from(place: Place) -> Self {
        Self {
            place: Some(place),
            ..Self::default()
        }
    }
}

/// Runs a call through a gate.
///
/// # Errors
/// The call's own error, or the gate's refusal; then `op` was not called.
///
/// # Cancellation
/// Dropping the future leaves the queue, or abandons the call.
pub async fn run<T, E, F, Fut>(gate: &dyn Gate, classify: &impl Classify<T, E>, op: F) -> Result<T, Error<E>>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let pass = match gate.try_admit() {
        Err(Rejected {
            why: Why::BulkheadFull,
            ..
        }) => gate.admit().await?,
        pass => pass?,
    };
    let result = op().await.map_err(Error::Inner);
    pass.conclude(classify, &result);
    result
}

/// Lets everything through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unguarded;

impl Gate for Unguarded {
    fn name(&self) -> &'static str {
        "unguarded"
    }

    fn try_admit(&self) -> Result<Pass, Rejected> {
        Ok(Pass::free())
    }
}

impl Gate for Breaker {
    fn name(&self) -> &str {
        Self::name(self)
    }

    fn try_admit(&self) -> Result<Pass, Rejected> {
        self.try_acquire().map(Pass::from)
    }
}

impl Gate for Bulkhead {
    fn name(&self) -> &str {
        Self::name(self)
    }

    fn try_admit(&self) -> Result<Pass, Rejected> {
        self.try_acquire().map(Pass::from)
    }

    fn admit(&self) -> Admission<'_> {
        Box::pin(async { self.acquire().await.map(Pass::from) })
    }
}

impl Gate for Limiter {
    fn name(&self) -> &str {
        Self::name(self)
    }

    fn try_admit(&self) -> Result<Pass, Rejected> {
        self.try_acquire().map(Pass::from)
    }
}

/// A bulkhead in front of a breaker, in the order that holds no probe in a queue: look at the breaker, wait
/// for a slot, then ask the breaker again, because it may have opened meanwhile.
#[derive(Debug, Clone)]
pub struct Guard {
    breaker: Breaker,
    bulkhead: Bulkhead,
    #[cfg(feature = "tokio")]
    queue_wait: Option<Duration>,
}

impl Guard {
    /// Both, with no limit on the time in the queue.
    pub const fn new(breaker: Breaker, bulkhead: Bulkhead) -> Self {
        Self {
            breaker,
            bulkhead,
            #[cfg(feature = "tokio")]
            queue_wait: None,
        }
    }

    /// Leave the queue after this long, with [`Why::QueueTimeout`].
    #[cfg(feature = "tokio")]
    #[must_use]
    pub const fn queue_wait(mut self, limit: Duration) -> Self {
        self.queue_wait = Some(limit);
        self
    }

    /// The breaker.
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// The bulkhead.
    pub const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    fn pass(&self, slot: Slot) -> Result<Pass, Rejected> {
        let permit = self.breaker.try_acquire()?;
        Ok(Pass {
            permit: Some(permit),
            slot: Some(slot),
            place: None,
        })
    }
}

impl Gate for Guard {
    fn name(&self) -> &str {
        self.breaker.name()
    }

    fn try_admit(&self) -> Result<Pass, Rejected> {
        self.breaker.peek()?;
        self.pass(self.bulkhead.try_acquire()?)
    }

    fn admit(&self) -> Admission<'_> {
        Box::pin(async {
            self.breaker.peek()?;
            #[cfg(feature = "tokio")]
            let slot = self.bulkhead.acquire_within(self.queue_wait).await?;
            #[cfg(not(feature = "tokio"))]
            let slot = self.bulkhead.acquire().await?;
            self.pass(slot)
        })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
