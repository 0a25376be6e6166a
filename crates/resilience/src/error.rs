//! One flat error for a whole stack of guards.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::name::Name;

/// Why a guard turned a call away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The breaker is open.
    Open,
    /// The breaker is half-open and its probes are all out.
    HalfOpenBusy,
    /// The breaker is letting traffic back in by degrees, and this call was not drawn.
    Recovering,
    /// An operator took the dependency out.
    Isolated,
    /// As many calls as allowed are running, and the queue is full or there is none.
    BulkheadFull,
    /// The queue was entered, and no slot came free in time.
    QueueTimeout,
    /// The client throttle or the adaptive limit turned it away.
    Throttled,
    /// One attempt took too long. The dependency may have done the work.
    AttemptTimeout,
    /// The whole operation ran out of time. The dependency may have done the work.
    Deadline,
    /// There was no endpoint to send it to.
    NoEndpoint,
}

impl Why {
    /// A stable word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::HalfOpenBusy => "half_open_busy",
            Self::Recovering => "recovering",
            Self::Isolated => "isolated",
            Self::BulkheadFull => "bulkhead_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Throttled => "throttled",
            Self::AttemptTimeout => "attempt_timeout",
            Self::Deadline => "deadline",
            Self::NoEndpoint => "no_endpoint",
        }
    }

    /// Whether the call was turned away before it reached the dependency.
    pub const fn is_unsent(self) -> bool {
        !matches!(self, Self::AttemptTimeout | Self::Deadline)
    }
}

/// A refusal of our own. Cheap: no backtrace, no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The name of the guard.
    pub by: Name,
    /// Its reason.
    pub why: Why,
    /// When another try may fare better, as far as the guard knows.
    pub retry_after: Option<Duration>,
}

impl Rejected {
    /// A refusal by the guard of that name.
    pub const fn new(by: Name, why: Why, retry_after: Option<Duration>) -> Self {
        Self { by, why, retry_after }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} refused the call: {}", self.by, self.why.as_str())?;
        match self.retry_after {
            Some(wait) => write!(f, ", retry after {wait:?}"),
            None => Ok(()),
        }
    }
}

impl StdError for Rejected {}

/// What a guarded call fails with. Every guard of the crate speaks this one type, so a stack of them does
/// not nest errors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E> {
    /// The call's own error.
    Inner(E),
    /// A guard's refusal.
    Rejected(Rejected),
}

impl<E> Error<E> {
    /// The call's own error, or the refusal.
    ///
    /// # Errors
    /// The refusal, when the call never ended on its own.
    pub fn into_inner(self) -> Result<E, Rejected> {
        match self {
            Self::Inner(error) => Ok(error),
            Self::Rejected(rejected) => Err(rejected),
        }
    }

    /// The refusal, if this is one.
    pub const fn rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Inner(_) => None,
            Self::Rejected(rejected) => Some(rejected),
        }
    }

    /// Whether a guard, not the dependency, ended the call.
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }
}

impl<E> From<Rejected> for Error<E> {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(error) => error.fmt(f),
            Self::Rejected(rejected) => rejected.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Inner(error) => error.source(),
            Self::Rejected(_) => None,
        }
    }
}
