//! Whether the second level is worth asking. A level that hangs would otherwise cost every miss its timeout.
//!
//! After three failures in a row it is left alone for a while that doubles with each further one; then a single
//! question is let through, and its answer decides.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Nanos;

/// Failures in a row that mean it is down.
const ENOUGH: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: AtomicU32,
    down_until: AtomicU64,
}

impl Health {
    /// Whether the last question was answered. Then there is nothing to settle but a failure.
    pub(crate) fn is_well(&self) -> bool {
        self.failures.load(Ordering::Acquire) == 0
    }

    /// Whether to ask. Of those who come after the pause one is let through at a time.
    pub(crate) fn admits(&self, now: Nanos) -> bool {
        let until = self.down_until.load(Ordering::Acquire);
        if until == 0 {
            return true;
        }
        // Whoever moves the pause is the one who asks.
        now.as_nanos() >= until
            && self
                .down_until
                .compare_exchange(
                    until,
                    now.after(SHORTEST).as_nanos(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// How a question went.
    pub(crate) fn settle(&self, failed: bool, now: Nanos) {
        if !failed {
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Release);
                self.down_until.store(0, Ordering::Release);
            }
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        if failures >= ENOUGH {
            let pause = (SHORTEST * 2_u32.saturating_pow((failures - ENOUGH).min(10))).min(LONGEST);
            self.down_until
                .fetch_max(now.after(pause).as_nanos(), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_at_a_time_is_let_through_after_the_pause() {
        let health = Health::default();
        let start = Nanos::ZERO.after(Duration::from_secs(1));
        for _ in 0..ENOUGH {
            assert!(health.admits(start));
            health.settle(true, start);
        }
        assert!(!health.admits(start));
        let later = start.after(SHORTEST);
        assert!(health.admits(later));
        assert!(!health.admits(later), "the first one is still asking");
        health.settle(false, later);
        assert!(health.admits(later) && health.admits(later));
    }
}
