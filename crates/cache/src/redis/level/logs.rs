//! The partitions' logs, and the tags that are raised in them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use deadpool_redis::redis::{Cmd, cmd};
use futures_util::future::join_all;

use super::names::Names;
use super::{Inner, garbled, our_ms};
use crate::error::RemoteError;
use crate::partition::PartitionId;
use crate::redis::{script, wire};
use crate::remote::{Logged, Position, Replay};
use crate::version::Key;

/// One command to a single node, one a partition's slot in a cluster. Made once: a poll would else spend most of its
/// instructions on names.
pub(super) fn polls(
    names: &Names,
    partitions: PartitionId,
    is_cluster: bool,
) -> Vec<(Vec<PartitionId>, Cmd)> {
    let all: Vec<PartitionId> = (0..partitions).collect();
    let a_question = if is_cluster { 1 } else { 512 };
    let question = |ids: &[PartitionId]| {
        let mut question = cmd("MGET");
        for id in ids {
            question.arg(names.meta(*id));
        }
        (ids.to_vec(), question)
    };
    all.chunks(a_question).map(question).collect()
}

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

    /// All meta keys, the questions at once.
    pub(super) async fn metas(&self) -> Vec<Option<Position>> {
        let questions = self.polls.iter().map(|(ids, question)| async move {
            match self.ask::<Vec<Option<Bytes>>>(question).await {
                Ok(metas) => self.met(ids, &metas).await,
                Err(_) => vec![None; ids.len()],
            }
        });
        let positions: Vec<Option<Position>> = join_all(questions).await.into_iter().flatten().collect();
        for (partition, position) in (0..).zip(&positions) {
            if let Some(position) = position {
                self.reads.polled(partition, *position);
            }
        }
        positions
    }

    /// The positions of these partitions' meta keys; logs that have not begun, or whose place somebody else took, begin.
    async fn met(&self, ids: &[PartitionId], metas: &[Option<Bytes>]) -> Vec<Option<Position>> {
        let told = |meta: &Option<Bytes>| wire::meta(meta.as_deref()?).map(|(position, _)| position);
        let mut positions: Vec<Option<Position>> = metas.iter().map(told).collect();
        positions.resize(ids.len(), None);
        let missing = ids
            .iter()
            .zip(&mut positions)
            .filter(|(_, position)| position.is_none());
        join_all(missing.map(|(id, position)| async move { *position = self.begun(*id).await })).await;
        positions
    }

    /// The position of a log that begins now, if nobody else began it.
    async fn begun(&self, partition: PartitionId) -> Option<Position> {
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
