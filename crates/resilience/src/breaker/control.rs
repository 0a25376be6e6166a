//! The control word: everything an admission depends on, in one atomic.
//!
//! State, generation and probe counts share a word, so a probe is admitted by the same compare-and-swap
//! that checks the limit and the state: over-admission cannot be written.
//!
//! ```text
//!  63      61 60                                24 23      16 15       8 7        0
//! | state  3 | generation 37                     | in flight | ok       | failed  |
//! ```
//!
//! The generation wraps after 2^37 transitions. A permit would have to outlive exactly that many to be
//! mistaken for a current one.

use super::State;
use crate::sync::{AtomicU64, Ordering};

const COUNT_BITS: u32 = 8;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const OK_SHIFT: u32 = 8;
const IN_FLIGHT_SHIFT: u32 = 16;
const GENERATION_SHIFT: u32 = 24;
const GENERATION_BITS: u32 = 37;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const STATE_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;

/// One reading of the control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word(u64);

impl Word {
    pub(super) const fn new(state: State, generation: u64) -> Self {
        Self((state as u64) << STATE_SHIFT | (generation & GENERATION_MASK) << GENERATION_SHIFT)
    }

    pub(super) const fn state(self) -> State {
        State::from_bits(self.0 >> STATE_SHIFT)
    }

    pub(super) const fn generation(self) -> u64 {
        (self.0 >> GENERATION_SHIFT) & GENERATION_MASK
    }

    pub(super) const fn in_flight(self) -> u64 {
        (self.0 >> IN_FLIGHT_SHIFT) & COUNT_MASK
    }

    pub(super) const fn ok(self) -> u64 {
        (self.0 >> OK_SHIFT) & COUNT_MASK
    }

    pub(super) const fn failed(self) -> u64 {
        self.0 & COUNT_MASK
    }

    /// The generation that follows this one.
    pub(super) const fn next_generation(self) -> u64 {
        (self.generation() + 1) & GENERATION_MASK
    }
}

/// How a probe ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    Passed,
    Failed,
    /// It said nothing: its slot goes to the next caller.
    Returned,
}

/// Faults that the loom models plant, to show that the models would notice.
#[cfg(loom)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutant {
    /// The probe limit forgets the probes that are still running.
    ForgetsInFlight,
    /// A finishing probe does not compare generations.
    ForgetsGeneration,
}

#[derive(Debug)]
pub(super) struct Control {
    word: AtomicU64,
    #[cfg(loom)]
    mutant: Option<Mutant>,
}

impl Control {
    pub(super) fn new(state: State) -> Self {
        Self {
            word: AtomicU64::new(Word::new(state, 0).0),
            #[cfg(loom)]
            mutant: None,
        }
    }

    #[cfg(loom)]
    pub(super) fn plant(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
    }

    pub(super) fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Starts a generation. The caller holds the transition lock, so nobody else publishes; a probe that
    /// counts itself concurrently loses its count with its generation.
    pub(super) fn publish(&self, word: Word) {
        self.word.store(word.0, Ordering::Release);
    }

    /// Whether `seen` has a probe slot left among `limit`.
    #[cfg_attr(
        not(loom),
        expect(clippy::unused_self, reason = "the models plant a fault in self")
    )]
    pub(super) fn has_slot(&self, seen: Word, limit: u64) -> bool {
        let running = seen.in_flight();
        #[cfg(loom)]
        let running = if self.mutant == Some(Mutant::ForgetsInFlight) {
            0
        } else {
            running
        };
        running + seen.ok() + seen.failed() < limit
    }

    /// Takes the slot that [`Self::has_slot`] saw. `false` if the word moved meanwhile.
    pub(super) fn take_slot(&self, seen: Word) -> bool {
        self.exchange(seen, Word(seen.0 + (1 << IN_FLIGHT_SHIFT)))
    }

    /// Books the end of a probe of `generation`; the word after it, or `None` if that generation is over.
    pub(super) fn finish_probe(&self, generation: u64, probe: Probe) -> Option<Word> {
        let counted = match probe {
            Probe::Passed => 1 << OK_SHIFT,
            Probe::Failed => 1,
            Probe::Returned => 0,
        };
        let mut seen = self.load();
        loop {
            if !self.is_current(seen, generation) {
                return None;
            }
            let next = Word(seen.0.wrapping_sub(1 << IN_FLIGHT_SHIFT).wrapping_add(counted));
            if self.exchange(seen, next) {
                return Some(next);
            }
            seen = self.load();
        }
    }

    #[cfg_attr(
        not(loom),
        expect(clippy::unused_self, reason = "the models plant a fault in self")
    )]
    fn is_current(&self, seen: Word, generation: u64) -> bool {
        #[cfg(loom)]
        if self.mutant == Some(Mutant::ForgetsGeneration) {
            return seen.state() == State::HalfOpen;
        }
        seen.generation() == generation
    }

    fn exchange(&self, seen: Word, next: Word) -> bool {
        self.word
            .compare_exchange_weak(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
