//! Time as a parameter.
//!
//! Everything in this crate that looks at a clock is given one. The clock is monotonic; wall time never
//! decides anything, because it steps.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A point on a [`Clock`], in nanoseconds since that clock's origin.
///
/// Points of different clocks must not be compared.
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
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(whole_nanos(by)))
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

/// Nanoseconds of a duration, saturating after 584 years.
pub(crate) fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The same for a duration that is known to be an uptime, without 128-bit arithmetic.
fn small_nanos(uptime: Duration) -> u64 {
    uptime
        .as_secs()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(uptime.subsec_nanos().into())
}

/// A monotonic clock.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present. Never less than an earlier answer.
    fn now(&self) -> Nanos;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Nanos {
        (**self).now()
    }
}

/// The operating system's monotonic clock. All values share one origin, so their points compare.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Nanos {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let now = read_monotonic();
        Nanos(small_nanos(
            now.saturating_duration_since(*ORIGIN.get_or_init(|| now)),
        ))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clock"
)]
fn read_monotonic() -> Instant {
    Instant::now()
}

/// A clock that stands still until it is moved. Clones share the hands.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward, at most to the end of time.
    pub fn advance(&self, by: Duration) {
        let moved = |now: u64| Some(now.saturating_add(whole_nanos(by)));
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved)
            .unwrap_or_default();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Tokio's clock, which `tokio::time::pause` and `advance` drive.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

#[cfg(feature = "tokio")]
impl Clock for TokioClock {
    fn now(&self) -> Nanos {
        // Paused runtimes freeze at their own start, which may lie before the first reading of this
        // process; the head start keeps such a reading from clamping to zero.
        const HEAD_START: Duration = Duration::from_hours(24);
        static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
        let now = tokio::time::Instant::now();
        let origin = *ORIGIN.get_or_init(|| now);
        Nanos(whole_nanos((now + HEAD_START).saturating_duration_since(origin)))
    }
}
