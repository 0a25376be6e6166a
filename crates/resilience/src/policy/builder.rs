//! The stages of a policy, each of which may only be followed by those further in.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::{Plan, Policy};
use crate::breaker::Breaker;
use crate::bulkhead::Bulkhead;
use crate::classify::AnyError;
use crate::clock::{Clock, TokioClock};
use crate::fallback::Fallback;
use crate::hedge::Hedge;
use crate::name::Name;
use crate::random::SplitMix;
use crate::replicas::{Endpoint, Panic, Replicas};
use crate::retry::Retry;

/// How far in a builder has come.
pub mod stage {
    macro_rules! stages {
        ($($(#[$doc:meta])* $stage:ident),+) => {
            $($(#[$doc])* #[derive(Debug, Clone, Copy)] pub struct $stage;)+
        };
    }
    stages! {
        /// Nothing said yet.
        Start,
        /// Stage 1 was the last.
        Fallback,
        /// Stage 2 was the last.
        Total,
        /// Stage 3 was the last.
        Retry,
        /// Stage 4 was the last.
        Hedge,
        /// Stage 5 was the last.
        Place,
        /// Stage 6 was the last.
        Queue,
        /// Stage 7 was the last.
        Attempt
    }
}

/// A stage that lies outside `Next`, so that `Next` may follow it. Sealed.
pub trait Precedes<Next>: sealed::Stage {}

mod sealed {
    /// Only the stages of this crate.
    #[expect(unnameable_types, reason = "that it cannot be named is what seals it")]
    pub trait Stage {}
}

macro_rules! order {
    ($outer:ident $(, $inner:ident)*) => {
        impl sealed::Stage for stage::$outer {}
        $(impl Precedes<stage::$inner> for stage::$outer {})*
        order! { $($inner),* }
    };
    () => {};
}
order! { Start, Fallback, Total, Retry, Hedge, Place, Queue, Attempt }

/// Builds a [`Policy`] from the outside in.
#[must_use]
pub struct PolicyBuilder<S, C = AnyError, T = ()> {
    plan: Plan,
    classify: C,
    replicas: Option<Replicas<T>>,
    stage: PhantomData<S>,
}

impl Policy {
    /// A policy without any stage. Every error is a failure until it is given a classifier.
    pub fn named(name: impl Into<Name>) -> PolicyBuilder<stage::Start> {
        let plan = Plan {
            name: name.into(),
            fallback: None,
            total: None,
            retry: None,
            hedge: None,
            queue_wait: None,
            attempt_timeout: None,
            clock: Arc::new(TokioClock),
        };
        PolicyBuilder {
            plan,
            classify: AnyError,
            replicas: None,
            stage: PhantomData,
        }
    }
}

impl<S, C, T> PolicyBuilder<S, C, T> {
    fn stage<Next>(self) -> PolicyBuilder<Next, C, T> {
        PolicyBuilder {
            plan: self.plan,
            classify: self.classify,
            replicas: self.replicas,
            stage: PhantomData,
        }
    }

    /// The clock of the deadlines. Its points must be those of [`Deadline`](crate::Deadline)s around the
    /// policy. Default [`TokioClock`].
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.plan.clock = Arc::new(clock);
        self
    }

    /// Stage 1: bounds for [`Policy::run_or`].
    pub fn fallback(mut self, bounds: Fallback) -> PolicyBuilder<stage::Fallback, C, T>
    where
        S: Precedes<stage::Fallback>,
    {
        self.plan.fallback = Some(bounds);
        self.stage()
    }

    /// Stage 2: how long the whole operation may take.
    pub fn total_timeout(mut self, limit: Duration) -> PolicyBuilder<stage::Total, C, T>
    where
        S: Precedes<stage::Total>,
    {
        self.plan.total = Some(limit);
        self.stage()
    }

    /// Stage 3.
    pub fn retry(mut self, retry: Retry) -> PolicyBuilder<stage::Retry, C, T>
    where
        S: Precedes<stage::Retry>,
    {
        self.plan.retry = Some(retry);
        self.stage()
    }

    /// Stage 4.
    pub fn hedge(mut self, hedge: Hedge) -> PolicyBuilder<stage::Hedge, C, T>
    where
        S: Precedes<stage::Hedge>,
    {
        self.plan.hedge = Some(hedge);
        self.stage()
    }

    /// Stage 6: how long to wait in an endpoint's queue.
    pub fn queue_wait(mut self, limit: Duration) -> PolicyBuilder<stage::Queue, C, T>
    where
        S: Precedes<stage::Queue>,
    {
        self.plan.queue_wait = Some(limit);
        self.stage()
    }

    /// Stage 7: how long one attempt may take.
    pub fn attempt_timeout(mut self, limit: Duration) -> PolicyBuilder<stage::Attempt, C, T>
    where
        S: Precedes<stage::Attempt>,
    {
        self.plan.attempt_timeout = Some(limit);
        self.stage()
    }
}

impl<S, C> PolicyBuilder<S, C, ()> {
    /// How results are judged.
    pub fn classify<D>(self, classify: D) -> PolicyBuilder<S, D, ()> {
        PolicyBuilder {
            plan: self.plan,
            classify,
            replicas: self.replicas,
            stage: PhantomData,
        }
    }

    /// Stage 5, with one endpoint: its breaker and, if wanted, its bulkhead. The breaker is always believed.
    pub fn guard(self, breaker: Breaker, bulkhead: Option<Bulkhead>) -> PolicyBuilder<stage::Place, C, ()>
    where
        S: Precedes<stage::Place>,
    {
        let endpoint = Endpoint::new((), breaker);
        let endpoint = match bulkhead {
            Some(bulkhead) => endpoint.bulkhead(bulkhead),
            None => endpoint,
        };
        let (penalty, clock) = (Duration::from_secs(5), Arc::clone(&self.plan.clock));
        let name = self.plan.name.clone();
        let only = Replicas::with(
            name,
            [endpoint],
            Panic::Never,
            penalty,
            clock,
            SplitMix::from_entropy(),
        );
        self.replicas(only)
    }

    /// Stage 5.
    pub fn replicas<T>(self, replicas: Replicas<T>) -> PolicyBuilder<stage::Place, C, T>
    where
        S: Precedes<stage::Place>,
    {
        PolicyBuilder {
            plan: self.plan,
            classify: self.classify,
            replicas: Some(replicas),
            stage: PhantomData,
        }
    }
}

impl<S, C, T> PolicyBuilder<S, C, T> {
    /// The policy. Without stage 5 it has no endpoint and refuses every call.
    pub fn build(self) -> Policy<C, T> {
        let empty = || Replicas::new(self.plan.name.clone(), []);
        Policy {
            replicas: self.replicas.unwrap_or_else(empty),
            plan: self.plan,
            classify: self.classify,
        }
    }
}

impl<S, C, T> fmt::Debug for PolicyBuilder<S, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyBuilder")
            .field("name", &self.plan.name)
            .finish_non_exhaustive()
    }
}
