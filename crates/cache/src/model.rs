//! The second level as a model: what the Redis scripts do, in memory, in one step each. The simulation and the
//! contract suite use it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Nanos;
use crate::entry::Body;
use crate::error::RemoteError;
use crate::partition::{PartitionId, partition_of};
use crate::remote::{
    Applied, Change, Fetched, Fill, Filled, Lease, Leased, Logged, Notice, Position, Record, Replay,
};
use crate::version::{Key, Mark, Version};

/// Faults that can be planted in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A change is taken whatever version is there.
    pub(crate) blind_set: bool,
    /// A fill is taken without looking at the lease or the version.
    pub(crate) fill_without_lease: bool,
}

#[derive(Clone, Debug)]
struct Stored {
    version: Version,
    body: Body,
    tags: Vec<(Key, u64)>,
    logged: bool,
    at: Nanos,
}

#[derive(Clone, Debug, Default)]
struct Part {
    /// None until the first change or lease.
    position: Option<Position>,
    mark: Mark,
    log: VecDeque<Logged>,
    tags: BTreeMap<Key, u64>,
    records: BTreeMap<Key, Stored>,
    leases: HashMap<Key, (u64, Nanos)>,
}

/// All partitions.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    parts: Vec<Part>,
    draws: u64,
    pub(crate) faults: Faults,
    pub(crate) log_length: usize,
    pub(crate) lease_ttl: Duration,
    pub(crate) max_body: usize,
}

impl Model {
    pub(crate) fn new(partitions: u16, seed: u64) -> Self {
        Self {
            parts: vec![Part::default(); usize::from(partitions)],
            draws: seed,
            faults: Faults::default(),
            log_length: 64,
            lease_ttl: Duration::from_millis(400),
            max_body: 1 << 20,
        }
    }

    fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::random::mix(self.draws) | 1
    }

    fn id(&self, key: &Key) -> PartitionId {
        partition_of(key, u16::try_from(self.parts.len()).unwrap())
    }

    fn part(&mut self, key: &Key) -> &mut Part {
        let id = usize::from(self.id(key));
        &mut self.parts[id]
    }

    /// The partition, with a log that has begun.
    fn begun(&mut self, key: &Key) -> (&mut Part, Position) {
        let nonce = self.draw();
        let part = self.part(key);
        let position = *part.position.get_or_insert(Position { seq: 0, nonce });
        (part, position)
    }

    pub(crate) fn get(&mut self, key: &Key, now: Nanos) -> Fetched {
        let part = self.part(key);
        Fetched {
            record: part.records.get(key).map(|stored| Record {
                version: stored.version,
                body: stored.body.clone(),
                tags: stored.tags.clone(),
                age: now.since(stored.at),
            }),
            position: part.position,
        }
    }

    pub(crate) fn lease(&mut self, key: &Key, now: Nanos) -> Leased {
        let (token, ttl) = (self.draw(), self.lease_ttl);
        let (part, position) = self.begun(key);
        if part.leases.get(key).is_some_and(|(_, until)| now < *until) {
            return Leased::Held;
        }
        part.leases.insert(key.clone(), (token, now.after(ttl)));
        Leased::Granted(Lease {
            token,
            floor: part
                .records
                .get(key)
                .map_or(Version::ZERO, |stored| stored.version),
            mark: part.mark,
            position,
        })
    }

    pub(crate) fn fill(&mut self, fill: Fill, now: Nanos) -> Result<Filled, RemoteError> {
        let (faults, max_body) = (self.faults, self.max_body);
        if fill.body.len() > max_body {
            return Err(RemoteError::TooLarge(fill.body.len()));
        }
        let part = self.part(&fill.key);
        let alive = part
            .leases
            .get(&fill.key)
            .is_some_and(|(token, until)| *token == fill.token && now < *until);
        let held = part
            .records
            .get(&fill.key)
            .map(|stored| (stored.version, stored.logged));
        let below = held.is_some_and(|(version, _)| version > fill.version);
        if (!alive || below) && !faults.fill_without_lease {
            return Ok(Filled::Refused);
        }
        part.leases.remove(&fill.key);
        let logged = held.is_some_and(|(version, logged)| version == fill.version && logged);
        part.records.insert(
            fill.key,
            Stored {
                version: fill.version,
                body: fill.body,
                tags: fill.tags,
                logged,
                at: now,
            },
        );
        Ok(Filled::Stored)
    }

    pub(crate) fn apply(&mut self, change: Change, now: Nanos) -> Applied {
        let (faults, log_length, max_body) = (self.faults, self.log_length, self.max_body);
        let (nonce, id) = (self.draw(), self.id(&change.key));
        let (part, before) = self.begun(&change.key);
        let held = part.records.get(&change.key).cloned();
        if let Some(held) = &held
            && held.version > change.version
            && !faults.blind_set
        {
            return Applied::Superseded(held.version);
        }
        part.leases.remove(&change.key);
        // A marker may itself have come late, after what was newer was evicted.
        let nothing = held.as_ref().is_none_or(|held| held.body == Body::Unknown);
        let late = nothing && change.mark < part.mark;
        let too_large = change.body.len() > max_body;
        let same = held.as_ref().filter(|held| held.version == change.version);
        let (body, tags, kept) = if change.body == Body::Unknown || late || too_large {
            // What is there in this very version is more than a marker.
            same.map_or((Body::Unknown, Vec::new(), false), |held| {
                (held.body.clone(), held.tags.clone(), false)
            })
        } else {
            (change.body, change.tags, true)
        };
        let was_logged = same.is_some_and(|held| held.logged);
        part.records.insert(
            change.key.clone(),
            Stored {
                version: change.version,
                body,
                tags,
                logged: true,
                at: now,
            },
        );
        part.mark = part.mark.max(change.mark);
        let notice = Notice::Key {
            key: change.key,
            version: change.version,
            mark: change.mark,
        };
        let logged = (!was_logged).then(|| part.log(id, before, nonce, notice, log_length));
        Applied::Done { logged, kept }
    }

    pub(crate) fn tag(&mut self, tag: &Key) -> u64 {
        let (part, position) = self.begun(tag);
        *part
            .tags
            .entry(tag.clone())
            .or_insert_with(|| position.generation())
    }

    pub(crate) fn bump(&mut self, tag: &Key) -> Logged {
        let (nonce, id, log_length) = (self.draw(), self.id(tag), self.log_length);
        let (part, before) = self.begun(tag);
        let generation = Position {
            seq: before.seq + 1,
            nonce,
        }
        .generation();
        part.tags.insert(tag.clone(), generation);
        let notice = Notice::Tag {
            tag: tag.clone(),
            generation,
        };
        part.log(id, before, nonce, notice, log_length)
    }

    /// Asking for it begins a log.
    pub(crate) fn positions(&mut self) -> Vec<Option<Position>> {
        for index in 0..self.parts.len() {
            let nonce = self.draw();
            self.parts[index]
                .position
                .get_or_insert(Position { seq: 0, nonce });
        }
        self.parts.iter().map(|part| part.position).collect()
    }

    pub(crate) fn replay(&self, partition: PartitionId, after: Position) -> Replay {
        let part = &self.parts[usize::from(partition)];
        let Some(position) = part.position else {
            return Replay::Lost;
        };
        if position == after {
            return Replay::Changes(Vec::new());
        }
        let changes: Vec<Logged> = part
            .log
            .iter()
            .filter(|logged| logged.position.seq > after.seq)
            .cloned()
            .collect();
        match changes.first() {
            Some(first) if first.position.seq == after.seq + 1 && first.before == after.nonce => {
                Replay::Changes(changes)
            }
            _ => Replay::Lost,
        }
    }

    /// Everything is gone.
    pub(crate) fn flush(&mut self) {
        for part in &mut self.parts {
            *part = Part::default();
        }
    }

    /// Memory ran out: an entry, or a lease, is gone.
    pub(crate) fn evict(&mut self, key: &Key) {
        let part = self.part(key);
        if part.records.remove(key).is_none() {
            part.leases.remove(key);
        }
    }

    /// The version that is there.
    pub(crate) fn version(&self, key: &Key) -> Option<Version> {
        let part = &self.parts[usize::from(self.id(key))];
        part.records.get(key).map(|stored| stored.version)
    }
}

impl Part {
    fn log(
        &mut self,
        partition: PartitionId,
        before: Position,
        nonce: u64,
        notice: Notice,
        keep: usize,
    ) -> Logged {
        let position = Position {
            seq: before.seq + 1,
            nonce,
        };
        self.position = Some(position);
        let logged = Logged {
            partition,
            position,
            before: before.nonce,
            notice,
        };
        self.log.push_back(logged.clone());
        if self.log.len() > keep {
            self.log.pop_front();
        }
        logged
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt;
    use std::sync::{Arc, Mutex};

    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::{Clock, TokioClock};
    use crate::contract::Level;
    use crate::remote::{Backplane, BoxFuture, Each, SecondLevel};

    /// The model behind the ports, without anything in between.
    struct Direct(Mutex<Model>);

    impl fmt::Debug for Direct {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Direct")
        }
    }

    impl Direct {
        fn each<A, T>(
            &self,
            asked: Vec<A>,
            mut does: impl FnMut(&mut Model, A) -> Result<T, RemoteError>,
        ) -> BoxFuture<'_, Each<T>>
        where
            T: Send + 'static,
        {
            let mut model = self.0.lock().unwrap();
            let done: Each<T> = asked.into_iter().map(|one| does(&mut model, one)).collect();
            Box::pin(std::future::ready(done))
        }
    }

    impl SecondLevel for Direct {
        fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Fetched>> {
            self.each(keys, |model, key| Ok(model.get(&key, TokioClock.now())))
        }

        fn lease(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Leased>> {
            self.each(keys, |model, key| Ok(model.lease(&key, TokioClock.now())))
        }

        fn fill(&self, fills: Vec<Fill>) -> BoxFuture<'_, Each<Filled>> {
            self.each(fills, |model, fill| model.fill(fill, TokioClock.now()))
        }

        fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Each<Applied>> {
            self.each(changes, |model, change| Ok(model.apply(change, TokioClock.now())))
        }

        fn tags(&self, tags: Vec<Key>) -> BoxFuture<'_, Each<u64>> {
            self.each(tags, |model, tag| Ok(model.tag(&tag)))
        }

        fn bump(&self, tag: Key) -> BoxFuture<'_, Result<Logged, RemoteError>> {
            let logged = self.0.lock().unwrap().bump(&tag);
            Box::pin(std::future::ready(Ok(logged)))
        }
    }

    impl Backplane for Direct {
        fn positions(&self) -> BoxFuture<'_, Vec<Option<Position>>> {
            Box::pin(std::future::ready(self.0.lock().unwrap().positions()))
        }

        fn replay(
            &self,
            partition: PartitionId,
            after: Position,
        ) -> BoxFuture<'_, Result<Replay, RemoteError>> {
            Box::pin(std::future::ready(Ok(self
                .0
                .lock()
                .unwrap()
                .replay(partition, after))))
        }

        fn listen(&self, _: mpsc::Sender<Logged>) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    fn level(partitions: u16) -> Level {
        let direct = Arc::new(Direct(Mutex::new(Model::new(partitions, 1))));
        Level {
            tier: Arc::<Direct>::clone(&direct),
            backplane: direct,
            partitions,
        }
    }

    #[tokio::test]
    async fn the_model_keeps_the_contract() {
        level(16).keeps_the_contract("c").await;
    }
}
