//! What the first level holds for a key.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Nanos;
use crate::partition::PartitionId;
use crate::tag::Captured;
use crate::version::Version;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Its value.
    Value(Bytes),
    /// That it has none: never had, or was deleted.
    Absent,
    /// Only that it has reached a version: whoever needs the value has to load it.
    Unknown,
}

impl Body {
    /// Bytes of the value.
    pub fn len(&self) -> usize {
        match self {
            Self::Value(bytes) => bytes.len(),
            Self::Absent | Self::Unknown => 0,
        }
    }

    /// Whether there is no value, or an empty one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that an entry costs beside its key and its value: see the README's formula.
pub(crate) const OVERHEAD: u64 = 352;

/// A versioned body and what decides how long it may be served.
///
/// In this order in memory: a hit looks at what comes before the body, and should touch no more cache lines than that.
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) version: Version,
    /// The partition's generation when the load began.
    pub(crate) generation: u64,
    pub(crate) partition: PartitionId,
    /// Whether the body is unknown, where a hit need not look at the body for it.
    is_marker: bool,
    /// Whether it was in the first level and is not any more: replaced, evicted or taken out.
    left: AtomicBool,
    pub(crate) span: Span,
    /// When it was known to be the newest.
    pub(crate) known_at: Nanos,
    /// How old it was then.
    pub(crate) age_then: Duration,
    pub(crate) tags: Captured,
    pub(crate) touches: Touches,
    pub(crate) body: Body,
    /// What loading it took.
    pub(crate) cost: Duration,
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The points in time at which an entry's treatment changes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Span {
    /// From here on it is served only to who takes stale answers.
    pub(crate) hard: Nanos,
    /// Before this it is within the bound even if nobody validates the partition.
    pub(crate) trusted_until: Nanos,
    /// From here on it may be refreshed early.
    pub(crate) early_from: Nanos,
    /// From here on it is refreshed by the next reader.
    pub(crate) soft: Nanos,
}

impl Entry {
    pub(crate) fn new(version: Version, body: Body, partition: PartitionId, generation: u64) -> Self {
        let span = Span {
            trusted_until: Nanos::ZERO,
            early_from: Nanos::MAX,
            soft: Nanos::MAX,
            hard: Nanos::MAX,
        };
        Self {
            is_marker: matches!(body, Body::Unknown),
            left: AtomicBool::new(false),
            body,
            version,
            partition,
            generation,
            tags: Captured::default(),
            known_at: Nanos::ZERO,
            age_then: Duration::ZERO,
            span,
            cost: Duration::ZERO,
            touches: Touches::default(),
            decoded: OnceLock::new(),
        }
    }

    pub(crate) fn is_marker(&self) -> bool {
        self.is_marker
    }

    /// Something else has its place in the first level, or nothing.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    pub(crate) fn age(&self, now: Nanos) -> Duration {
        now.since(self.known_at) + self.age_then
    }

    /// The decoded value, decoded by whoever asks first.
    pub(crate) fn decoded<V: Send + Sync + 'static, E>(
        &self,
        decode: impl FnOnce(&Bytes) -> Result<V, E>,
    ) -> Option<Result<Arc<V>, E>> {
        let Body::Value(bytes) = &self.body else {
            return None;
        };
        if let Some(held) = self.decoded.get()
            && let Ok(value) = Arc::clone(held).downcast::<V>()
        {
            return Some(Ok(value));
        }
        Some(decode(bytes).map(|value| {
            let value = Arc::new(value);
            // Whoever was first is kept; equal bytes decode to equal values, so either will do.
            self.decoded.get_or_init(|| Arc::<V>::clone(&value));
            value
        }))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("version", &self.version)
            .field("bytes", &self.body.len())
            .field("generation", &self.generation)
            .field("span", &self.span)
            .finish_non_exhaustive()
    }
}

/// In how many ticks an entry was read. A hot entry is counted once a tick, by whichever clock its readers decide, so
/// that they do not fight over a cache line.
///
/// What replaces an entry inherits its key's count, halved for each [`HALF_LIFE`] that passes: exponential decay as in
/// G. Cormode, V. Shkapenyuk, D. Srivastava, B. Xu, "Forward Decay", ICDE 2009, applied when it is read or handed on.
/// No sketch: the first level is bounded, and keeps the keys that are read often anyway.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    last: AtomicU64,
    count: AtomicU32,
    inherited: u32,
}

/// See [`Touches::touch`].
const FEW: u32 = 64;
const REST: Duration = Duration::from_secs(1);
/// The time in which a key's past counts half.
const HALF_LIFE: Duration = Duration::from_mins(10);

impl Touches {
    /// Whether it is one of a few that stand for many: each after a rest, and one in [`FEW`] of the others that are counted.
    /// `tick` in nanoseconds.
    #[inline]
    pub(crate) fn touch(&self, now: Nanos, tick: u64) -> bool {
        let last = self.last();
        now.as_nanos() >= last.as_nanos().saturating_add(tick) && self.count_one(now, last)
    }

    #[cold]
    fn count_one(&self, now: Nanos, last: Nanos) -> bool {
        self.last.store(now.as_nanos(), Ordering::Relaxed);
        // Two readers may count one tick twice, or once: it is an estimate.
        let count = self.count.load(Ordering::Relaxed).saturating_add(1);
        self.count.store(count, Ordering::Relaxed);
        count.is_multiple_of(FEW) || now >= last.after(REST)
    }

    /// Since the entry was made.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> Nanos {
        Nanos::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

impl Entry {
    /// How much the key is read, its past included.
    pub(crate) fn popularity(&self, now: Nanos) -> u32 {
        let halves = now.since(self.known_at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let past = f64::from(self.touches.inherited) * (-halves).exp2();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between zero and what was inherited"
        )]
        let past = past as u32;
        past.saturating_add(self.touches.count())
    }

    /// Takes over from what it replaces.
    pub(crate) fn inherit(&mut self, previous: &Self) {
        self.touches = Touches {
            last: AtomicU64::new(previous.touches.last().as_nanos()),
            count: AtomicU32::new(0),
            inherited: previous.popularity(self.known_at),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);
    const TICK_NANOS: u64 = 1_000_000;

    #[test]
    fn a_few_touches_stand_for_many() {
        let (touches, start) = (Touches::default(), Nanos::ZERO.after(REST));
        let touch = |after| touches.touch(start.after(after), TICK_NANOS);
        assert!(touch(Duration::ZERO) && !touch(Duration::ZERO));
        let few = (1..=640).filter(|tick| touch(TICK * *tick)).count();
        assert_eq!(few, 10);
        assert!(touch(REST * 2) && touch(REST * 3), "each after a rest");
    }

    #[test]
    fn popularity_is_handed_on_and_halves() {
        let start = Nanos::ZERO.after(HALF_LIFE);
        let entry = |known_at| {
            let mut entry = Entry::new(Version::new(1), Body::Absent, 0, 1);
            entry.known_at = known_at;
            entry
        };
        let first = entry(start);
        for tick in 0..40 {
            let now = start.after(Duration::from_millis(tick));
            first.touches.touch(now, TICK_NANOS);
            first.touches.touch(now, TICK_NANOS);
            first.touches.touch(now.after(TICK / 2), TICK_NANOS);
        }
        assert_eq!(first.popularity(start), 40);
        let mut second = entry(start);
        second.inherit(&first);
        assert_eq!((second.touches.count(), second.popularity(start)), (0, 40));
        assert_eq!(second.touches.last(), first.touches.last());
        assert_eq!(second.popularity(start.after(HALF_LIFE)), 20);
        assert_eq!(second.popularity(start.after(HALF_LIFE * 3)), 5);
    }
}
