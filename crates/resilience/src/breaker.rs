//! The circuit breaker.
//!
//! ```text
//!                rate of failures or of slow calls (given min_calls), a run of failures, a run of
//!                abandoned calls, or a Retry-After
//!       ┌───────────────────────────────────────────────────────────────────────────┐
//!       │                                                                           ▼
//!  ┌────────┐  `need` of `probes` passed   ┌───────────┐   first call after   ┌───────────┐
//!  │ CLOSED │◄─────────────────────────────│ HALF-OPEN │◄─────────────────────│   OPEN    │
//!  └────────┘◄──┐                          └───────────┘   the open time      └───────────┘
//!               │  ramp done  ┌────────────┐  │     │  too many failed, or one never answered  ▲ ▲
//!               └─────────────│ RECOVERING │◄─┘     └──────────────────────────────────────────┘ │
//!                             └────────────┘── trips like CLOSED ─────────────────────────────────┘
//!   isolate(): any ─► ISOLATED      observe_only(true): any ─► OBSERVING      release(), reset(): ─► CLOSED
//! ```
//!
//! Every arrow starts a *generation*, clears the window, and has exactly one winner and one event.
//!
//! Invariants, cited by the tests:
//!
//! - **I1** at most `probes` permits of one half-open generation are alive or have passed or failed
//! - **I2** every permit ends in exactly one way: recorded, abandoned or panicked; late ones are also counted as late
//! - **I3** when no permit is alive, no probe is in flight
//! - **I4** a permit of one generation never changes the state of another
//! - **I5** open rejects until its time is over
//! - **I6** half-open is left within `max_wait`, plus one call, of the time since which a probe has always been out
//! - **I7** traffic that succeeds in time never opens
//! - **I8** the window holds the last `span` (to a slice) or the last `n` calls, after any history
//! - **I9** neutral traffic changes nothing
//! - **I10** listeners hear transitions in the order of their generations

mod admission;
mod builder;
mod config;
mod control;
mod event;
mod machine;
mod permit;
mod settlement;
mod snapshot;
mod streak;
mod transition;
mod window;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

pub use self::builder::BreakerBuilder;
pub use self::config::{Abandoned, ConfigError, HalfOpen, Problem, Window};
pub use self::event::{Cause, Subscription, Transition};
use self::machine::Core;
use self::permit::Held;
pub use self::permit::Permit;
pub use self::snapshot::{Snapshot, State, Tallies};
use crate::classify::{AnyError, Classify, judge};
use crate::error::{Error, Rejected, Why};
use crate::name::Name;
use crate::outcome::Outcome;

/// A circuit breaker. Clones share one state.
#[derive(Clone)]
pub struct Breaker {
    core: Arc<Core>,
}

impl Breaker {
    /// A builder with the defaults; the name appears in rejections and events.
    pub fn builder(name: impl Into<Name>) -> BreakerBuilder {
        BreakerBuilder::new(name.into())
    }

    fn from_core(core: Core) -> Self {
        Self { core: Arc::new(core) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The right to make one call, or why not. Never waits; takes no lock except to change state.
    ///
    /// # Errors
    /// [`Why::Open`], [`Why::HalfOpenBusy`], [`Why::Recovering`] or [`Why::Isolated`].
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        let ticket = self.core.acquire()?;
        Ok(Permit(Held::new(Arc::clone(&self.core), ticket)))
    }

    /// Whether [`Self::try_acquire`] would be likely to admit. Reserves nothing, changes nothing.
    ///
    /// # Errors
    /// As [`Self::try_acquire`].
    pub fn peek(&self) -> Result<(), Rejected> {
        self.core.peek()
    }

    /// Guards a call whose every error is the dependency's fault.
    ///
    /// # Errors
    /// The call's own error, or the breaker's refusal; then `op` was not called.
    ///
    /// # Cancellation
    /// Dropping the future abandons the call: see [`Abandoned`].
    pub fn call<T, E, F, Fut>(&self, op: F) -> impl Future<Output = Result<T, Error<E>>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.call_with(&AnyError, op)
    }

    /// Guards a call under a classifier.
    ///
    /// # Errors
    /// The call's own error, or the breaker's refusal; then `op` was not called.
    ///
    /// # Cancellation
    /// Dropping the future abandons the call: see [`Abandoned`].
    pub async fn call_with<T, E, F, Fut>(&self, classify: &impl Classify<T, E>, op: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let permit = self.lend()?;
        let result = op().await.map_err(Error::Inner);
        conclude_held(permit, classify, &result);
        result
    }

    /// [`Self::try_acquire`] without counting references.
    #[inline]
    pub(crate) fn lend(&self) -> Result<Lent<'_>, Rejected> {
        Ok(Held::new(&*self.core, self.core.acquire()?))
    }

    /// Where it stands. An open breaker stays open until a call comes, however late.
    pub fn state(&self) -> State {
        self.core.state()
    }

    /// A consistent look at all of it.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// Rejects everything until [`Self::release`] or [`Self::reset`].
    pub fn isolate(&self) {
        self.core.transition(None, State::Isolated, Cause::Manual, None);
    }

    /// Ends [`Self::isolate`] or [`Self::observe_only`]; otherwise does nothing.
    pub fn release(&self) {
        // Of the generation that was seen: who isolates at the same time wins.
        let word = self.core.control.load();
        if matches!(word.state(), State::Isolated | State::Observing) {
            let seen = Some(word.generation());
            self.core.transition(seen, State::Closed, Cause::Manual, None);
        }
    }

    /// Closes it, whatever it is, and forgets its history.
    pub fn reset(&self) {
        self.core.transition(None, State::Closed, Cause::Manual, None);
    }

    /// `true`: record and never reject. `false`: back to closed.
    pub fn observe_only(&self, on: bool) {
        if on {
            self.core.transition(None, State::Observing, Cause::Manual, None);
        } else {
            self.release();
        }
    }

    /// Calls `listener` for every transition from now on, in order, outside all locks, on the thread that
    /// caused it or one that is already delivering. It may use the breaker. A panic in it goes no further.
    pub fn on_transition(&self, listener: impl Fn(&Transition) + Send + Sync + 'static) -> Subscription {
        let id = self.core.subscribe(Arc::new(listener));
        Subscription {
            core: Arc::downgrade(&self.core),
            id,
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// A permit that borrows its breaker.
pub(crate) type Lent<'a> = Held<&'a Core>;

/// Ends a permit by a result that may be one of our own refusals, and says what the result means.
pub(crate) fn conclude<T, E>(
    permit: Permit,
    classify: &(impl Classify<T, E> + ?Sized),
    result: &Result<T, Error<E>>,
) -> Outcome {
    conclude_held(permit.0, classify, result)
}

/// A deadline is the caller's, so it is booked as the abandonment it is.
pub(crate) fn conclude_held<T, E, H: Deref<Target = Core>>(
    held: Held<H>,
    classify: &(impl Classify<T, E> + ?Sized),
    result: &Result<T, Error<E>>,
) -> Outcome {
    let outcome = judge(classify, result.as_ref());
    if let Err(Error::Rejected(Rejected {
        why: Why::Deadline, ..
    })) = result
    {
        drop(held);
    } else {
        held.record(outcome.verdict);
    }
    outcome
}

#[cfg(test)]
#[cfg(loom)]
mod models;
