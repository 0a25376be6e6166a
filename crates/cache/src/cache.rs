//! The handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::answer::{Answer, Kept, Read, Recalled};
use crate::builder::Builder;
use crate::clock::Nanos;
use crate::engine::{Engine, tend};
use crate::error::{Error, checked};
use crate::health::RemoteReach;
use crate::loader::Loader;
use crate::memory::Memory;
use crate::partition::PartitionId;
use crate::remote::Position;
use crate::version::{Key, Version};
use crate::{Put, Receipt, Warmed, Warming};

/// A cache of versioned bytes. Clones share it; with the last one its background tasks end, and loads under way go on
/// until they are done.
#[derive(Clone)]
pub struct Cache {
    /// Not behind the tasks: a hit follows one pointer less.
    engine: Arc<Engine>,
    _tasks: Arc<Tasks>,
}

struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// How a cache is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Entries of the first level.
    pub entries: usize,
    /// Their bytes, as accounted.
    pub bytes: u64,
    /// Loads under way.
    pub loads: usize,
    /// Changes that wait for the second level.
    pub deferred: usize,
    /// Partitions whose entries may be served unasked now.
    pub trusted_partitions: usize,
}

impl Cache {
    /// Describes a cache. The name is for messages.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name.into())
    }

    pub(crate) fn start(engine: Arc<Engine>, replays: mpsc::Receiver<(PartitionId, Position)>) -> Self {
        let tasks = tend(&engine, replays);
        Self {
            engine,
            _tasks: Arc::new(Tasks(tasks)),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.engine.name
    }

    /// The present on the cache's clock, for [`Read::at`].
    pub fn now(&self) -> Nanos {
        // The coarse clock is left alone: readers on many threads would fight over it.
        self.engine.clock.now()
    }

    /// As [`now`](Self::now), from the coarse clock where nobody else changes anything: a cache without a backplane holds
    /// the newest however late it is, by a tick or, after the process was suspended, by as long as that was.
    #[inline]
    pub fn present(&self) -> Nanos {
        if self.engine.backplane.is_some() {
            self.now()
        } else {
            self.engine.coarse()
        }
    }

    /// What the first level may answer at once: no await, no lock of the cache's own, no allocation, no clock call.
    #[inline]
    pub fn get(&self, key: &str, read: &Read) -> Option<Answer> {
        self.engine.hit(key, read)
    }

    /// Whether [`get`](Self::get) would give the answer that this is of to a read with this floor at this time: what a lookup
    /// finds, without one. `None` says that something else may be there by now. For whoever keeps something made of an
    /// answer beside it.
    ///
    /// It does not count as a use where the first level decides what to evict: see [`Recalled::look_up`].
    #[inline]
    pub fn recall(&self, kept: &Kept, floor: Version, at: Nanos) -> Option<Recalled> {
        self.engine.hit_again(&kept.0, floor, at)
    }

    /// Answers from the first level, the second, or by the loader, which runs once however many ask.
    ///
    /// Dropping the future gives up waiting only: the load goes on for the others and for the cache.
    ///
    /// # Errors
    ///
    /// The loader's error, no answer in time, a source that is behind the floor, too many loads. Trouble with the
    /// second level is none of them.
    pub async fn get_or_load(
        &self,
        key: &str,
        read: &Read,
        loader: &Arc<dyn Loader>,
    ) -> Result<Answer, Error> {
        self.engine.get_or_load(key, read, loader).await
    }

    /// The value that the second level holds at the moment, with its version: whatever its age, so that it is no answer to a
    /// reader, but something to go on from for who knows which version came before his own. Nothing is loaded or kept.
    ///
    /// Dropping the future gives the question up, which may cost the connection that it was asked over.
    pub async fn remote_value(&self, key: &str) -> Option<(Version, Bytes)> {
        self.engine.remote_value(&checked(key).ok()?).await
    }

    /// Whether there is a first level.
    pub fn has_memory(&self) -> bool {
        self.engine.memory.is_some()
    }

    /// Whether there is a second level.
    pub fn has_remote(&self) -> bool {
        self.engine.remote.is_some()
    }

    /// As [`get_or_load`](Self::get_or_load) for many keys, answers in their order. What is missing is asked for
    /// together: one question to the second level, one to the loader.
    pub async fn get_many(
        &self,
        keys: &[&str],
        read: &Read,
        loader: &Arc<dyn Loader>,
    ) -> Vec<Result<Answer, Error>> {
        self.engine.get_many(keys, read, loader).await
    }

    /// Tells the cache a change, after it was committed at the source.
    ///
    /// To be awaited to the end: a dropped future may leave the change in effect in this process only. Telling it
    /// again does no harm.
    ///
    /// # Errors
    ///
    /// A key that is too long. A second level that is down is not an error but [`Receipt::Deferred`].
    pub async fn put(&self, put: Put) -> Result<Receipt, Error> {
        self.put_many(vec![put])
            .await
            .pop()
            .unwrap_or(Err(Error::Abandoned))
    }

    /// As [`put`](Self::put) for many changes, together.
    pub async fn put_many(&self, puts: Vec<Put>) -> Vec<Result<Receipt, Error>> {
        self.engine.apply(puts).await
    }

    /// Invalidates everything that has this tag, in O(1).
    ///
    /// # Errors
    ///
    /// A tag that is too long.
    pub async fn invalidate_tag(&self, tag: &str) -> Result<Receipt, Error> {
        self.engine.bump_tag(tag).await
    }

    /// Loads keys before anybody asks for them: what is not held comes from the second level or the loader, in batches,
    /// politely (see [`Warming`]). Progress is told as [`Event::Warmed`](crate::Event::Warmed) after each batch.
    ///
    /// Never an error: what could not be loaded is counted. Dropping the future ends it after the batches under way.
    pub async fn warm(
        &self,
        keys: impl IntoIterator<Item = Key>,
        read: &Read,
        loader: &Arc<dyn Loader>,
        warming: &Warming,
    ) -> Warmed {
        self.engine
            .warm(keys.into_iter().collect(), read, loader, warming)
            .await
    }

    /// The keys of the first level that are read most, most first. The count of a key halves in ten minutes. Goes over
    /// all entries: for now and then, not for each request.
    pub fn popular(&self, most: usize) -> Vec<Key> {
        self.engine.popular(most)
    }

    /// The keys of the first level that were read last, latest first; to within a tick of the coarse clock. Goes over all
    /// entries.
    pub fn recent(&self, most: usize) -> Vec<Key> {
        self.engine.recent(most)
    }

    /// Drops everything in this process, remembered versions included: for a source whose versions went back.
    pub fn clear(&self) {
        self.engine.clear();
    }

    /// How it is doing. Takes each shard's lock once.
    pub fn stats(&self) -> Stats {
        let engine = &self.engine;
        let now = engine.now();
        let partitions = &engine.partitions;
        Stats {
            entries: engine.memory.as_ref().map_or(0, Memory::len),
            bytes: engine.memory.as_ref().map_or(0, Memory::weight),
            loads: engine.flights.live(),
            deferred: engine.deferred(),
            trusted_partitions: (0..partitions.count())
                .filter(|id| partitions.at(*id).holds(now))
                .count(),
        }
    }

    /// Whether the second level can be reached, and for how long that has been so; `None` if there is none, or before it
    /// was asked anything. It is told by the backplane's polls, so that it is fresh while nobody reads; without a
    /// backplane by what reads and changes met. Asks nobody.
    pub fn remote_reach(&self) -> Option<RemoteReach> {
        let engine = &self.engine;
        engine.remote.as_ref()?;
        engine.standing.reach(engine.now())
    }

    /// The bound it keeps (G5).
    pub fn bound(&self) -> Duration {
        self.engine.bound.promised
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
