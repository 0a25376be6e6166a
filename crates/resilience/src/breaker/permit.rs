//! The right to make one call, and the duty to say how it ended.

use std::ops::Deref;
use std::sync::Arc;

use super::machine::Core;
use super::settlement::Ending;
use crate::clock::Nanos;
use crate::outcome::Verdict;

/// What an admission gives out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) started: Nanos,
    pub(super) probe: bool,
}

/// A ticket that settles itself, on a breaker that is shared or merely borrowed.
#[derive(Debug)]
pub(crate) struct Held<C: Deref<Target = Core>> {
    core: C,
    ticket: Ticket,
    settled: bool,
}

impl<C: Deref<Target = Core>> Held<C> {
    pub(super) const fn new(core: C, ticket: Ticket) -> Self {
        Self {
            core,
            ticket,
            settled: false,
        }
    }

    pub(super) fn record(mut self, verdict: Verdict) {
        self.settle(Ending::Verdict(verdict));
    }

    fn settle(&mut self, ending: Ending) {
        self.settled = true;
        self.core.settle(self.ticket, ending);
    }
}

impl<C: Deref<Target = Core>> Drop for Held<C> {
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

/// The right to make one call.
///
/// It carries the generation it was given out in: an answer that arrives in a later one changes nothing.
/// Dropping it unrecorded means the call was abandoned (see [`Abandoned`](super::Abandoned)), or, during a
/// panic, that it failed. A permit never has to be waited for: one that is leaked is given up on after the
/// half-open wait.
#[derive(Debug)]
#[must_use = "dropping a permit records the call as abandoned"]
pub struct Permit(pub(super) Held<Arc<Core>>);

impl Permit {
    /// Says how the call ended.
    pub fn record(self, verdict: Verdict) {
        self.0.record(verdict);
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
        self.0.ticket.probe
    }

    /// The generation it was given out in.
    pub const fn generation(&self) -> u64 {
        self.0.ticket.generation
    }

    /// When it was given out, on the breaker's clock.
    pub const fn started(&self) -> Nanos {
        self.0.ticket.started
    }
}
