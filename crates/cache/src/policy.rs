//! How long things are kept, and how long they are waited for.

use std::time::Duration;

use crate::clock::Nanos;
use crate::entry::{Body, Entry, Span};
use crate::random::Random;

/// How long things are kept, and how long they are waited for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// How long an entry may be served.
    pub ttl: Duration,
    /// The share of a time to live that varies, so that entries loaded together do not expire together; 0 to 0.5.
    pub jitter: f64,
    /// How long an absence may be served.
    pub negative_ttl: Duration,
    /// How long the version of a change is remembered for a key whose value is not held. Longer than any load takes.
    pub marker_ttl: Duration,
    /// The share of the time to live after which the next reader has it refreshed in the background; 0 to 1, 1 is never.
    pub refresh_after: f64,
    /// How eagerly an entry is refreshed before that, in units of what loading it took (`XFetch`'s beta); 0 is never.
    /// Source: A. Vattani, F. Chierichetti, K. Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", 2015.
    pub early: f64,
    /// How long a reader that takes stale answers waits before it gets one.
    pub soft_timeout: Duration,
    /// How long a reader waits at most.
    pub hard_timeout: Duration,
    /// How long a load may take. It outlives its readers up to this.
    pub load_timeout: Duration,
    /// How long a failure is the answer for everybody, before the source is asked again.
    pub error_backoff: Duration,
    /// How long the second level is waited for on the way to an answer.
    pub remote_timeout: Duration,
    /// How long another node's load is waited for before this node loads for itself.
    pub lease_wait: Duration,
    /// Most loads under way.
    pub max_loads: usize,
    /// Times to live by use: `None` leaves them all alike.
    pub adaptive: Option<Adaptive>,
}

/// Times to live by use: what was read often since it was loaded is kept longer, what was hardly read shorter.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Adaptive {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// As many ticks of the coarse clock with a read make an entry hot.
    pub hot: u32,
}

impl Adaptive {
    /// Between these, hot from eight ticks with a read on.
    pub const fn between(min: Duration, max: Duration) -> Self {
        Self { min, max, hot: 8 }
    }

    /// Doubles the time to live of a hot entry, halves it of one that nobody read.
    fn scale(&self, ttl: Duration, previous: Option<&Entry>) -> Duration {
        let Some(previous) = previous else {
            return ttl.clamp(self.min, self.max);
        };
        let had = previous.span.hard.since(previous.known_at);
        let next = match previous.touches.count() {
            0 | 1 => had / 2,
            touches if touches >= self.hot => had * 2,
            _ => had,
        };
        next.clamp(self.min, self.max)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Duration::from_mins(5),
            jitter: 0.1,
            negative_ttl: Duration::from_secs(30),
            marker_ttl: Duration::from_mins(1),
            refresh_after: 0.8,
            early: 1.0,
            soft_timeout: Duration::from_millis(50),
            hard_timeout: Duration::from_secs(5),
            load_timeout: Duration::from_secs(30),
            error_backoff: Duration::from_millis(25),
            remote_timeout: Duration::from_millis(250),
            lease_wait: Duration::from_millis(500),
            max_loads: 10_000,
            adaptive: None,
        }
    }
}

impl Policy {
    /// The span of an entry that was the newest at `known_at`.
    pub(crate) fn span(
        &self,
        entry: &Entry,
        wished: Option<Duration>,
        previous: Option<&Entry>,
        bound: Duration,
        random: &Random,
    ) -> Span {
        let base = match (&entry.body, wished) {
            (Body::Unknown, _) => self.marker_ttl,
            (_, Some(wished)) => wished,
            (Body::Absent, None) => self.negative_ttl,
            (Body::Value(_), None) => {
                let previous = previous.filter(|held| matches!(held.body, Body::Value(_)));
                self.adaptive
                    .map_or(self.ttl, |adaptive| adaptive.scale(self.ttl, previous))
            }
        };
        let ttl = base.mul_f64(1.0 - self.jitter * random.unit());
        let hard = entry.known_at.after(ttl);
        let soft = if self.refresh_after < 1.0 {
            entry.known_at.after(ttl.mul_f64(self.refresh_after))
        } else {
            Nanos::MAX
        };
        // Before ten costs the chance of an early refresh is below one in twenty thousand.
        let head_start = entry.cost.mul_f64(10.0 * self.early);
        let early_from = Nanos::from_nanos(
            soft.as_nanos()
                .saturating_sub(u64::try_from(head_start.as_nanos()).unwrap_or(u64::MAX)),
        );
        Span {
            trusted_until: entry.known_at.after(bound),
            early_from: early_from.max(entry.known_at),
            soft,
            hard,
        }
    }

    /// Whether an entry past `early_from` is due (`XFetch`).
    pub(crate) fn is_due(&self, entry: &Entry, now: Nanos, random: &Random) -> bool {
        if now >= entry.span.soft {
            return true;
        }
        let gap = entry.cost.mul_f64(self.early * -random.unit().max(1e-9).ln());
        now.after(gap) >= entry.span.soft
    }
}
