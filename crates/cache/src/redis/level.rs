//! [`RedisLevel`]: both ports on Redis.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use deadpool::managed::{Object, Pool};
use deadpool_redis::redis::{Cmd, FromRedisValue, ScriptInvocation, cmd};
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::compress::Choice;
use super::link::{Dial, Dialler, Shared, pool, unavailable};
use super::{listen, script, wire};
use crate::clock::{Clock, TokioClock};
use crate::entry::Body;
use crate::error::RemoteError;
use crate::partition::{PartitionId, partition_of};
use crate::random::Random;
use crate::remote::{
    Applied, Backplane, BoxFuture, Change, Each, Fetched, Fill, Filled, Lease, Leased, Logged, Position,
    Record, Replay, SecondLevel,
};
use crate::settings::{CompressionSettings, RedisSettings};
use crate::version::{Key, Version};

/// What is not a setting of the connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The beginning of all keys: caches of different names, or of different kinds of values, share nothing.
    pub name: String,
    /// As the cache's; all nodes have to agree.
    pub partitions: u16,
    /// Larger values are not kept.
    pub max_value: usize,
    /// Larger values lie in keys of their own and go over the pool.
    pub large_from: usize,
    /// How long a node may load a key before another may.
    pub lease: Duration,
    /// Entries of a partition's log that are kept for those who missed messages.
    pub log_length: u32,
    /// Values from this size on are compressed by lz4 (feature `compression`).
    pub lz4_from: usize,
    /// Values from this size on are compressed by zstd instead.
    pub zstd_from: usize,
}

impl Options {
    /// The usual ones.
    pub fn named(name: impl Into<String>) -> Self {
        let choice = Choice::default();
        Self {
            name: name.into(),
            partitions: 256,
            max_value: 8 << 20,
            large_from: 32 << 10,
            lease: Duration::from_secs(5),
            log_length: 512,
            lz4_from: choice.lz4_from,
            zstd_from: choice.zstd_from,
        }
    }
}

impl Options {
    /// Compresses as described.
    #[must_use]
    pub fn compression(mut self, settings: &CompressionSettings) -> Self {
        let from = |size: bytesize::ByteSize| {
            let size = usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
            if settings.enabled { size } else { usize::MAX }
        };
        self.lz4_from = from(settings.lz4_from);
        self.zstd_from = from(settings.zstd_from);
        self
    }
}

/// The second level and the backplane on Redis. Clones share it; with the last one its connections end.
///
/// Making one needs no server: it connects in the background, for ever, and until then answers that it is unavailable.
#[derive(Clone)]
pub struct RedisLevel(Arc<Inner>);

struct Inner {
    options: Options,
    dial: Dial,
    shared: Shared,
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
    /// Endpoints that can't be understood, or contradicting settings. That no server answers is not an error.
    pub fn connect(settings: &RedisSettings, options: Options) -> Result<Self, RemoteError> {
        if settings.endpoints.is_empty() || options.partitions == 0 {
            return Err(unavailable("there is no endpoint, or no partition"));
        }
        let dial = Dial::new(settings).map_err(unavailable)?;
        let mut tasks = Vec::new();
        Ok(Self(Arc::new(Inner {
            shared: Shared::connect(&dial, &mut tasks),
            pool: pool(&dial, &mut tasks)?,
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
    fn id(&self, key: &str) -> PartitionId {
        partition_of(key, self.options.partitions)
    }

    fn key(&self, partition: PartitionId, rest: &str) -> String {
        format!("{{{}.{partition}}}{rest}", self.options.name)
    }

    fn entry_key(&self, partition: PartitionId, key: &Key) -> String {
        format!("{{{}.{partition}}}e:{key}", self.options.name)
    }

    fn body_key(&self, partition: PartitionId, key: &Key, version: Version) -> String {
        format!("{{{}.{partition}}}b:{key}:{version}", self.options.name)
    }

    fn lease_key(&self, partition: PartitionId, key: &Key) -> String {
        format!("{{{}.{partition}}}L:{key}", self.options.name)
    }

    /// One channel a partition in a cluster, where it stays within its shard; else one for all.
    fn channel(&self, partition: PartitionId) -> String {
        if self.dial.is_cluster() {
            self.key(partition, "i")
        } else {
            format!("{{{}}}i", self.options.name)
        }
    }

    fn channels(&self) -> Vec<String> {
        if self.dial.is_cluster() {
            (0..self.options.partitions).map(|id| self.channel(id)).collect()
        } else {
            vec![self.channel(0)]
        }
    }

    fn publish(&self) -> &'static str {
        if self.dial.is_cluster() {
            "SPUBLISH"
        } else {
            "PUBLISH"
        }
    }

    fn nonce(&self) -> String {
        wire::nonce(self.random.bits())
    }

    /// Our own deadline around everything, because the library's does not cover reconnecting.
    async fn within<T>(
        &self,
        work: impl Future<Output = deadpool_redis::redis::RedisResult<T>>,
    ) -> Result<T, RemoteError> {
        match tokio::time::timeout(self.dial.answer_within(), work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_timeout() => Err(RemoteError::TimedOut),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(RemoteError::TimedOut),
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RemoteError> {
        let mut link = self.shared.link()?;
        self.within(command.query_async(&mut link)).await
    }

    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RemoteError> {
        let mut link = self.shared.link()?;
        self.within(script.invoke_async(&mut link)).await
    }

    /// A command with a large body, on a connection of the pool. One that failed does not go back.
    async fn ask_pooled<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RemoteError> {
        let mut link = self.pool.get().await.map_err(unavailable)?;
        let answer = self.within(command.query_async(&mut *link)).await;
        if answer.is_err() {
            drop(Object::take(link));
        }
        answer
    }

    async fn get_one(&self, key: &Key) -> Result<Fetched, RemoteError> {
        let partition = self.id(key);
        let mut command = cmd("MGET");
        command
            .arg(self.entry_key(partition, key))
            .arg(self.key(partition, "m"));
        let (entry, meta): (Option<Bytes>, Option<Bytes>) = self.ask(&command).await?;
        let position = meta.as_deref().and_then(wire::meta).map(|(position, _)| position);
        let Some(entry) = entry else {
            return Ok(Fetched {
                record: None,
                position,
            });
        };
        let record = self.record(partition, key, entry).await?;
        Ok(Fetched {
            record: Some(record),
            position,
        })
    }

    async fn record(
        &self,
        partition: PartitionId,
        key: &Key,
        mut entry: Bytes,
    ) -> Result<Record, RemoteError> {
        let mut head = wire::head(&entry)?;
        let mut tail = entry.split_off(wire::HEAD);
        if head.kind == wire::Kind::Apart {
            let mut command = cmd("GET");
            command.arg(self.body_key(partition, key, head.version));
            match self.ask_pooled::<Option<Bytes>>(&command).await? {
                Some(body) => {
                    tail = body;
                    head.kind = wire::Kind::Value;
                }
                // Evicted: what is left is the version.
                None => head.kind = wire::Kind::Marker,
            }
        }
        let (body, tags) = wire::untail(head.kind, tail)?;
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        let age = if ahead == u64::MAX {
            0
        } else {
            our_ms().saturating_add(ahead).saturating_sub(head.stored_ms)
        };
        Ok(Record {
            version: head.version,
            body,
            tags,
            age: Duration::from_millis(age),
        })
    }

    /// The kind and the tail of a body; a large one is brought to its own key first.
    async fn pack(
        &self,
        key: &Key,
        version: Version,
        body: &Body,
        tags: &[(Key, u64)],
    ) -> Result<(wire::Kind, Bytes), RemoteError> {
        let kind = match body {
            Body::Unknown => return Ok((wire::Kind::Marker, Bytes::new())),
            Body::Absent => wire::Kind::Absent,
            Body::Value(_) => wire::Kind::Value,
        };
        if body.len() > self.options.max_value {
            return Err(RemoteError::TooLarge(body.len()));
        }
        let choice = Choice {
            lz4_from: self.options.lz4_from,
            zstd_from: self.options.zstd_from,
        };
        let tail = wire::tail(body, tags, choice);
        if tail.len() < self.options.large_from {
            return Ok((kind, tail));
        }
        let mut command = cmd("SET");
        command
            .arg(self.body_key(self.id(key), key, version))
            .arg(&tail[..])
            .arg("PX")
            .arg(self.ttl_ms);
        self.ask_pooled::<()>(&command).await?;
        Ok((wire::Kind::Apart, Bytes::new()))
    }

    async fn lease_one(&self, key: &Key) -> Result<Leased, RemoteError> {
        let partition = self.id(key);
        let token = self.random.bits();
        let mut script = script::LEASE.prepare_invoke();
        script
            .key(self.key(partition, "m"))
            .key(self.key(partition, "t"))
            .key(self.entry_key(partition, key))
            .key(self.lease_key(partition, key))
            .arg(self.nonce())
            .arg(token)
            .arg(millis(self.options.lease));
        let (granted, meta, version): (u8, Bytes, Bytes) = self.run(&script).await?;
        if granted == 0 {
            return Ok(Leased::Held);
        }
        let (position, mark) = wire::meta(&meta).ok_or_else(|| garbled("a meta key"))?;
        let floor = std::str::from_utf8(&version)
            .ok()
            .and_then(|text| text.parse().ok());
        Ok(Leased::Granted(Lease {
            token,
            floor: Version::new(floor.unwrap_or(0)),
            mark,
            position,
        }))
    }

    async fn fill_one(&self, fill: &Fill) -> Result<Filled, RemoteError> {
        let partition = self.id(&fill.key);
        let (kind, tail) = self.pack(&fill.key, fill.version, &fill.body, &fill.tags).await?;
        let mut script = script::FILL.prepare_invoke();
        script
            .key(self.entry_key(partition, &fill.key))
            .key(self.lease_key(partition, &fill.key))
            .arg(fill.token)
            .arg(wire::version(fill.version))
            .arg(kind.letter())
            .arg(&tail[..])
            .arg(self.ttl_ms);
        let stored: u8 = self.run(&script).await?;
        Ok(if stored == 1 {
            Filled::Stored
        } else {
            Filled::Refused
        })
    }

    async fn apply_one(&self, change: &Change) -> Result<Applied, RemoteError> {
        let partition = self.id(&change.key);
        let packed = self
            .pack(&change.key, change.version, &change.body, &change.tags)
            .await;
        // What can't be kept still has happened.
        let (kind, tail) = packed.unwrap_or((wire::Kind::Marker, Bytes::new()));
        let notice = wire::key_notice(partition, change.version, change.mark, &change.key);
        let mut script = script::APPLY.prepare_invoke();
        script
            .key(self.key(partition, "m"))
            .key(self.key(partition, "t"))
            .key(self.entry_key(partition, &change.key))
            .key(self.lease_key(partition, &change.key))
            .key(self.key(partition, "l"))
            .arg(self.nonce())
            .arg(wire::version(change.version))
            .arg(wire::mark(change.mark))
            .arg(kind.letter())
            .arg(&tail[..])
            .arg(self.ttl_ms)
            .arg(self.options.log_length)
            .arg(self.publish())
            .arg(self.channel(partition))
            .arg(notice);
        let (applied, told, kept): (u8, Bytes, Option<u8>) = self.run(&script).await?;
        if applied == 0 {
            let higher = std::str::from_utf8(&told).ok().and_then(|text| text.parse().ok());
            return Ok(Applied::Superseded(Version::new(
                higher.ok_or_else(|| garbled("a version"))?,
            )));
        }
        Ok(Applied::Done {
            logged: wire::logged(&told),
            kept: kept == Some(1),
        })
    }

    async fn tag_one(&self, tag: &Key) -> Result<u64, RemoteError> {
        let partition = self.id(tag);
        let mut script = script::TAG.prepare_invoke();
        script
            .key(self.key(partition, "m"))
            .key(self.key(partition, "t"))
            .arg(self.nonce())
            .arg(tag.as_str());
        let at: Bytes = self.run(&script).await?;
        wire::position(&at)
            .map(Position::generation)
            .ok_or_else(|| garbled("a generation"))
    }

    async fn bump_one(&self, tag: &Key) -> Result<Logged, RemoteError> {
        let partition = self.id(tag);
        let mut script = script::BUMP.prepare_invoke();
        script
            .key(self.key(partition, "m"))
            .key(self.key(partition, "t"))
            .key(self.key(partition, "l"))
            .arg(self.nonce())
            .arg(tag.as_str())
            .arg(self.options.log_length)
            .arg(self.publish())
            .arg(self.channel(partition))
            .arg(wire::tag_notice(partition, tag));
        let told: Bytes = self.run(&script).await?;
        wire::logged(&told).ok_or_else(|| garbled("a log entry"))
    }

    /// All meta keys: one command to a single node, one a partition's slot in a cluster, all at once.
    async fn metas(&self) -> Vec<Option<Position>> {
        let all: Vec<PartitionId> = (0..self.options.partitions).collect();
        let a_question = if self.dial.is_cluster() { 1 } else { 512 };
        let questions = all.chunks(a_question).map(|ids| async move {
            let mut command = cmd("MGET");
            for id in ids {
                command.arg(self.key(*id, "m"));
            }
            match self.ask::<Vec<Option<Bytes>>>(&command).await {
                Ok(metas) => join_all(ids.iter().zip(metas).map(|(id, meta)| self.met(*id, meta))).await,
                Err(_) => vec![None; ids.len()],
            }
        });
        join_all(questions).await.into_iter().flatten().collect()
    }

    /// The position of a meta key; a log that has not begun, or whose place somebody else took, begins.
    async fn met(&self, partition: PartitionId, meta: Option<Bytes>) -> Option<Position> {
        if let Some((position, _)) = meta.as_deref().and_then(wire::meta) {
            return Some(position);
        }
        let mut script = script::BEGINNING.prepare_invoke();
        script
            .key(self.key(partition, "m"))
            .key(self.key(partition, "t"))
            .arg(self.nonce());
        let begun: Bytes = self.run(&script).await.ok()?;
        wire::meta(&begun).map(|(position, _)| position)
    }

    /// Learns how far the server's clock is ahead of ours. Only ages are told by it.
    async fn learn_time(&self) {
        let asked: Result<(u64, u64), _> = self.ask(&cmd("TIME")).await;
        if let Ok((seconds, micros)) = asked {
            let server = seconds * 1000 + micros / 1000;
            self.ahead_ms
                .store(server.saturating_sub(our_ms()), Ordering::Relaxed);
        }
    }

    async fn replay_one(&self, partition: PartitionId, after: Position) -> Result<Replay, RemoteError> {
        let mut script = script::REPLAY.prepare_invoke();
        script
            .key(self.key(partition, "m"))
            .key(self.key(partition, "l"))
            .arg(after.seq);
        let told: Vec<Bytes> = self.run(&script).await?;
        let Some((position, _)) = told.first().and_then(|meta| wire::meta(meta)) else {
            return Ok(Replay::Lost);
        };
        if position == after {
            return Ok(Replay::Changes(Vec::new()));
        }
        let changes: Option<Vec<Logged>> = told.iter().skip(1).map(|text| wire::logged(text)).collect();
        Ok(match changes {
            Some(changes) if follows(&changes, after) => Replay::Changes(changes),
            _ => Replay::Lost,
        })
    }
}

fn follows(changes: &[Logged], after: Position) -> bool {
    changes
        .first()
        .is_some_and(|first| first.position.seq == after.seq + 1 && first.before == after.nonce)
}

fn garbled(what: &str) -> RemoteError {
    RemoteError::Corrupt(what.to_owned())
}

impl SecondLevel for RedisLevel {
    fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Fetched>> {
        Box::pin(async move {
            match &keys[..] {
                [key] => vec![self.0.get_one(key).await],
                keys => join_all(keys.iter().map(|key| self.0.get_one(key))).await,
            }
        })
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
