//! What a breaker shows of itself.

use std::time::Duration;

use super::machine::Counter;
use super::settlement::Ending;
use crate::clock::Nanos;
use crate::outcome::Verdict;
use crate::sync::Ordering;

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum State {
    /// Traffic flows and is measured.
    Closed = 0,
    /// Everything is rejected until the open time is over.
    Open = 1,
    /// A few probes find out.
    HalfOpen = 2,
    /// The probes passed; traffic returns by stages. Trips like a closed breaker.
    Recovering = 3,
    /// Taken out by hand: everything is rejected.
    Isolated = 4,
    /// Measures and never rejects.
    Observing = 5,
}

impl State {
    pub(super) const fn from_bits(bits: u64) -> Self {
        match bits {
            1 => Self::Open,
            2 => Self::HalfOpen,
            3 => Self::Recovering,
            4 => Self::Isolated,
            5 => Self::Observing,
            _ => Self::Closed,
        }
    }

    /// A stable word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Recovering => "recovering",
            Self::Isolated => "isolated",
            Self::Observing => "observing",
        }
    }
}

/// A consistent look at a breaker. Takes the transition lock: for metrics and consoles, not for each call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Where it stands.
    pub state: State,
    /// How many transitions it has made.
    pub generation: u64,
    /// When the last one was.
    pub since: Nanos,
    /// Calls in the window (approximate above 4095 a slice).
    pub calls: u32,
    /// Failed ones among them.
    pub failed: u32,
    /// Slow ones among them.
    pub slow: u32,
    /// Failures since the last success.
    pub consecutive_failures: u64,
    /// Probes without an answer.
    pub probes_in_flight: u64,
    /// Openings without a stable time between them.
    pub opens_in_a_row: u32,
    /// Open: how long until a probe may go.
    pub probe_after: Option<Duration>,
    /// Since the breaker was built.
    pub totals: Tallies,
}

/// Monotonic counts since the breaker was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tallies {
    /// Calls that succeeded.
    pub success: u64,
    /// Calls that failed.
    pub failure: u64,
    /// Calls the dependency refused for now.
    pub throttled: u64,
    /// Calls that said nothing.
    pub neutral: u64,
    /// Calls given up.
    pub abandoned: u64,
    /// Calls whose answer came in a later generation; counted above as well.
    pub late: u64,
    /// Calls turned away.
    pub rejected: u64,
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    success: Counter,
    failure: Counter,
    throttled: Counter,
    neutral: Counter,
    abandoned: Counter,
    pub(super) late: Counter,
    pub(super) rejected: Counter,
}

impl Totals {
    pub(super) fn count(&self, ending: Ending) {
        let counter = match ending {
            Ending::Verdict(Verdict::Success) => &self.success,
            Ending::Verdict(Verdict::Failure) | Ending::Panicked => &self.failure,
            Ending::Verdict(Verdict::Throttled { .. }) => &self.throttled,
            Ending::Verdict(Verdict::Neutral) => &self.neutral,
            Ending::Abandoned => &self.abandoned,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Tallies {
        let read = |counter: &Counter| counter.load(Ordering::Relaxed);
        Tallies {
            success: read(&self.success),
            failure: read(&self.failure),
            throttled: read(&self.throttled),
            neutral: read(&self.neutral),
            abandoned: read(&self.abandoned),
            late: read(&self.late),
            rejected: read(&self.rejected),
        }
    }
}
