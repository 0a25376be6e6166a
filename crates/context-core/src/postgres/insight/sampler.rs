//! Which slow statements are explained: a share of them, and never many.

use std::sync::atomic::{AtomicU64, Ordering};

use contextkeep_resilience::{Random as _, SplitMix};
use tokio::time::Instant;

/// Least time between two explanations, of any statement and of the same one, in milliseconds.
const APART: u64 = 1_000;
const APART_OF_ONE: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Sampler {
    rate: f64,
    random: SplitMix,
    epoch: Instant,
    /// When one was last let through, in milliseconds since the epoch, 1 at least; 0: never.
    last: AtomicU64,
}

impl Sampler {
    pub(super) fn new(rate: f64) -> Self {
        Self {
            rate,
            random: SplitMix::from_entropy(),
            epoch: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Whether this one is explained; `of_one` is when its statement last was.
    pub(super) fn takes(&self, of_one: &AtomicU64) -> bool {
        let now = u64::try_from(self.epoch.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let is_due = |last: u64, apart: u64| last == 0 || now.saturating_sub(last) >= apart;
        if self.random.unit() >= self.rate || !is_due(of_one.load(Ordering::Relaxed), APART_OF_ONE) {
            return false;
        }
        let last = self.last.load(Ordering::Relaxed);
        // Of several at the same time one is let through.
        let taken = is_due(last, APART)
            && self
                .last
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if taken {
            of_one.store(now, Ordering::Relaxed);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_most_one_a_second_and_one_a_minute_of_the_same() {
        let sampler = Sampler::new(1.0);
        let (head, tail) = (AtomicU64::new(0), AtomicU64::new(0));
        assert!(sampler.takes(&head));
        assert!(!sampler.takes(&tail), "within the second");
        advance(Duration::from_secs(1)).await;
        assert!(!sampler.takes(&head), "within its minute");
        assert!(sampler.takes(&tail));
        advance(Duration::from_secs(59)).await;
        assert!(sampler.takes(&head));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_a_share_and_0_is_none() {
        for (rate, range) in [(0.0, 0..=0), (0.1, 600..=1400), (1.0, 10_000..=10_000)] {
            let sampler = Sampler::new(rate);
            let mut taken = 0;
            for _ in 0..10_000 {
                taken += u32::from(sampler.takes(&AtomicU64::new(0)));
                advance(Duration::from_secs(1)).await;
            }
            assert!(range.contains(&taken), "{rate}: {taken}");
        }
    }
}
