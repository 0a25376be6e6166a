//! The hedge: a second attempt when the first is unusually late.
//!
//! The delay follows a quantile of the calls' durations. The estimator needs no durations, only whether a
//! call was done before the delay ran out: that is known of a loser that was dropped, too, so slow calls are
//! not lost from the statistics and a p95 hedge is a 5 % hedge.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Budget, Extra, Spent};
use crate::sync::{AtomicU64, Ordering};

/// When to send a second attempt. Clones share the estimate.
#[derive(Debug, Clone)]
pub struct Hedge(Arc<Core>);

#[derive(Debug)]
struct Core {
    quantile: f64,
    floor: f64,
    ceiling: f64,
    min_samples: u64,
    max_in_flight: u64,
    budget: Budget,
    /// The bits of an `f64`, nanoseconds.
    delay: AtomicU64,
    samples: AtomicU64,
    in_flight: AtomicU64,
}

/// The leave to hedge; keep it until the extra attempt is over.
#[derive(Debug)]
#[must_use = "the hedge counts as over when this is dropped"]
pub struct Leave {
    hedge: Hedge,
    _spent: Spent,
}

impl Hedge {
    /// Hedge what is later than 95 % of the calls, within the budget, two at a time. Delays are kept between
    /// 1 ms and 1 s, and nothing is hedged before 100 calls were seen.
    pub fn p95(budget: &Budget) -> Self {
        Self::at_quantile(0.95, budget)
    }

    /// The same at another quantile (kept between 0.5 and 0.999).
    pub fn at_quantile(quantile: f64, budget: &Budget) -> Self {
        Self(Arc::new(Core {
            quantile: if quantile.is_nan() {
                0.95
            } else {
                quantile.clamp(0.5, 0.999)
            },
            floor: 1e6,
            ceiling: 1e9,
            min_samples: 100,
            max_in_flight: 2,
            budget: budget.clone(),
            delay: AtomicU64::new(1e7_f64.to_bits()),
            samples: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
        }))
    }

    /// Keep the delay between these two.
    #[must_use]
    pub fn between(self, floor: Duration, ceiling: Duration) -> Self {
        let floor = (floor.as_secs_f64() * 1e9).max(1.0);
        let ceiling = (ceiling.as_secs_f64() * 1e9).max(floor);
        self.rebuilt(|core| (core.floor, core.ceiling) = (floor, ceiling))
    }

    /// At most so many hedges at once. Default 2.
    #[must_use]
    pub fn max_in_flight(self, limit: u32) -> Self {
        self.rebuilt(|core| core.max_in_flight = limit.into())
    }

    /// Hedge nothing before so many calls were seen. Default 100.
    #[must_use]
    pub fn min_samples(self, samples: u32) -> Self {
        self.rebuilt(|core| core.min_samples = samples.into())
    }

    /// A hedge of other settings that starts to learn anew.
    fn rebuilt(self, change: impl FnOnce(&mut Core)) -> Self {
        let old = &*self.0;
        let mut core = Core {
            quantile: old.quantile,
            floor: old.floor,
            ceiling: old.ceiling,
            min_samples: old.min_samples,
            max_in_flight: old.max_in_flight,
            budget: old.budget.clone(),
            delay: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
        };
        change(&mut core);
        let start = 1e7_f64.clamp(core.floor, core.ceiling);
        core.delay = AtomicU64::new(start.to_bits());
        Self(Arc::new(core))
    }

    /// How long the first attempt may take before a second joins it. Ask once a call, and report by
    /// [`Self::in_time`] or [`Self::late`] against the answer.
    pub fn delay(&self) -> Duration {
        Duration::try_from_secs_f64(self.nanos() / 1e9).unwrap_or(Duration::MAX)
    }

    /// A first attempt was done before the delay.
    pub fn in_time(&self) {
        self.learn(-(1.0 - self.0.quantile));
    }

    /// A first attempt was not done by then, whatever became of it.
    pub fn late(&self) {
        self.learn(self.0.quantile);
    }

    /// The leave to send a second attempt now.
    pub fn try_start(&self) -> Option<Leave> {
        let core = &*self.0;
        if core.samples.load(Ordering::Relaxed) < core.min_samples {
            return None;
        }
        let mut seen = core.in_flight.load(Ordering::Relaxed);
        loop {
            if seen >= core.max_in_flight {
                return None;
            }
            match core
                .in_flight
                .compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        let Some(spent) = core.budget.try_spend(Extra::Hedge) else {
            core.in_flight.fetch_sub(1, Ordering::AcqRel);
            return None;
        };
        Some(Leave {
            hedge: self.clone(),
            _spent: spent,
        })
    }

    /// The budget, to book calls with.
    pub fn budget(&self) -> &Budget {
        &self.0.budget
    }

    fn nanos(&self) -> f64 {
        f64::from_bits(self.0.delay.load(Ordering::Relaxed))
    }

    /// Moves the delay up by `quantile` when a call was late and down by the rest when it was not: in balance,
    /// the late ones are exactly the share beyond the quantile. Large steps at first, 2 % ones later.
    fn learn(&self, direction: f64) {
        let core = &*self.0;
        let samples = core.samples.load(Ordering::Relaxed);
        if samples < core.min_samples {
            core.samples.fetch_add(1, Ordering::Relaxed);
        }
        let step = if samples < core.min_samples { 0.2 } else { 0.02 };
        let mut seen = core.delay.load(Ordering::Relaxed);
        loop {
            let next = (f64::from_bits(seen) * (1.0 + step * direction))
                .clamp(core.floor, core.ceiling)
                .to_bits();
            if next == seen {
                return;
            }
            match core
                .delay
                .compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.hedge.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
