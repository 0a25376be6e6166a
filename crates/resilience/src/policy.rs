//! The whole stack around one dependency, in the one order that works.
//!
//! ```text
//! fallback          1  sees the final refusal or failure; tried once, with a small timeout
//! └ total timeout   2  the whole operation, min with the caller's deadline
//!   └ retry         3  sees each attempt's outcome; refusals of our own are not retried
//!     └ hedge       4  idempotent calls only
//!       └ replicas  5  power of two choices; each endpoint owns its breaker and bulkhead
//!         └ queue   6  look at the breaker, wait for a slot, ask the breaker
//!           └ attempt timeout 7  inside the breaker, so that a timeout is a result and not a drop
//! ```
//!
//! The builder's stages go in that order and in no other: a retry outside a fallback does not compile.
//!
//! ```compile_fail
//! # use contextkeep_resilience::{Policy, Retry, Fallback};
//! # use std::time::Duration;
//! Policy::named("wrong").retry(Retry::unbudgeted(1)).fallback(Fallback::max_age(Duration::ZERO));
//! ```

mod attempt;
mod builder;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

pub use self::attempt::Attempt;
pub use self::builder::{PolicyBuilder, Precedes, stage};
use crate::budget::InFlight;
use crate::classify::{AnyError, Classify};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{Error, Rejected, Why};
use crate::fallback::{Fallback, Served};
use crate::hedge::Hedge;
use crate::name::Name;
use crate::outcome::{Idempotent, Outcome, Verdict};
use crate::replicas::{Replicas, Tried};
use crate::retry::{Ended, Retry};
use crate::timer::{within, within_scope};

/// A stack of guards around one dependency or a set of replicas. Built once, shared by reference or `Arc`.
pub struct Policy<C = AnyError, T = ()> {
    plan: Plan,
    classify: C,
    replicas: Replicas<T>,
}

/// The stages, but for the one that knows what an endpoint is.
struct Plan {
    name: Name,
    fallback: Option<Fallback>,
    total: Option<Duration>,
    retry: Option<Retry>,
    hedge: Option<Hedge>,
    queue_wait: Option<Duration>,
    attempt_timeout: Option<Duration>,
    clock: Arc<dyn Clock>,
}

/// A finished call, and what it means.
type Judged<R, E> = (Result<R, Error<E>>, Outcome);

impl<C, T> Policy<C, T> {
    /// Its name, as in refusals.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The endpoints with their breakers.
    pub const fn replicas(&self) -> &Replicas<T> {
        &self.replicas
    }

    /// Makes a call. `op` makes one attempt; it is called once for each.
    ///
    /// # Errors
    /// The last attempt's own error, or the refusal that ended the operation.
    ///
    /// # Cancellation
    /// Dropping the future drops what is in flight and gives everything back: slots, probes, budget.
    pub async fn run<'a, R, E, F, Fut>(&'a self, idempotent: Idempotent, op: F) -> Result<R, Error<E>>
    where
        C: Classify<R, E>,
        F: Fn(Attempt<'a, T>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        self.timed(idempotent, &op).await.0
    }

    /// Makes a call, and asks `fallback` for an answer when it fails. Needs the fallback stage to have been
    /// set; without it the error is returned. An error that is an answer (a neutral verdict) stands.
    ///
    /// # Errors
    /// As [`Self::run`], when the fallback has nothing within its bounds either.
    ///
    /// # Cancellation
    /// As [`Self::run`].
    pub async fn run_or<'a, R, E, F, Fut, G, Last>(
        &'a self,
        idempotent: Idempotent,
        op: F,
        fallback: G,
    ) -> Result<Served<R>, Error<E>>
    where
        C: Classify<R, E>,
        F: Fn(Attempt<'a, T>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
        G: FnOnce(&Error<E>) -> Last,
        Last: Future<Output = Option<Served<R>>>,
    {
        let (result, outcome) = self.timed(idempotent, &op).await;
        let error = match result {
            Ok(value) => return Ok(Served::fresh(value)),
            Err(error) => error,
        };
        let is_answer = !error.is_local() && outcome.verdict == Verdict::Neutral;
        let Some(bounds) = self.plan.fallback.filter(|_| !is_answer) else {
            return Err(error);
        };
        let served = within(|| Some(bounds.timeout), pin!(fallback(&error)), pin!(None))
            .await
            .flatten();
        served.filter(|served| bounds.allows(served)).ok_or(error)
    }

    /// Stage 2.
    async fn timed<'a, R, E, F, Fut>(&'a self, idempotent: Idempotent, op: &F) -> Judged<R, E>
    where
        C: Classify<R, E>,
        F: Fn(Attempt<'a, T>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let now = self.plan.clock.now();
        let own = self.plan.total.map(|total| Deadline::at(now.after(total)));
        let deadline = match (own, Deadline::current()) {
            (Some(own), Some(outer)) => Some(own.min(outer)),
            (own, outer) => own.or(outer),
        };
        let Some(deadline) = deadline else {
            return self.retried(idempotent, None, op).await;
        };
        let remaining = deadline.point().since(now);
        if remaining.is_zero() {
            return self.refuse(Why::Deadline);
        }
        let work = pin!(self.retried(idempotent, Some(deadline), op));
        match within_scope(Some(deadline), || Some(remaining), work, pin!(None)).await {
            Some(judged) => judged,
            None => self.refuse(Why::Deadline),
        }
    }

    /// Stage 3.
    async fn retried<'a, R, E, F, Fut>(
        &'a self,
        idempotent: Idempotent,
        deadline: Option<Deadline>,
        op: &F,
    ) -> Judged<R, E>
    where
        C: Classify<R, E>,
        F: Fn(Attempt<'a, T>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let _call = self.book_call();
        let mut leave = None;
        let mut tried = Tried::default();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (result, outcome) = self.hedged(idempotent, attempts, &mut tried, deadline, op).await;
            drop(leave.take());
            let (Some(retry), Err(error)) = (&self.plan.retry, &result) else {
                return (result, outcome);
            };
            let ended = Ended {
                attempts,
                outcome,
                refusal: error.rejected().map(|rejected| rejected.why),
                remaining: deadline.map(|deadline| deadline.remaining(&*self.plan.clock).unwrap_or_default()),
            };
            let Some(planned) = retry.plan(idempotent, &ended) else {
                return (result, outcome);
            };
            leave = planned.leave;
            if !planned.delay.is_zero() {
                tokio::time::sleep(planned.delay).await;
            }
        }
    }

    /// Retries and hedges usually share a budget; a call is booked in it once.
    fn book_call(&self) -> (Option<InFlight>, Option<InFlight>) {
        let retry = self.plan.retry.as_ref().and_then(Retry::budget);
        let hedge = self
            .plan
            .hedge
            .as_ref()
            .map(Hedge::budget)
            .filter(|hedge| !retry.is_some_and(|retry| retry.is(hedge)));
        (retry.map(crate::Budget::call), hedge.map(crate::Budget::call))
    }

    fn refuse<R, E>(&self, why: Why) -> Judged<R, E> {
        refused(Rejected::new(self.plan.name.clone(), why, None))
    }
}

/// A refusal of our own says nothing.
fn refused<R, E>(rejected: Rejected) -> Judged<R, E> {
    (Err(rejected.into()), Outcome::NEUTRAL)
}

impl<C, T: fmt::Debug> fmt::Debug for Policy<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.plan.name)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
