//! Entries: reading, leasing, filling, changing them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use deadpool_redis::redis::cmd;
use futures_util::future::join_all;

use super::reads::{Found, Question};
use super::{Inner, garbled, millis, our_ms};
use crate::entry::Body;
use crate::error::RemoteError;
use crate::partition::PartitionId;
use crate::redis::compress::Choice;
use crate::redis::{script, wire};
use crate::remote::{Applied, Change, Fetched, Fill, Filled, Lease, Leased, Record};
use crate::version::{Key, Version};

impl Inner {
    pub(super) async fn get_one(&self, key: &Key) -> Result<Fetched, RemoteError> {
        let question = self.question(key);
        let partition = question.partition;
        let found = self.reads.one(question).await?;
        self.fetched(partition, key, found).await
    }

    pub(super) async fn get_many(&self, keys: &[Key]) -> Vec<Result<Fetched, RemoteError>> {
        let questions: Vec<Question> = keys.iter().map(|key| self.question(key)).collect();
        let found = self.reads.many(&questions).await;
        let fetched = questions.iter().zip(found).map(|(question, found)| async move {
            self.fetched(question.partition, &question.key, found?).await
        });
        join_all(fetched).await
    }

    fn question(&self, key: &Key) -> Question {
        Question {
            key: key.clone(),
            partition: self.id(key),
        }
    }

    async fn fetched(&self, partition: PartitionId, key: &Key, found: Found) -> Result<Fetched, RemoteError> {
        let Found { entry, position } = found;
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

    pub(super) async fn record(
        &self,
        partition: PartitionId,
        key: &Key,
        mut entry: Bytes,
    ) -> Result<Record, RemoteError> {
        let mut head = wire::head(&entry)?;
        // Not split off: two owners of one value would cost a box that they share.
        entry.advance(wire::HEAD);
        let mut tail = entry;
        if head.kind == wire::Kind::Apart {
            let mut command = cmd("GET");
            command.arg(self.body_key(partition, key, head.version));
            // In a box: few values are so large, and a read that has no use for it would move its kilobytes about.
            match Box::pin(self.ask_pooled::<Option<Bytes>>(&command)).await? {
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
    pub(super) async fn pack(
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

    pub(super) async fn lease_one(&self, key: &Key) -> Result<Leased, RemoteError> {
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

    pub(super) async fn fill_one(&self, fill: &Fill) -> Result<Filled, RemoteError> {
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

    pub(super) async fn apply_one(&self, change: &Change) -> Result<Applied, RemoteError> {
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
}
