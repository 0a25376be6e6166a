//! A breaker for each key, and a bound on how many.
//!
//! Keys may come from requests (hosts, tenants), so the registry forgets: idle breakers first, then the
//! closed one that was used least recently, then any.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::breaker::{Breaker, State};
use crate::clock::{Clock, Nanos};

/// Breakers by key, made on first use.
pub struct Registry<K> {
    make: Box<dyn Fn(&K) -> Breaker + Send + Sync>,
    clock: Arc<dyn Clock>,
    max_keys: usize,
    idle_after: Duration,
    entries: RwLock<HashMap<K, Entry>>,
}

struct Entry {
    breaker: Breaker,
    used: AtomicU64,
}

impl Entry {
    fn used(&self) -> Nanos {
        Nanos::from_nanos(self.used.load(Ordering::Relaxed))
    }
}

impl<K: Eq + Hash + Clone> Registry<K> {
    /// At most `max_keys` breakers (at least one); one unused for `idle_after` goes first.
    pub fn new(
        max_keys: usize,
        idle_after: Duration,
        clock: impl Clock + 'static,
        make: impl Fn(&K) -> Breaker + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Box::new(make),
            clock: Arc::new(clock),
            max_keys: max_keys.max(1),
            idle_after,
            entries: RwLock::new(HashMap::new()),
        }
    }

    /// The breaker of that key. A known key takes a shared lock; a new one may push another out.
    pub fn get_or_insert<Q>(&self, key: &Q) -> Breaker
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let now = self.clock.now();
        if let Some(entry) = self
            .entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
        {
            entry.used.store(now.as_nanos(), Ordering::Relaxed);
            return entry.breaker.clone();
        }
        let owned = ToOwned::to_owned(key);
        let fresh = (self.make)(&owned);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if !entries.contains_key(key) && entries.len() >= self.max_keys {
            self.make_room(&mut entries, now);
        }
        let entry = entries.entry(owned).or_insert_with(|| Entry {
            breaker: fresh,
            used: AtomicU64::new(now.as_nanos()),
        });
        entry.breaker.clone()
    }

    fn make_room(&self, entries: &mut HashMap<K, Entry>, now: Nanos) {
        entries.retain(|_, entry| now.since(entry.used()) < self.idle_after);
        if entries.len() < self.max_keys {
            return;
        }
        let oldest = entries
            .iter()
            .min_by_key(|(_, entry)| (entry.breaker.state() != State::Closed, entry.used()))
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            entries.remove(&key);
        }
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All keys with their breakers, for metrics and consoles.
    pub fn all(&self) -> Vec<(K, Breaker)> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|(key, entry)| (key.clone(), entry.breaker.clone()))
            .collect()
    }
}

impl<K> fmt::Debug for Registry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
