//! Runs of like outcomes: failures in a row, and calls abandoned in a row.

use crate::sync::{AtomicU64, Ordering};

const RUN_MASK: u64 = 0xFFFF;
const ABANDONED_SHIFT: u32 = 16;
const GENERATION_SHIFT: u32 = 32;
const GENERATION_MASK: u64 = 0xFFFF_FFFF;

/// `generation 32 | abandoned 16 | failures 16`. A generation that is over cannot touch its successor's
/// runs: every write is a compare-and-swap on a word that carries the generation.
#[derive(Debug)]
pub(super) struct Streak(AtomicU64);

impl Streak {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Starts a generation. The caller holds the transition lock.
    pub(super) fn clear(&self, generation: u64) {
        self.0.store(tag(generation), Ordering::Release);
    }

    pub(super) fn failures(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & RUN_MASK
    }

    /// A success ends both runs. The usual case, nothing running, is one load.
    pub(super) fn succeed(&self, generation: u64) {
        self.update(generation, |_| 0);
    }

    /// An answer without a verdict ends only the run of abandoned calls.
    pub(super) fn answer(&self, generation: u64) {
        self.update(generation, |runs| runs & RUN_MASK);
    }

    /// One more failure; the length of its run, or zero if the generation is over.
    pub(super) fn fail(&self, generation: u64) -> u64 {
        self.update(generation, |runs| {
            (runs & RUN_MASK).saturating_add(1).min(RUN_MASK)
        })
    }

    /// One more abandoned call; the length of its run, or zero if the generation is over.
    pub(super) fn abandon(&self, generation: u64) -> u64 {
        let runs = self.update(generation, |runs| {
            let abandoned = ((runs >> ABANDONED_SHIFT) + 1).min(RUN_MASK);
            abandoned << ABANDONED_SHIFT | runs & RUN_MASK
        });
        runs >> ABANDONED_SHIFT
    }

    fn update(&self, generation: u64, change: impl Fn(u64) -> u64) -> u64 {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if seen & !(RUN_MASK | RUN_MASK << ABANDONED_SHIFT) != tag(generation) {
                return 0;
            }
            let runs = change(seen & !(GENERATION_MASK << GENERATION_SHIFT));
            let next = tag(generation) | runs;
            if next == seen {
                return runs;
            }
            match self
                .0
                .compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return runs,
                Err(now) => seen = now,
            }
        }
    }
}

const fn tag(generation: u64) -> u64 {
    (generation & GENERATION_MASK) << GENERATION_SHIFT
}
