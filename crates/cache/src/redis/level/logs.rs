//! The partitions' logs, and the tags that are raised in them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use deadpool_redis::redis::cmd;
use futures_util::future::join_all;

use super::{Inner, garbled, our_ms};
use crate::error::RemoteError;
use crate::partition::PartitionId;
use crate::redis::{script, wire};
use crate::remote::{Logged, Position, Replay};
use crate::version::Key;

impl Inner {
    pub(super) async fn tag_one(&self, tag: &Key) -> Result<u64, RemoteError> {
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

    pub(super) async fn bump_one(&self, tag: &Key) -> Result<Logged, RemoteError> {
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
    pub(super) async fn metas(&self) -> Vec<Option<Position>> {
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
        let positions: Vec<Option<Position>> = join_all(questions).await.into_iter().flatten().collect();
        for (partition, position) in all.into_iter().zip(&positions) {
            if let Some(position) = position {
                self.reads.polled(partition, *position);
            }
        }
        positions
    }

    /// The position of a meta key; a log that has not begun, or whose place somebody else took, begins.
    pub(super) async fn met(&self, partition: PartitionId, meta: Option<Bytes>) -> Option<Position> {
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
    pub(super) async fn learn_time(&self) {
        let asked: Result<(u64, u64), _> = self.ask(&cmd("TIME")).await;
        if let Ok((seconds, micros)) = asked {
            let server = seconds * 1000 + micros / 1000;
            self.ahead_ms
                .store(server.saturating_sub(our_ms()), Ordering::Relaxed);
        }
    }

    pub(super) async fn replay_one(
        &self,
        partition: PartitionId,
        after: Position,
    ) -> Result<Replay, RemoteError> {
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
