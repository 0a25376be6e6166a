//! What a finished call means: one judgement feeds breaker, retry, budget, picker and hedge.

use std::time::Duration;

/// What a call says about the health of the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It did its work.
    Success,
    /// It did not.
    Failure,
    /// It is alive and asks for less. Counts towards rates, not towards consecutive failures.
    Throttled {
        /// How long it asked us to stay away.
        retry_after: Option<Duration>,
    },
    /// An answer that says nothing about health: a 404, a unique violation, a refusal of our own.
    /// Not a success: it neither resets a streak nor passes a probe.
    Neutral,
}

/// Whether the same call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It would end the same way.
    No,
    /// Worth trying, if the call is idempotent: this attempt may have taken effect.
    IfIdempotent,
    /// As [`Again::IfIdempotent`], but not before this much time has passed.
    After(Duration),
    /// Always safe: this attempt provably had no effect (never sent, or rolled back).
    NotApplied,
}

/// The judgement on one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// For the breaker, the picker and the limits.
    pub verdict: Verdict,
    /// For the retry.
    pub again: Again,
}

impl Outcome {
    /// It worked.
    pub const SUCCESS: Self = Self::new(Verdict::Success, Again::No);
    /// It failed in a way that may pass.
    pub const FAILURE: Self = Self::new(Verdict::Failure, Again::IfIdempotent);
    /// An answer, though not the one hoped for.
    pub const NEUTRAL: Self = Self::new(Verdict::Neutral, Again::No);

    /// Both halves.
    pub const fn new(verdict: Verdict, again: Again) -> Self {
        Self { verdict, again }
    }

    /// Throttled; try again after what the dependency asked for, if it did.
    pub const fn throttled(retry_after: Option<Duration>) -> Self {
        let again = match retry_after {
            Some(wait) => Again::After(wait),
            None => Again::IfIdempotent,
        };
        Self::new(Verdict::Throttled { retry_after }, again)
    }
}

/// What the caller knows about repeating this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotent {
    /// Twice is as good as once: reads, and writes that carry an idempotency key.
    Yes,
    /// Repeated only when the last attempt provably had no effect ([`Again::NotApplied`]). Never hedged.
    No,
}
