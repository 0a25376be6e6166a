//! [`RedisLevel`]: both ports on Redis.

mod ask;
mod entries;
mod logs;
mod names;
mod options;
mod reads;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::Pool;
use deadpool_redis::redis::Cmd;
use futures_util::future::join_all;
use tokio::sync::mpsc;

use self::names::Names;
pub use self::options::Options;
use self::reads::Reads;
use super::lanes::Lanes;
use super::link::{Dial, Dialler, Shared, pool, unavailable};
use super::{listen, wire};
use crate::clock::{Clock, TokioClock};
use crate::error::RemoteError;
use crate::partition::PartitionId;
use crate::random::Random;
use crate::remote::{
    Applied, Backplane, BoxFuture, Change, Each, Fetched, Fill, Filled, Leased, Logged, Position, Replay,
    SecondLevel,
};
use crate::settings::RedisSettings;
use crate::version::Key;

/// The second level and the backplane on Redis. Clones share it; with the last one its connections end.
///
/// Making one needs no server: it connects in the background, for ever, and until then answers that it is unavailable.
#[derive(Clone)]
pub struct RedisLevel(Arc<Inner>);

struct Inner {
    options: Options,
    names: Names,
    /// Questions for all meta keys, as polls ask them, with the partitions of each.
    polls: Vec<(Vec<PartitionId>, Cmd)>,
    dial: Dial,
    shared: Shared,
    reads: Reads,
    pool: Pool<Dialler>,
    ttl_ms: u64,
    random: Random,
    /// The server's clock minus ours, in milliseconds, for telling ages.
    ahead_ms: AtomicU64,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl RedisLevel {
    /// Understands the settings and begins to connect. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// Endpoints that can't be understood, a `ca_file` without certificates, or contradicting settings. That no server
    /// answers is not an error.
    pub fn connect(settings: &RedisSettings, options: Options) -> Result<Self, RemoteError> {
        if settings.endpoints.is_empty() || options.partitions == 0 {
            return Err(unavailable("there is no endpoint, or no partition"));
        }
        let dial = Dial::new(settings)?;
        let mut tasks = Vec::new();
        let shared = Shared::connect(&dial, &mut tasks);
        let names = Names::of(&options.name);
        let lanes = Lanes::new(&dial);
        Ok(Self(Arc::new(Inner {
            reads: Reads::new(
                &dial,
                names.clone(),
                options.partitions,
                shared.clone(),
                lanes.clone(),
            ),
            polls: logs::polls(&names, options.partitions, dial.is_cluster()),
            names,
            shared,
            pool: pool(&dial, lanes, &mut tasks)?,
            ttl_ms: millis(settings.ttl),
            random: Random::from_entropy(),
            ahead_ms: AtomicU64::new(u64::MAX),
            dial,
            options,
            tasks,
        })))
    }
}

impl fmt::Debug for RedisLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLevel")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn our_ms() -> u64 {
    TokioClock.now().as_nanos() / 1_000_000
}

impl Inner {
    fn nonce(&self) -> String {
        wire::nonce(self.random.bits())
    }
}

fn garbled(what: &str) -> RemoteError {
    RemoteError::Corrupt(what.to_owned())
}

impl SecondLevel for RedisLevel {
    fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Fetched>> {
        Box::pin(async move {
            match &keys[..] {
                [key] => vec![self.0.get_one(key).await],
                keys => self.0.get_many(keys).await,
            }
        })
    }

    fn get_one(&self, key: Key) -> BoxFuture<'_, Result<Fetched, RemoteError>> {
        Box::pin(async move { self.0.get_one(&key).await })
    }

    fn lease(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Leased>> {
        Box::pin(async move { join_all(keys.iter().map(|key| self.0.lease_one(key))).await })
    }

    fn fill(&self, fills: Vec<Fill>) -> BoxFuture<'_, Each<Filled>> {
        Box::pin(async move { join_all(fills.iter().map(|fill| self.0.fill_one(fill))).await })
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Each<Applied>> {
        Box::pin(async move { join_all(changes.iter().map(|change| self.0.apply_one(change))).await })
    }

    fn tags(&self, tags: Vec<Key>) -> BoxFuture<'_, Each<u64>> {
        Box::pin(async move { join_all(tags.iter().map(|tag| self.0.tag_one(tag))).await })
    }

    fn bump(&self, tag: Key) -> BoxFuture<'_, Result<Logged, RemoteError>> {
        Box::pin(async move { self.0.bump_one(&tag).await })
    }
}

impl Backplane for RedisLevel {
    fn positions(&self) -> BoxFuture<'_, Vec<Option<Position>>> {
        Box::pin(async move {
            if self.0.ahead_ms.load(Ordering::Relaxed) == u64::MAX {
                self.0.learn_time().await;
            }
            self.0.metas().await
        })
    }

    fn replay(&self, partition: PartitionId, after: Position) -> BoxFuture<'_, Result<Replay, RemoteError>> {
        Box::pin(async move { self.0.replay_one(partition, after).await })
    }

    fn listen(&self, sink: mpsc::Sender<Logged>) -> BoxFuture<'static, ()> {
        Box::pin(listen::listen(self.0.dial.clone(), self.0.channels(), sink))
    }
}
