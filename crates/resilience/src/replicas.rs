//! Picks one of several endpoints: power of two choices over cost, breakers respected.
//!
//! The cost is a peak-sensitive moving average of latency times the calls in flight plus one. A failure is
//! booked as at least the penalty, so an endpoint that fails fast does not look fast.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tokio")]
use crate::breaker::Lent;
use crate::breaker::{Breaker, Permit, State};
use crate::bulkhead::Bulkhead;
use crate::clock::{Clock, Nanos};
use crate::error::{Rejected, Why};
use crate::name::Name;
use crate::outcome::{Outcome, Verdict};
use crate::random::{Random, SplitMix};
use crate::sync::{AtomicU64, Ordering};

mod ewma;

pub use self::ewma::Ewma;

/// One place to send a call to.
#[derive(Debug)]
pub struct Endpoint<T> {
    /// What the caller needs to reach it.
    pub value: T,
    breaker: Breaker,
    bulkhead: Option<Bulkhead>,
    latency: Ewma,
    in_flight: AtomicU64,
}

impl<T> Endpoint<T> {
    /// An endpoint behind its own breaker.
    pub fn new(value: T, breaker: Breaker) -> Self {
        Self {
            value,
            breaker,
            bulkhead: None,
            latency: Ewma::new(Duration::from_secs(10)),
            in_flight: AtomicU64::new(0),
        }
    }

    /// And behind its own bulkhead.
    #[must_use]
    pub fn bulkhead(mut self, bulkhead: Bulkhead) -> Self {
        self.bulkhead = Some(bulkhead);
        self
    }

    /// Its breaker.
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Its bulkhead, if it has one.
    pub const fn its_bulkhead(&self) -> Option<&Bulkhead> {
        self.bulkhead.as_ref()
    }

    /// Calls out at the moment.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn cost(&self, now: Nanos) -> f64 {
        // Beyond 2^32 calls in flight the comparison has other problems than precision.
        let waiting = u32::try_from(self.in_flight()).unwrap_or(u32::MAX);
        // An endpoint never heard of costs next to nothing, so it is soon heard of.
        self.latency.read(now).max(1e-6) * (f64::from(waiting) + 1.0)
    }
}

/// What to do when breakers have taken out too many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Panic {
    /// When less than this share of the endpoints is in, the breakers are ignored and all are used: better
    /// some failures than all of the load on the few that are left.
    Below(f64),
    /// The breakers are always believed; when all are open, so is the set.
    Never,
}

/// A fixed set of endpoints, at most 64. Clones share it.
#[derive(Debug)]
pub struct Replicas<T>(Arc<Core<T>>);

impl<T> Clone for Replicas<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Core<T> {
    name: Name,
    endpoints: Vec<Endpoint<T>>,
    panic: Panic,
    penalty: Duration,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl<T> Core<T> {
    /// The present, for booking latencies. Where there is nothing to choose, they are not booked.
    fn now(&self) -> Nanos {
        if self.endpoints.len() == 1 {
            Nanos::ZERO
        } else {
            self.clock.now()
        }
    }
}

/// Endpoints to leave out, by index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    /// With this one as well.
    #[must_use]
    pub const fn and(self, index: usize) -> Self {
        if index < 64 {
            Self(self.0 | 1 << index)
        } else {
            self
        }
    }

    /// Whether this one is left out.
    pub const fn contains(self, index: usize) -> bool {
        index < 64 && self.0 & 1 << index != 0
    }
}

impl<T> Replicas<T> {
    /// The set, with the system's clock, entropy of its own, panic below one half, and failures booked as at
    /// least 5 s. Endpoints after the 64th are ignored.
    pub fn new(name: impl Into<Name>, endpoints: impl IntoIterator<Item = Endpoint<T>>) -> Self {
        Self::with(
            name,
            endpoints,
            Panic::Below(0.5),
            Duration::from_secs(5),
            crate::SystemClock,
            SplitMix::from_entropy(),
        )
    }

    /// The set, with everything said.
    pub fn with(
        name: impl Into<Name>,
        endpoints: impl IntoIterator<Item = Endpoint<T>>,
        panic: Panic,
        penalty: Duration,
        clock: impl Clock + 'static,
        random: impl Random + 'static,
    ) -> Self {
        let endpoints = endpoints.into_iter().take(64).collect();
        let (clock, random) = (Arc::new(clock), Arc::new(random));
        Self(Arc::new(Core {
            name: name.into(),
            endpoints,
            panic,
            penalty,
            clock,
            random,
        }))
    }

    /// All of them.
    pub fn endpoints(&self) -> &[Endpoint<T>] {
        &self.0.endpoints
    }

    /// The cheaper of two endpoints drawn from those that are in and not yet tried; those tried only when
    /// there is nothing else.
    ///
    /// # Errors
    /// [`Why::NoEndpoint`] when the set is empty or its breakers have taken all out; of a set of one, its
    /// breaker's own reason.
    pub fn pick(&self, tried: Tried) -> Result<Picked<'_, T>, Rejected> {
        let choice = match self.0.endpoints.as_slice() {
            // Nothing to choose: a breaker that is always believed says it all.
            [only] if self.0.panic == Panic::Never => {
                only.breaker.peek()?;
                Choice {
                    index: 0,
                    forced: false,
                }
            }
            _ => self.choose(tried)?,
        };
        Ok(self.take(choice))
    }

    fn choose(&self, tried: Tried) -> Result<Choice, Rejected> {
        let core = &*self.0;
        let every = Tried(!0 >> (64 - core.endpoints.len().clamp(1, 64)));
        let mut usable = Tried::default();
        for (index, endpoint) in core.endpoints.iter().enumerate() {
            if endpoint.breaker.peek().is_ok() {
                usable = usable.and(index);
            }
        }
        let forced = self.panics(usable);
        if forced {
            usable = every;
        }
        let untried = Tried(usable.0 & !tried.0);
        let index = self.cheaper(if untried.0 == 0 { usable } else { untried });
        let index = index.ok_or_else(|| self.nowhere())?;
        Ok(Choice { index, forced })
    }

    fn take(&self, choice: Choice) -> Picked<'_, T> {
        let core = &*self.0;
        let Choice { index, forced } = choice;
        let endpoint = &core.endpoints[index];
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Picked {
            set: self,
            endpoint,
            index,
            forced,
            started: core.now(),
        }
    }

    fn panics(&self, usable: Tried) -> bool {
        let all = f64::from(u32::try_from(self.0.endpoints.len()).unwrap_or(u32::MAX));
        match self.0.panic {
            Panic::Below(share) => all > 0.0 && f64::from(usable.0.count_ones()) < share * all,
            Panic::Never => false,
        }
    }

    fn cheaper(&self, among: Tried) -> Option<usize> {
        let core = &*self.0;
        let count = among.0.count_ones();
        if count == 1 {
            // Nothing to draw for.
            return usize::try_from(among.0.trailing_zeros()).ok();
        }
        let draw = core.random.bits();
        let nth = |n: u64| {
            (0..core.endpoints.len())
                .filter(|index| among.contains(*index))
                .nth(usize::try_from(n).ok()?)
        };
        let first = draw.checked_rem(count.into())?;
        // A second one that differs from the first.
        let second = (first + 1 + (draw >> 32) % u64::from(count - 1)) % u64::from(count);
        let (first, second) = (nth(first)?, nth(second)?);
        let now = core.clock.now();
        let costs_less = core.endpoints[second].cost(now) < core.endpoints[first].cost(now);
        Some(if costs_less { second } else { first })
    }

    fn nowhere(&self) -> Rejected {
        let core = &*self.0;
        let mut reasons = core
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.breaker.peek().err());
        if core.endpoints.len() == 1
            && let Some(reason) = reasons.next()
        {
            return reason;
        }
        let next_probe = reasons.filter_map(|reason| reason.retry_after).min();
        Rejected::new(core.name.clone(), Why::NoEndpoint, next_probe)
    }
}

/// Which endpoint, and whether its breaker was overruled.
#[derive(Clone, Copy)]
struct Choice {
    index: usize,
    forced: bool,
}

/// A choice that was made. Dropping it unrecorded frees its place and books nothing.
#[derive(Debug)]
#[must_use = "the endpoint counts as left when this is dropped"]
pub struct Picked<'a, T> {
    set: &'a Replicas<T>,
    endpoint: &'a Endpoint<T>,
    index: usize,
    forced: bool,
    started: Nanos,
}

impl<'a, T> Picked<'a, T> {
    /// Which one.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The endpoint.
    pub const fn endpoint(&self) -> &'a Endpoint<T> {
        self.endpoint
    }

    /// The breaker's permit; `None` in a panic, when the breaker is not asked.
    ///
    /// # Errors
    /// As [`Breaker::try_acquire`].
    pub fn permit(&self) -> Result<Option<Permit>, Rejected> {
        let breaker = &self.endpoint().breaker;
        match breaker.try_acquire() {
            Err(rejected) if !self.forced || breaker.state() == State::Isolated => Err(rejected),
            permit => Ok(permit.ok()),
        }
    }

    /// [`Self::permit`] that borrows the breaker.
    #[cfg(feature = "tokio")]
    pub(crate) fn lend(&self) -> Result<Option<Lent<'a>>, Rejected> {
        let breaker = &self.endpoint().breaker;
        match breaker.lend() {
            Err(rejected) if !self.forced || breaker.state() == State::Isolated => Err(rejected),
            permit => Ok(permit.ok()),
        }
    }

    /// Books how the call went.
    pub fn record(self, outcome: Outcome) {
        let core = &*self.set.0;
        if core.endpoints.len() == 1 {
            return;
        }
        let now = core.clock.now();
        let took = now.since(self.started);
        let booked = match outcome.verdict {
            Verdict::Success => took,
            Verdict::Neutral => return,
            Verdict::Failure => took.max(core.penalty),
            Verdict::Throttled { retry_after } => took.max(
                retry_after
                    .unwrap_or(core.penalty)
                    .clamp(core.penalty, core.penalty.saturating_mul(60)),
            ),
        };
        self.endpoint().latency.observe(now, booked);
    }
}

impl<T> Drop for Picked<'_, T> {
    fn drop(&mut self) {
        self.endpoint().in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
