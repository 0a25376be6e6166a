//! Time as a parameter. The clock is monotonic; wall time never decides anything, because it steps.

use std::fmt;
#[cfg(not(loom))]
use std::sync::OnceLock;
use std::time::Duration;

/// A point on a [`Clock`], in nanoseconds since that clock's origin. Points of different clocks do not compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(u64);

impl Nanos {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// Later than any clock will ever read.
    pub const MAX: Self = Self(u64::MAX);

    /// A point this many nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `by` later, or [`Nanos::MAX`].
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        // By halves: `as_nanos` counts with 128 bits, and each look at the clock passes here.
        let seconds = by.as_secs().saturating_mul(1_000_000_000);
        Self(
            self.0
                .saturating_add(seconds.saturating_add(by.subsec_nanos() as u64)),
        )
    }

    /// The time from `earlier` to here; zero if `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration::from_nanos(self.0).fmt(f)
    }
}

/// A monotonic clock. It has to run at the pace of the runtime's timers.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present. Never less than an earlier answer.
    fn now(&self) -> Nanos;
}

/// Tokio's clock, which `tokio::time::pause` and `advance` drive. It does not count the time a machine is suspended.
#[cfg(not(loom))]
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

#[cfg(not(loom))]
impl Clock for TokioClock {
    fn now(&self) -> Nanos {
        // Paused runtimes freeze at their own start, which may lie before the first reading of this
        // process; the head start keeps such a reading from clamping to zero.
        const HEAD_START: Duration = Duration::from_hours(24);
        static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
        let now = tokio::time::Instant::now();
        let origin = *ORIGIN.get_or_init(|| now);
        match now.checked_duration_since(origin) {
            Some(passed) => Nanos::ZERO.after(HEAD_START).after(passed),
            None => Nanos::ZERO.after((now + HEAD_START).saturating_duration_since(origin)),
        }
    }
}
