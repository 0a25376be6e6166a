//! The adaptive limit: as many calls at once as the dependency turns out to bear. Additive increase,
//! multiplicative decrease.
//!
//! It grows only while it is in use (an idle client learns nothing), and shrinks at most once per crowd:
//! calls that began before the last decrease do not cause another.

use std::sync::Arc;

use crate::clock::{Clock, Nanos};
use crate::error::{Rejected, Why};
use crate::name::Name;
use crate::outcome::Verdict;
use crate::sync::{AtomicU64, Ordering};

/// The bounds of a [`Limiter`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Never below (at least 1).
    pub min: u32,
    /// Where it starts.
    pub start: u32,
    /// Never above.
    pub max: u32,
    /// What a drop multiplies it by (0 to 1, exclusive).
    pub decrease: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min: 1,
            start: 20,
            max: 200,
            decrease: 0.9,
        }
    }
}

/// An adaptive concurrency limit. Clones share it.
#[derive(Debug, Clone)]
pub struct Limiter(Arc<Core>);

#[derive(Debug)]
struct Core {
    name: Name,
    limits: Limits,
    clock: Arc<dyn Clock>,
    in_flight: AtomicU64,
    /// The bits of an `f64`.
    limit: AtomicU64,
    /// When it last shrank.
    shrunk: AtomicU64,
}

impl Limiter {
    /// Starts at `limits.start`; bounds out of order are put in order.
    pub fn new(name: impl Into<Name>, limits: Limits, clock: impl Clock + 'static) -> Self {
        let min = limits.min.max(1);
        let max = limits.max.max(min);
        let decrease = if limits.decrease > 0.0 && limits.decrease < 1.0 {
            limits.decrease
        } else {
            0.9
        };
        let limits = Limits {
            min,
            max,
            start: limits.start.clamp(min, max),
            decrease,
        };
        Self(Arc::new(Core {
            name: name.into(),
            clock: Arc::new(clock),
            in_flight: AtomicU64::new(0),
            limit: AtomicU64::new(f64::from(limits.start).to_bits()),
            shrunk: AtomicU64::new(0),
            limits,
        }))
    }

    /// A place, if the present limit has one.
    ///
    /// # Errors
    /// [`Why::Throttled`].
    pub fn try_acquire(&self) -> Result<Place, Rejected> {
        let core = &*self.0;
        let limit = u64::from(self.limit());
        let mut seen = core.in_flight.load(Ordering::Relaxed);
        while seen < limit {
            match core
                .in_flight
                .compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => {
                    return Ok(Place {
                        limiter: self.clone(),
                        started: core.clock.now(),
                    });
                }
                Err(now) => seen = now,
            }
        }
        Err(Rejected::new(core.name.clone(), Why::Throttled, None))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The present limit, whole calls.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "kept within the bounds, which are u32"
    )]
    pub fn limit(&self) -> u32 {
        f64::from_bits(self.0.limit.load(Ordering::Relaxed)) as u32
    }

    /// How many are out.
    pub fn in_flight(&self) -> u64 {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl Fn(f64) -> f64) {
        let Limits { min, max, .. } = self.0.limits;
        let mut seen = self.0.limit.load(Ordering::Relaxed);
        loop {
            let next = change(f64::from_bits(seen))
                .clamp(min.into(), max.into())
                .to_bits();
            match self
                .0
                .limit
                .compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn grow(&self) {
        // About one more per round of calls, and only when at least half of the present limit is in use.
        if self.in_flight() * 2 >= u64::from(self.limit()) {
            self.change(|limit| limit + 1.0 / limit);
        }
    }

    fn shrink(&self, started: Nanos) {
        let last = self.0.shrunk.load(Ordering::Acquire);
        if started.as_nanos() < last {
            return;
        }
        let now = self.0.clock.now().as_nanos().max(last.saturating_add(1));
        // The loser of a race belongs to the same crowd.
        if self
            .0
            .shrunk
            .compare_exchange(last, now, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            self.change(|limit| limit * self.0.limits.decrease);
        }
    }
}

/// A place under the limit. Dropping it unrecorded frees it and teaches nothing.
#[derive(Debug)]
#[must_use = "dropping a place gives it back"]
pub struct Place {
    limiter: Limiter,
    started: Nanos,
}

impl Place {
    /// Success may raise the limit; failure (a timeout above all) and throttling lower it.
    pub fn record(self, verdict: Verdict) {
        match verdict {
            Verdict::Success => self.limiter.grow(),
            Verdict::Failure | Verdict::Throttled { .. } => self.limiter.shrink(self.started),
            Verdict::Neutral => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
