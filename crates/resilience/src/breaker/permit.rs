//! The right to make one call, and the duty to say how it ended.

use std::sync::Arc;

use super::machine::{Core, Ending};
use crate::clock::Nanos;
use crate::outcome::Verdict;

/// The right to make one call.
///
/// It carries the generation it was given out in: an answer that arrives in a later one changes nothing.
/// Dropping it unrecorded means the call was abandoned (see [`Abandoned`](super::Abandoned)), or, during a
/// panic, that it failed. A permit never has to be waited for: one that is leaked is given up on after the
/// half-open wait.
#[derive(Debug)]
#[must_use = "dropping a permit records the call as abandoned"]
pub struct Permit {
    core: Arc<Core>,
    generation: u64,
    started: Nanos,
    probe: bool,
    settled: bool,
}

impl Permit {
    pub(super) fn new(core: &Arc<Core>, generation: u64, started: Nanos, probe: bool) -> Self {
        Self {
            core: Arc::clone(core),
            generation,
            started,
            probe,
            settled: false,
        }
    }

    /// Says how the call ended.
    pub fn record(mut self, verdict: Verdict) {
        self.settle(Ending::Verdict(verdict));
    }

    /// It worked.
    pub fn success(self) {
        self.record(Verdict::Success);
    }

    /// It failed.
    pub fn failure(self) {
        self.record(Verdict::Failure);
    }

    /// It says nothing about health.
    pub fn neutral(self) {
        self.record(Verdict::Neutral);
    }

    /// Whether this call decides over a half-open breaker.
    pub const fn is_probe(&self) -> bool {
        self.probe
    }

    /// The generation it was given out in.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// When it was given out, on the breaker's clock.
    pub const fn started(&self) -> Nanos {
        self.started
    }

    fn settle(&mut self, ending: Ending) {
        self.settled = true;
        self.core.settle(self.generation, self.started, ending);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(if std::thread::panicking() {
                Ending::Panicked
            } else {
                Ending::Abandoned
            });
        }
    }
}
