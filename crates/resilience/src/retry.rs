//! The decision to try again. Pure: the waiting is done by whoever asks.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::budget::{Budget, Extra, Spent};
use crate::error::Why;
use crate::outcome::{Again, Idempotent, Outcome};
use crate::random::{Random, SplitMix};

/// When to try again, and after how long.
///
/// Every retry needs the budget's leave. To go without one has to be written: [`Retry::unbudgeted`].
#[derive(Debug, Clone)]
pub struct Retry {
    max: u32,
    backoff: Backoff,
    max_wait: Duration,
    budget: Option<Budget>,
    random: Arc<dyn Random>,
}

/// A retry that was granted.
#[derive(Debug)]
pub struct Planned {
    /// How long to wait first.
    pub delay: Duration,
    /// The budget's leave; keep it until the attempt is over.
    pub leave: Option<Spent>,
}

/// What is known when an attempt has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Attempts made so far, at least one.
    pub attempts: u32,
    /// What the last one came to.
    pub outcome: Outcome,
    /// If one of our own guards ended it.
    pub refusal: Option<Why>,
    /// What is left of the whole operation, if it is limited.
    pub remaining: Option<Duration>,
}

impl Retry {
    /// At most `max` further attempts, each with the budget's leave.
    pub fn new(max: u32, budget: &Budget) -> Self {
        Self {
            budget: Some(budget.clone()),
            ..Self::unbudgeted(max)
        }
    }

    /// At most `max` further attempts for each call, whatever that multiplies the load by. In an outage
    /// this is what keeps the outage going.
    pub fn unbudgeted(max: u32) -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(2));
        Self {
            max,
            backoff,
            max_wait: Duration::from_secs(30),
            budget: None,
            random: Arc::new(SplitMix::from_entropy()),
        }
    }

    /// How long to wait. Default: 50 ms doubling to 2 s, full jitter.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest `Retry-After` that is waited for; a longer one ends the matter. Default: 30 s.
    #[must_use]
    pub const fn max_wait(mut self, limit: Duration) -> Self {
        self.max_wait = limit;
        self
    }

    /// Where the jitter comes from.
    #[must_use]
    pub fn random(mut self, random: impl Random + 'static) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// The budget, to book calls with.
    pub const fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// Whether and when to try again.
    ///
    /// A refusal of our own is not retried, except a timeout. A `Retry-After` is obeyed, or, when it is longer
    /// than [`Self::max_wait`] or does not fit into what remains, ends the matter: no attempt is made that
    /// could not be waited for.
    pub fn plan(&self, idempotent: Idempotent, ended: &Ended) -> Option<Planned> {
        let asked = match (ended.outcome.again, idempotent) {
            (Again::No, _) | (Again::IfIdempotent | Again::After(_), Idempotent::No) => return None,
            (Again::IfIdempotent, Idempotent::Yes) | (Again::NotApplied, _) => Duration::ZERO,
            (Again::After(asked), Idempotent::Yes) => asked,
        };
        let timed_out = ended.refusal == Some(Why::AttemptTimeout);
        if ended.attempts > self.max || (ended.refusal.is_some() && !timed_out) {
            return None;
        }
        let tries = ended.attempts.saturating_sub(1);
        let delay = self.backoff.delay(tries, &*self.random).max(asked);
        if asked > self.max_wait {
            return None;
        }
        if ended.remaining.is_some_and(|remaining| delay >= remaining) {
            return None;
        }
        let price = if timed_out {
            Extra::AfterTimeout
        } else {
            Extra::Retry
        };
        let leave = match &self.budget {
            Some(budget) => Some(budget.try_spend(price)?),
            None => None,
        };
        Some(Planned { delay, leave })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
