//! The window: what the recent calls of this generation came to.
//!
//! Both forms cost O(1) in traffic. The success path never sums; only a failed or slow sample does, over a
//! fixed number of words.

use crate::clock::Nanos;
use crate::ring::{Counts, Ring};
use crate::sync::{AtomicU64, Ordering};

/// One call's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a breaker, behind its Arc; a box would cost each call a miss"
)]
pub(super) enum Window {
    Time(Ring),
    Calls(Slots),
}

impl Window {
    pub(super) fn clear(&self, generation: u64) {
        match self {
            Self::Time(ring) => ring.clear(generation),
            Self::Calls(slots) => slots.clear(generation),
        }
    }

    pub(super) fn record(&self, generation: u64, now: Nanos, sample: Sample) {
        match self {
            Self::Time(ring) => ring.add(generation, now, Counts::one(sample.failed, sample.slow)),
            Self::Calls(slots) => slots.record(generation, sample),
        }
    }

    pub(super) fn counts(&self, generation: u64, now: Nanos) -> Counts {
        match self {
            Self::Time(ring) => ring.counts(generation, now),
            Self::Calls(slots) => slots.counts(generation),
        }
    }
}

/// The last `n` calls, exactly. One word a call: `generation 61 | present | failed | slow`.
#[derive(Debug)]
pub(super) struct Slots {
    cursor: AtomicU64,
    slots: Box<[AtomicU64]>,
}

const SLOW: u64 = 1;
const FAILED: u64 = 2;
const PRESENT: u64 = 4;
const GENERATION_SHIFT: u32 = 3;

impl Slots {
    pub(super) fn new(calls: u16) -> Self {
        Self {
            cursor: AtomicU64::new(0),
            slots: (0..calls).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn clear(&self, generation: u64) {
        for slot in &self.slots {
            slot.store(generation << GENERATION_SHIFT, Ordering::Release);
        }
    }

    /// A sample of an older generation finds its slot re-tagged and is dropped.
    fn record(&self, generation: u64, sample: Sample) {
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
        let index = usize::try_from(turn % self.slots.len() as u64).unwrap_or(0);
        let slot = &self.slots[index];
        let value = generation << GENERATION_SHIFT
            | PRESENT
            | if sample.failed { FAILED } else { 0 }
            | if sample.slow { SLOW } else { 0 };
        let mut seen = slot.load(Ordering::Acquire);
        while seen >> GENERATION_SHIFT == generation {
            match slot.compare_exchange_weak(seen, value, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn counts(&self, generation: u64) -> Counts {
        let mut counts = Counts::default();
        for slot in &self.slots {
            let seen = slot.load(Ordering::Acquire);
            if seen >> GENERATION_SHIFT == generation && seen & PRESENT != 0 {
                counts += Counts::one(seen & FAILED != 0, seen & SLOW != 0);
            }
        }
        counts
    }
}
