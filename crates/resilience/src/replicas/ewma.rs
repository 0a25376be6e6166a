//! A moving average in one word, without a lock.

use std::time::Duration;

use crate::clock::Nanos;
use crate::sync::{AtomicU64, Ordering};

/// A peak-sensitive exponentially weighted average of durations: it jumps to a worse sample at once and
/// decays towards better ones, and towards zero while nothing is heard, with time constant `tau`.
#[derive(Debug)]
pub struct Ewma {
    tau_millis: f64,
    /// `value, bits of an f32 in seconds | time, milliseconds 32`.
    word: AtomicU64,
}

impl Ewma {
    /// An average that has heard nothing.
    pub fn new(tau: Duration) -> Self {
        Self {
            tau_millis: (tau.as_secs_f64() * 1e3).max(1.0),
            word: AtomicU64::new(0),
        }
    }

    /// The average in seconds, as of now.
    pub fn read(&self, now: Nanos) -> f64 {
        let (value, at) = unpack(self.word.load(Ordering::Relaxed));
        value * self.decay(at, millis(now))
    }

    /// Hears a sample.
    pub fn observe(&self, now: Nanos, sample: Duration) {
        let (sample, now) = (sample.as_secs_f64(), millis(now));
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let (value, at) = unpack(seen);
            let weight = self.decay(at, now);
            let at_last = if age(at, now) == 0 { at } else { now };
            let next = if sample > value {
                sample
            } else {
                value * weight + sample * (1.0 - weight)
            };
            match self.word.compare_exchange_weak(
                seen,
                pack(next, at_last),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn decay(&self, then: u32, now: u32) -> f64 {
        (-f64::from(age(then, now)) / self.tau_millis).exp()
    }
}

/// From `then` to `now`; nothing when `then` is the later one, as for a thread that read the clock before
/// another and comes after it.
const fn age(then: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// Milliseconds, wrapping after 49 days: only differences are used.
fn millis(now: Nanos) -> u32 {
    u32::try_from((now.as_nanos() / 1_000_000) & u64::from(u32::MAX)).unwrap_or(0)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a latency needs no more than an f32's 24 bits"
)]
fn pack(seconds: f64, at: u32) -> u64 {
    u64::from((seconds as f32).to_bits()) << 32 | u64::from(at)
}

fn unpack(word: u64) -> (f64, u32) {
    let half = |shift: u32| u32::try_from(word >> shift & u64::from(u32::MAX)).unwrap_or(0);
    (f64::from(f32::from_bits(half(32))), half(0))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_comes_late_does_not_age_the_average() {
        let ewma = Ewma::new(Duration::from_secs(10));
        let at = |millis| Nanos::ZERO.after(Duration::from_millis(millis));
        ewma.observe(at(100), Duration::from_secs(5));
        assert!(ewma.read(at(99)) > 4.9);
        ewma.observe(at(99), Duration::from_millis(1));
        assert!(ewma.read(at(100)) > 4.9, "the failure is still known");
    }
}
