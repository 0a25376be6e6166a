//! Randomness as a parameter.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random bits shared by reference.
///
/// Taking `&self` is deliberate: a generator that is cloned per request yields every request the same jitter.
pub trait Random: fmt::Debug + Send + Sync {
    /// 64 fresh bits.
    fn bits(&self) -> u64;

    /// Uniform in `[0, 1)`.
    fn unit(&self) -> f64 {
        unit_from(self.bits())
    }
}

impl<R: Random + ?Sized> Random for Arc<R> {
    fn bits(&self) -> u64 {
        (**self).bits()
    }
}

#[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
fn unit_from(bits: u64) -> f64 {
    const STEP: f64 = 1.0 / 9_007_199_254_740_992.0; // 2^-53
    (bits >> 11) as f64 * STEP
}

/// The splitmix64 generator over one atomic counter: lock-free, and no two callers ever see the same draw.
///
/// Good for jitter and sampling; not for secrets.
#[derive(Debug)]
pub struct SplitMix(AtomicU64);

impl SplitMix {
    /// A reproducible sequence.
    pub const fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A sequence of its own for each process and each call.
    pub fn from_entropy() -> Self {
        // The standard library seeds its hash maps from the system; an empty hash hands us that seed.
        Self::seeded(
            std::collections::hash_map::RandomState::new()
                .build_hasher()
                .finish(),
        )
    }
}

impl Random for SplitMix {
    fn bits(&self) -> u64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
