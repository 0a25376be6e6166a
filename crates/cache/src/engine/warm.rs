//! Warming: loading keys before anybody asks.
//!
//! It is the least of the cache's work, so it gives way: a few batches at a time, a pause after each at least as long as
//! the batch took, none while readers' loads fill half of what may be under way, and an end when nothing works.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Engine;
use crate::answer::Read;
use crate::entry::Entry;
use crate::loader::Loader;
use crate::observe::Event;
use crate::sync::lock;
use crate::version::Key;

/// Batches in a row without a single success after which warming gives up.
const STRIKES: u32 = 3;

/// How a cache is warmed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Warming {
    /// Keys that are asked for together; at least 1. 32 unless told.
    pub batch: usize,
    /// Batches under way at a time; at least 1. 2 unless told.
    pub concurrency: usize,
    /// The shortest pause after a batch; it is never shorter than the batch took. 5 ms unless told.
    pub pause: Duration,
    /// Most keys; what comes after them is left out. 10,000 unless told.
    pub most: usize,
}

impl Default for Warming {
    fn default() -> Self {
        Self {
            batch: 32,
            concurrency: 2,
            pause: Duration::from_millis(5),
            most: 10_000,
        }
    }
}

/// What came of warming.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmed {
    /// Held already.
    pub held: usize,
    /// Loaded, from the second level or the source.
    pub loaded: usize,
    /// Asked for in vain.
    pub failed: usize,
    /// Not asked for: over the most, or given up because nothing worked.
    pub left: usize,
}

impl Warmed {
    fn done(&self) -> usize {
        self.held + self.loaded + self.failed
    }
}

/// What the workers share.
struct Work {
    keys: std::vec::IntoIter<Key>,
    of: usize,
    warmed: Warmed,
    strikes: u32,
}

impl Engine {
    pub(crate) async fn warm(
        self: &Arc<Self>,
        mut keys: Vec<Key>,
        read: &Read,
        loader: &Arc<dyn Loader>,
        warming: &Warming,
    ) -> Warmed {
        let all = keys.len();
        keys.truncate(warming.most);
        let of = keys.len();
        let work = Arc::new(Mutex::new(Work {
            keys: keys.into_iter(),
            of,
            warmed: Warmed::default(),
            strikes: 0,
        }));
        let workers = warming.concurrency.clamp(1, of.max(1));
        // Dropped with this future, which ends its tasks.
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let (engine, work, read) = (Arc::clone(self), Arc::clone(&work), read.clone());
            let (loader, warming) = (Arc::clone(loader), warming.clone());
            tasks.spawn(async move { engine.warm_batches(&work, &read, &loader, &warming).await });
        }
        while tasks.join_next().await.is_some() {}
        let mut warmed = lock(&work).warmed;
        warmed.left = all - warmed.done();
        warmed
    }

    async fn warm_batches(
        self: &Arc<Self>,
        work: &Mutex<Work>,
        read: &Read,
        loader: &Arc<dyn Loader>,
        warming: &Warming,
    ) {
        let most = warming.batch.max(1);
        loop {
            while self.flights.live() * 2 > self.policy.max_loads {
                tokio::time::sleep(warming.pause.max(Duration::from_millis(1))).await;
            }
            let (batch, held) = {
                let mut work = lock(work);
                if work.strikes >= STRIKES {
                    return;
                }
                let now = self.now();
                let (mut batch, mut held) = (Vec::with_capacity(most), 0);
                while batch.len() < most
                    && let Some(key) = work.keys.next()
                {
                    if self.holds(&key, read, now) {
                        held += 1;
                    } else {
                        batch.push(key);
                    }
                }
                (batch, held)
            };
            if batch.is_empty() && held == 0 {
                return;
            }
            let began = self.now();
            let keys: Vec<&str> = batch.iter().map(Key::as_str).collect();
            let answers = self.get_many(&keys, read, loader).await;
            let took = self.now().since(began);
            let (done, of) = {
                let mut work = lock(work);
                let loaded = answers.iter().filter(|answer| answer.is_ok()).count();
                work.warmed.held += held;
                work.warmed.loaded += loaded;
                work.warmed.failed += answers.len() - loaded;
                if loaded > 0 {
                    work.strikes = 0;
                } else if !answers.is_empty() {
                    work.strikes += 1;
                }
                (work.warmed.done(), work.of)
            };
            self.event(&Event::Warmed { done, of });
            tokio::time::sleep(took.max(warming.pause)).await;
        }
    }

    fn holds(&self, key: &Key, read: &Read, now: crate::clock::Nanos) -> bool {
        let held = self.memory.as_ref().and_then(|memory| memory.peek(key));
        held.is_some_and(|entry| self.serves(&entry, read.floor, now))
    }

    pub(crate) fn popular(&self, most: usize) -> Vec<Key> {
        let now = self.now();
        self.top(most, |entry| u64::from(entry.popularity(now)))
    }

    pub(crate) fn recent(&self, most: usize) -> Vec<Key> {
        self.top(most, |entry| entry.touches.last().as_nanos())
    }

    /// Keys that were read at all, by rank.
    fn top(&self, most: usize, rank: impl Fn(&Entry) -> u64) -> Vec<Key> {
        let Some(memory) = &self.memory else {
            return Vec::new();
        };
        let mut ranked: Vec<(u64, Key)> = memory
            .iter()
            .map(|(key, entry)| (rank(&entry), key))
            .filter(|(rank, _)| *rank > 0)
            .collect();
        if most < ranked.len() {
            ranked.select_nth_unstable_by_key(most, |(rank, _)| Reverse(*rank));
            ranked.truncate(most);
        }
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        ranked.into_iter().map(|(_, key)| key).collect()
    }
}
