//! Whether the second level is worth asking. A level that hangs would otherwise cost every miss its timeout.
//!
//! After three failures in a row it is left alone for a while that doubles with each further one; then a single
//! question is let through, and its answer decides.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Nanos;
use crate::sync::{Mutex, lock};

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

/// Whether what processes share can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteReach {
    /// Whether it answers. Some of a cluster's servers may answer while others do not.
    pub reachable: bool,
    /// How long that has been so.
    pub lasting: Duration,
}

/// What is told of the second level to whoever asks how it is. Decides nothing.
///
/// It is fed by each question and by the polls of the backplane, so that it is fresh also while nobody reads.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// `None` before anything was asked.
    reachable: Option<bool>,
    since: Nanos,
    failures: u32,
    failing_since: Nanos,
}

impl Standing {
    /// How a question or a poll went. Down is what failed [`ENOUGH`] times in a row, since the first of them; before it
    /// has ever answered, once is enough.
    pub(crate) fn note(&self, answered: bool, now: Nanos) {
        let mut told = lock(&self.0);
        if answered {
            told.failures = 0;
            if told.reachable != Some(true) {
                (told.reachable, told.since) = (Some(true), now);
            }
            return;
        }
        if told.failures == 0 {
            told.failing_since = now;
        }
        told.failures = told.failures.saturating_add(1);
        let enough = told.reachable.is_none() || told.failures >= ENOUGH;
        if enough && told.reachable != Some(false) {
            (told.reachable, told.since) = (Some(false), told.failing_since);
        }
    }

    /// `None` before anything was asked.
    pub(crate) fn reach(&self, now: Nanos) -> Option<RemoteReach> {
        let told = lock(&self.0);
        told.reachable.map(|reachable| RemoteReach {
            reachable,
            lasting: now.since(told.since),
        })
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

    #[test]
    fn what_is_told_needs_three_failures_in_a_row_and_counts_from_the_first() {
        let standing = Standing::default();
        let second = |n: u64| Nanos::ZERO.after(Duration::from_secs(n));
        let told = |n| {
            standing
                .reach(second(n))
                .map(|reach| (reach.reachable, reach.lasting.as_secs()))
        };
        assert_eq!(told(0), None);
        standing.note(true, second(1));
        for (failed_at, expected) in [
            (10, (true, 9)),
            (11, (true, 10)),
            (12, (false, 2)),
            (13, (false, 3)),
        ] {
            standing.note(false, second(failed_at));
            assert_eq!(told(failed_at), Some(expected));
        }
        standing.note(true, second(20));
        standing.note(false, second(21));
        assert_eq!(told(25), Some((true, 5)));
    }

    #[test]
    fn what_never_answered_is_down_at_the_first_failure() {
        let standing = Standing::default();
        standing.note(false, Nanos::ZERO);
        assert!(standing.reach(Nanos::ZERO).is_some_and(|reach| !reach.reachable));
    }
}
