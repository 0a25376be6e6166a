//! The first level: `quick_cache`, weighed in bytes.
//!
//! Whoever writes to it holds the key's lock in the flight table; readers hold nothing.
//!
//! - **L1** A version is never replaced by a lower one.
//! - **L2** What leaves it is marked before whoever made it leave goes on, so that an entry that is not marked is what a
//!   lookup would find.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::entry::{Entry, OVERHEAD};
use crate::version::Key;

/// Weighs an entry in bytes, but never below the share that keeps the number of entries within its limit.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    least: u64,
    /// See [`Limits::decoded`].
    decoded: Option<Decoded>,
}

impl Weighter<Key, Arc<Entry>> for Bytes {
    fn weight(&self, key: &Key, entry: &Arc<Entry>) -> u64 {
        weight(key.len(), entry.body.len() as u64, self.decoded).max(self.least)
    }
}

/// L2, for what is replaced and what is evicted.
#[derive(Clone, Debug, Default)]
struct Leaving;

impl Lifecycle<Key, Arc<Entry>> for Leaving {
    /// Most requests make one or two leave; these are dropped when the shard's lock is given back.
    type RequestState = [Option<(Key, Arc<Entry>)>; 2];

    fn on_evict(&self, state: &mut Self::RequestState, key: Key, entry: Arc<Entry>) {
        entry.leave();
        if let Some(free) = state.iter_mut().find(|place| place.is_none()) {
            *free = Some((key, entry));
        }
    }
}

/// Bytes that an entry is accounted with, what is [decoded](Limits::decoded) of its body included.
fn weight(key: usize, body: u64, decoded: Option<Decoded>) -> u64 {
    let decoded = decoded.filter(|_| body > 0).map_or(0, |decoded| decoded.of(body));
    decoded.saturating_add(key as u64 + body + OVERHEAD)
}

/// What a decoded value takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded {
    /// Beside the bytes that it is decoded of.
    pub(crate) bytes: u64,
    /// How often it has those.
    pub(crate) copies: u64,
}

impl Decoded {
    fn of(self, body: u64) -> u64 {
        body.saturating_mul(self.copies).saturating_add(self.bytes)
    }
}

/// How big the first level may get.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) item: u64,
    /// What a decoded value takes; none are decoded otherwise.
    pub(crate) decoded: Option<Decoded>,
}

impl Limits {
    /// As many shards as the machine profits from, while one of them holds several of the largest items.
    fn shards(&self) -> usize {
        const ITEMS_A_SHARD: u64 = 8;
        let wanted = std::thread::available_parallelism().map_or(4, usize::from) * 4;
        let largest = weight(0, self.item, self.decoded);
        let by_size = self.bytes / largest.saturating_mul(ITEMS_A_SHARD);
        let by_count = self.entries / 32;
        let most = usize::try_from(by_size.min(by_count))
            .unwrap_or(usize::MAX)
            .max(1);
        // The library rounds up to a power of two.
        let most = 1_usize << (usize::BITS - 1 - most.leading_zeros());
        wanted.next_power_of_two().min(most)
    }
}

#[derive(Debug)]
pub(crate) struct Memory {
    cache: Cache<Key, Arc<Entry>, Bytes, DefaultHashBuilder, Leaving>,
    limits: Limits,
}

impl Memory {
    /// The builder has checked that both limits are positive, which is all the library asks for.
    pub(crate) fn new(limits: Limits) -> Option<Self> {
        let least = limits.bytes.div_ceil(limits.entries.max(1));
        let options = OptionsBuilder::new()
            .shards(limits.shards())
            .estimated_items_capacity(usize::try_from(limits.entries).unwrap_or(usize::MAX))
            .weight_capacity(limits.bytes)
            .build()
            .ok()?;
        let weighter = Bytes {
            least,
            decoded: limits.decoded,
        };
        let cache = Cache::with_options(options, weighter, DefaultHashBuilder::default(), Leaving);
        Some(Self { cache, limits })
    }

    /// A read that counts as a use.
    #[inline]
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.cache.get(key)
    }

    /// A look that does not.
    pub(crate) fn peek(&self, key: &str) -> Option<Arc<Entry>> {
        self.cache.peek(key)
    }

    /// Stores, unless a newer version is held (L1) or the item is too large, which then leaves nothing older behind.
    pub(crate) fn upsert(&self, key: &Key, entry: Arc<Entry>) -> bool {
        if let Some(held) = self.cache.peek(key.as_str())
            && (held.version > entry.version || (held.version == entry.version && entry.is_marker()))
        {
            return false;
        }
        if self.is_oversize(entry.body.len()) {
            if let Some((_, held)) = self.cache.remove(key.as_str()) {
                held.leave();
            }
            return false;
        }
        self.cache.insert(key.clone(), entry);
        true
    }

    /// Whether a body of so many bytes is not taken.
    pub(crate) fn is_oversize(&self, bytes: usize) -> bool {
        bytes as u64 > self.limits.item
    }

    #[cfg(test)]
    pub(crate) fn insert_blindly(&self, key: &Key, entry: Arc<Entry>) {
        self.cache.insert(key.clone(), entry);
    }

    /// Everything that is held, one shard's lock at a time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Arc<Entry>)> {
        self.cache.iter()
    }

    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.cache.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Body;
    use crate::version::Version;

    fn memory(entries: u64, bytes: u64, item: u64) -> Memory {
        decoding(entries, bytes, item, None)
    }

    fn decoding(entries: u64, bytes: u64, item: u64, decoded: Option<Decoded>) -> Memory {
        Memory::new(Limits {
            entries,
            bytes,
            item,
            decoded,
        })
        .unwrap()
    }

    const fn decoded(bytes: u64, copies: u64) -> Decoded {
        Decoded { bytes, copies }
    }

    fn value(version: u64, bytes: usize) -> Arc<Entry> {
        let body = Body::Value(vec![0; bytes].into());
        Arc::new(Entry::new(Version::new(version), body, 0, 1))
    }

    #[test]
    fn an_older_version_replaces_nothing() {
        let memory = memory(100, 1 << 20, 1 << 10);
        let key = Key::from("k");
        assert!(memory.upsert(&key, value(2, 1)));
        assert!(!memory.upsert(&key, value(1, 1)));
        let marker = || Arc::new(Entry::new(Version::new(2), Body::Unknown, 0, 1));
        assert!(!memory.upsert(&key, marker()), "a marker says less than a value");
        assert_eq!(memory.peek("k").unwrap().version.get(), 2);
    }

    #[test]
    fn the_largest_item_is_held_whatever_the_number_of_cores() {
        for decoded in [None, Some(decoded(1 << 10, 1)), Some(decoded(0, 3))] {
            let memory = decoding(10_000, 16 << 20, 1 << 20, decoded);
            let key = Key::from("large");
            assert!(memory.upsert(&key, value(1, 1 << 20)));
            assert!(memory.peek("large").is_some());
            assert!(!memory.upsert(&key, value(2, (1 << 20) + 1)));
            assert!(memory.peek("large").is_none(), "nothing older is left behind");
        }
    }

    #[test]
    fn what_is_decoded_counts_as_well() {
        let memory = decoding(1 << 20, 1 << 20, 1 << 10, Some(decoded(100, 2)));
        memory.upsert(&Key::from("value"), value(1, 50));
        assert_eq!(memory.weight(), OVERHEAD + 5 + 3 * 50 + 100);
        memory.clear();
        // Nothing is decoded of what has no body.
        let absent = Entry::new(Version::new(1), Body::Absent, 0, 1);
        memory.upsert(&Key::from("absent"), Arc::new(absent));
        assert_eq!(memory.weight(), OVERHEAD + 6);
    }

    // L2
    #[test]
    fn what_leaves_is_marked_and_what_stays_is_not() {
        let memory = memory(64, 1 << 20, 1 << 10);
        let (first, second) = (value(1, 1), value(2, 1));
        let key = Key::from("k");
        memory.upsert(&key, first.clone());
        assert!(!first.has_left());
        memory.upsert(&key, second.clone());
        assert!(first.has_left() && !second.has_left(), "replaced");
        memory.upsert(&key, value(1, 1));
        assert!(!second.has_left(), "what is older replaces nothing");
        memory.upsert(&key, value(3, (1 << 10) + 1));
        assert!(second.has_left(), "taken out");
        let many: Vec<(Key, Arc<Entry>)> = (0..1000)
            .map(|number| (Key::from(format!("k{number}")), value(1, 1)))
            .collect();
        for (key, entry) in &many {
            memory.upsert(key, entry.clone());
        }
        let left = many.iter().filter(|(_, entry)| entry.has_left()).count();
        assert!((1000 - 64..1000).contains(&left), "{left} were evicted");
        for (key, entry) in &many {
            assert_eq!(memory.peek(key.as_str()).is_none(), entry.has_left(), "{key}");
        }
    }

    #[test]
    fn neither_limit_is_exceeded() {
        let few = memory(64, 1 << 30, 1 << 10);
        let small = memory(100_000, 64 << 10, 1 << 10);
        for number in 0..10_000 {
            let key = Key::from(format!("k{number}"));
            few.upsert(&key, value(1, 10));
            small.upsert(&key, value(1, 100));
        }
        assert!(few.len() <= 64, "{}", few.len());
        assert!(small.weight() <= 64 << 10, "{}", small.weight());
        assert!(small.len() > 50);
    }
}
