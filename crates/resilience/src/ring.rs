//! A lock-free ring of time slices, shared by the breaker's window and the client throttle.
//!
//! ```text
//!  63           58 57              36 35        24 23        12 11         0
//! | generation 6  | slice 22          | total      | failed     | slow       |
//! ```
//!
//! A slice that fills up (4095 calls) is halved: rates keep, absolute counts become approximate. A sample
//! whose thread was suspended for longer than the ring is long is dropped. After an idle time of 2^22
//! slices (48 days of 1 s slices) the slice number wraps.

use std::ops::AddAssign;
use std::time::Duration;

use crate::clock::{Nanos, whole_nanos};
use crate::sync::{AtomicU64, Ordering};

#[cfg(not(loom))]
const RING: usize = 16;
/// Two slices are enough for every interleaving and keep loom's state small.
#[cfg(loom)]
const RING: usize = 2;

const COUNT_BITS: u32 = 12;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const FAILED_SHIFT: u32 = 12;
const TOTAL_SHIFT: u32 = 24;
const COUNTS_MASK: u64 = (1 << 36) - 1;
const SLICE_SHIFT: u32 = 36;
const SLICE_MASK: u64 = (1 << 22) - 1;
const GENERATION_SHIFT: u32 = 58;
const GENERATION_MASK: u64 = (1 << 6) - 1;

/// The most slices a window may be cut into.
pub(crate) const MAX_SLICES: u32 = 16;
/// Below this, halving cannot hide that a minimum was reached.
pub(crate) const MAX_EXACT: u32 = 2047;

/// How many calls, how many of them failed, how many were slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) total: u32,
    pub(crate) failed: u32,
    pub(crate) slow: u32,
}

impl Counts {
    pub(crate) fn one(failed: bool, slow: bool) -> Self {
        Self {
            total: 1,
            failed: failed.into(),
            slow: slow.into(),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.failed += other.failed;
        self.slow += other.slow;
    }
}

/// Division by a constant that is only known at run time: a multiplication by its reciprocal, which is a
/// quarter of the cost, and every finished call pays it.
#[derive(Debug)]
struct Divisor {
    divisor: u64,
    /// 2^64 / divisor, rounded down.
    reciprocal: u64,
}

impl Divisor {
    /// Zero counts as one.
    fn new(divisor: u64) -> Self {
        let divisor = divisor.max(1);
        let reciprocal = u64::try_from((1_u128 << 64) / u128::from(divisor)).unwrap_or(u64::MAX);
        Self { divisor, reciprocal }
    }

    /// The exact quotient. The estimate is never too large, and too small by at most one, because the
    /// reciprocal is off by less than 1 / 2^64.
    fn divide(&self, dividend: u64) -> u64 {
        let product = u128::from(dividend) * u128::from(self.reciprocal);
        let estimate = u64::try_from(product >> 64).unwrap_or(u64::MAX);
        let rest = dividend - estimate * self.divisor;
        estimate + u64::from(rest >= self.divisor)
    }
}

/// A cache line of its own for each slice: neighbours in time are written by different moments, not by
/// different threads, but the current one is hot.
#[derive(Debug)]
#[repr(align(64))]
struct Slice(AtomicU64);

#[derive(Debug)]
pub(crate) struct Ring {
    slice: Divisor,
    slices: u64,
    cells: [Slice; RING],
}

impl Ring {
    /// A window of `span`, forgotten a `slices`th at a time (1 to [`MAX_SLICES`]).
    pub(crate) fn new(span: Duration, slices: u32) -> Self {
        let slices = slices.clamp(1, MAX_SLICES);
        Self {
            slice: Divisor::new(whole_nanos(span / slices)),
            slices: slices.into(),
            cells: std::array::from_fn(|_| Slice(AtomicU64::new(0))),
        }
    }

    /// Starts a generation. The caller keeps two of these from running at once.
    pub(crate) fn clear(&self, generation: u64) {
        for slice in &self.cells {
            slice.0.store(tag(generation, 0), Ordering::Release);
        }
    }

    /// Adds to the present slice, unless `generation` is over.
    pub(crate) fn add(&self, generation: u64, now: Nanos, counts: Counts) {
        let number = self.slice.divide(now.as_nanos());
        let index = usize::try_from(number % RING as u64).unwrap_or(0);
        let slot = &self.cells[index].0;
        let (mine, packed) = (tag(generation, number), pack(counts));
        let mut seen = slot.load(Ordering::Acquire);
        loop {
            let next = if seen & !COUNTS_MASK == mine {
                if is_full(seen) {
                    mine | (halved(seen) + packed)
                } else {
                    seen + packed
                }
            } else if is_over(seen, generation, number) {
                return;
            } else {
                mine | packed
            };
            match slot.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// What the window holds: the present slice and the ones before it.
    pub(crate) fn counts(&self, generation: u64, now: Nanos) -> Counts {
        let number = self.slice.divide(now.as_nanos());
        let mut sum = Counts::default();
        for back in 0..self.slices.min(RING as u64) {
            let index = usize::try_from(number.wrapping_sub(back) % RING as u64).unwrap_or(0);
            let seen = self.cells[index].0.load(Ordering::Acquire);
            let age = number.wrapping_sub(seen >> SLICE_SHIFT) & SLICE_MASK;
            if seen >> GENERATION_SHIFT == generation & GENERATION_MASK && age < self.slices {
                sum += unpack(seen);
            }
        }
        sum
    }
}

const fn tag(generation: u64, slice: u64) -> u64 {
    (generation & GENERATION_MASK) << GENERATION_SHIFT | (slice & SLICE_MASK) << SLICE_SHIFT
}

/// Whether a sample comes too late for the slot it would go to: its generation has ended, or the ring has
/// lapped it. Anything further ahead than a few laps is an old slice seen through the wrap; a slot without
/// counts was only cleared.
fn is_over(seen: u64, generation: u64, number: u64) -> bool {
    const LAPS: u64 = 4 * RING as u64;
    let ahead = (seen >> SLICE_SHIFT).wrapping_sub(number) & SLICE_MASK;
    seen >> GENERATION_SHIFT != generation & GENERATION_MASK
        || (seen & COUNTS_MASK != 0 && (1..=LAPS).contains(&ahead))
}

fn unpack(word: u64) -> Counts {
    let field = |shift: u32| u32::try_from(word >> shift & COUNT_MASK).unwrap_or(u32::MAX);
    Counts {
        total: field(TOTAL_SHIFT),
        failed: field(FAILED_SHIFT),
        slow: field(0),
    }
}

fn pack(counts: Counts) -> u64 {
    u64::from(counts.total) << TOTAL_SHIFT | u64::from(counts.failed) << FAILED_SHIFT | u64::from(counts.slow)
}

/// Whether one of the counts cannot be added to. (A slow call is also in the total.)
const fn is_full(word: u64) -> bool {
    word >> TOTAL_SHIFT & COUNT_MASK == COUNT_MASK || word >> FAILED_SHIFT & COUNT_MASK == COUNT_MASK
}

/// The counts of a full slice, halved together.
fn halved(word: u64) -> u64 {
    let Counts { total, failed, slow } = unpack(word);
    pack(Counts {
        total: total / 2,
        failed: failed / 2,
        slow: slow / 2,
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
