//! How a server fares, by what looking at it shows. Pure.
//!
//! ```text
//!            seen          failed                   failed, 3rd in a row
//!  UNKNOWN ───────► HEALTHY ───────► SUSPECT ───────────────────────────► DOWN
//!     │             ▲    ▲ │            │ ▲                                 │
//!     │      behind │    │ └────────────┘ └─────────────────────────────────┘
//!     │             ▼    │     seen         seen: half-open, one more look decides
//!     └─────────► LAGGING ┘
//! ```

/// How a server fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Answers, and is within the lag limits.
    Healthy,
    /// Answers, and is beyond both lag limits.
    Lagging,
    /// Failed a look or two, or has just come back: used only when there is nothing better.
    Suspect,
    /// Failed three looks in a row: not used.
    Down,
}

impl State {
    /// A stable word for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Lagging => "lagging",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// Failures in a row that take a server from suspect to down.
const DOWN_AFTER: u32 = 3;

/// The state and what it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) state: State,
    /// Failed looks in a row.
    pub(super) failures: u32,
}

impl Health {
    /// After a look that failed.
    #[must_use]
    pub(super) fn failed(self) -> Self {
        let failures = self.failures.saturating_add(1);
        let state = if failures >= DOWN_AFTER || self.state == State::Down {
            State::Down
        } else {
            State::Suspect
        };
        Self { state, failures }
    }

    /// After a look that showed how far it is behind.
    #[must_use]
    pub(super) fn seen(self, lag: Lag) -> Self {
        let state = match self.state {
            State::Down => State::Suspect,
            // Back only when it is well within: no flapping around the limit.
            State::Lagging if lag.is_beyond_half() => State::Lagging,
            _ if lag.is_beyond() => State::Lagging,
            _ => State::Healthy,
        };
        Self { state, failures: 0 }
    }
}

/// How far a server is behind, as a share of each limit.
///
/// Only both together count: time alone rises while the primary is idle or gone, bytes alone jump with one large
/// write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lag {
    pub(super) bytes: f64,
    pub(super) time: f64,
}

impl Lag {
    fn is_beyond(self) -> bool {
        self.bytes > 1.0 && self.time > 1.0
    }

    fn is_beyond_half(self) -> bool {
        self.bytes > 0.5 && self.time > 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Lag = Lag {
        bytes: 0.0,
        time: 0.0,
    };
    const BOTH: Lag = Lag {
        bytes: 1.1,
        time: 1.1,
    };

    fn after(steps: &[Option<Lag>]) -> State {
        let step = |health: Health, step: &Option<Lag>| match step {
            Some(lag) => health.seen(*lag),
            None => health.failed(),
        };
        steps.iter().fold(Health::default(), step).state
    }

    #[test]
    fn a_server_goes_down_by_degrees_and_comes_back_by_two_looks() {
        for (steps, state) in [
            (&[][..], State::Unknown),
            (&[Some(NONE)], State::Healthy),
            (&[Some(NONE), None], State::Suspect),
            (&[Some(NONE), None, None], State::Suspect),
            (&[Some(NONE), None, Some(NONE)], State::Healthy),
            (&[Some(NONE), None, None, None], State::Down),
            (&[Some(NONE), None, None, None, None], State::Down),
            (&[None, None, None, Some(NONE)], State::Suspect),
            (&[None, None, None, Some(NONE), Some(NONE)], State::Healthy),
            (&[None, None, None, Some(NONE), Some(BOTH)], State::Lagging),
            (&[None, None, None, Some(NONE), None], State::Suspect),
        ] {
            assert_eq!(after(steps), state, "{steps:?}");
        }
    }

    #[test]
    fn lag_counts_in_bytes_and_time_together_and_ends_well_within() {
        let lag = |bytes, time| Some(Lag { bytes, time });
        for (steps, state) in [
            (&[lag(9.0, 1.0)][..], State::Healthy),
            (&[lag(1.0, 9.0)], State::Healthy),
            (&[lag(1.1, 1.1)], State::Lagging),
            (&[lag(1.1, 1.1), lag(0.9, 0.9)], State::Lagging),
            (&[lag(1.1, 1.1), lag(0.4, 9.0)], State::Healthy),
            (&[lag(1.1, 1.1), lag(9.0, 0.4)], State::Healthy),
            (&[lag(0.9, 0.9)], State::Healthy),
        ] {
            assert_eq!(after(steps), state, "{steps:?}");
        }
    }
}
