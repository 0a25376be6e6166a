//! How long to wait, and for how long it may grow.

use std::time::Duration;

use crate::random::Random;

/// How much of a delay is left to chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// None. For tests, and for a single client.
    None,
    /// Uniform between zero and the delay: spreads a crowd best.
    Full,
    /// Uniform in the upper `fraction` of the delay: never longer than it, and never much shorter.
    Upper(f64),
}

/// A delay that grows with each try, up to a cap. All arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    base: Duration,
    factor: u32,
    cap: Duration,
    jitter: Jitter,
}

impl Backoff {
    /// Doubling from `base` up to `cap`, full jitter. A cap below the base counts as the base.
    pub fn exponential(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            factor: 2,
            cap: cap.max(base),
            jitter: Jitter::Full,
        }
    }

    /// Always `delay`, without jitter.
    pub const fn constant(delay: Duration) -> Self {
        Self {
            base: delay,
            factor: 1,
            cap: delay,
            jitter: Jitter::None,
        }
    }

    /// The same delays under another jitter.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The same growth, by another factor a try.
    #[must_use]
    pub const fn factor(mut self, factor: u32) -> Self {
        self.factor = factor;
        self
    }

    /// The longest delay that `try_number` (counted from zero) can get.
    pub fn ceiling(&self, try_number: u32) -> Duration {
        let growth = self.factor.saturating_pow(try_number);
        self.base.saturating_mul(growth).min(self.cap)
    }

    /// The delay before `try_number`, jitter applied.
    pub fn delay(&self, try_number: u32, random: &dyn Random) -> Duration {
        let ceiling = self.ceiling(try_number);
        let scale = match self.jitter {
            Jitter::None => return ceiling,
            Jitter::Full => random.unit(),
            Jitter::Upper(fraction) => 1.0 - fraction.clamp(0.0, 1.0) * random.unit(),
        };
        Duration::try_from_secs_f64(ceiling.as_secs_f64() * scale)
            .unwrap_or(ceiling)
            .min(ceiling)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
