//! The client throttle: local rejection in proportion to what the dependency turns down (Google's SRE book,
//! "Handling Overload"). A soft alternative to a breaker: no cliff, no probes.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Nanos};
use crate::error::{Rejected, Why};
use crate::name::Name;
use crate::random::Random;
use crate::ring::{Counts, Ring};

/// Rejects with probability `max(0, (requests - k × accepts) / (requests + 1))`, over a sliding window.
/// Clones share the window.
#[derive(Debug, Clone)]
pub struct Throttle(Arc<Core>);

#[derive(Debug)]
struct Core {
    name: Name,
    k: f64,
    /// Totals are requests, "failed" are accepts.
    ring: Ring,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Throttle {
    /// `k` is how many requests the dependency may see per one it accepts (2 is usual; at least 1). The
    /// window should be longer than the longest call, or accepts fall out of step with requests.
    pub fn new(
        name: impl Into<Name>,
        k: f64,
        window: Duration,
        clock: impl Clock + 'static,
        random: impl Random + 'static,
    ) -> Self {
        Self(Arc::new(Core {
            name: name.into(),
            k: if k >= 1.0 { k } else { 1.0 },
            ring: Ring::new(window, 12),
            clock: Arc::new(clock),
            random: Arc::new(random),
        }))
    }

    /// Books a request, and admits it or turns it away. Rejected ones count as requests as well: that is
    /// what makes the rate follow the dependency's.
    ///
    /// # Errors
    /// [`Why::Throttled`].
    pub fn try_acquire(&self) -> Result<Ticket, Rejected> {
        let core = &*self.0;
        let now = core.clock.now();
        let odds = self.rejection_odds(now);
        core.ring.add(
            0,
            now,
            Counts {
                total: 1,
                failed: 0,
                slow: 0,
            },
        );
        if odds > 0.0 && core.random.unit() < odds {
            return Err(Rejected::new(core.name.clone(), Why::Throttled, None));
        }
        Ok(Ticket(self.clone()))
    }

    fn rejection_odds(&self, now: Nanos) -> f64 {
        let counts = self.0.ring.counts(0, now);
        let (requests, accepts) = (f64::from(counts.total), f64::from(counts.failed));
        ((requests - self.0.k * accepts) / (requests + 1.0)).max(0.0)
    }
}

/// An admitted request. Say if the dependency accepted it; dropped, it did not.
#[derive(Debug)]
#[must_use = "a dropped ticket counts as turned down"]
pub struct Ticket(Throttle);

impl Ticket {
    /// The dependency took the request, whatever came of it.
    pub fn accepted(self) {
        let core = &*self.0.0;
        core.ring.add(
            0,
            core.clock.now(),
            Counts {
                total: 0,
                failed: 1,
                slow: 0,
            },
        );
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
