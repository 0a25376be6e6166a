//! What is outside the nodes: the source, the second level, and the wires between.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::check::{Asked, Ledger};
use super::{Counts, Plant};
use crate::answer::Answer;
use crate::clock::{Clock, Nanos, TokioClock};
use crate::entry::Body;
use crate::error::RemoteError;
use crate::loader::{self, Loaded, Loader, Source, Wanted};
use crate::model::Model;
use crate::partition::PartitionId;
use crate::random::Random;
use crate::remote::{
    Applied, Backplane, BoxFuture, Change, Each, Fetched, Fill, Filled, Leased, Logged, Notice, Position,
    Replay, SecondLevel,
};
use crate::version::{Key, Mark, Version};

pub(super) const PARTITIONS: u16 = 4;

/// A commit at the source.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) key: Key,
    pub(super) version: Version,
    pub(super) mark: Mark,
    pub(super) deleted: bool,
    pub(super) at: Nanos,
}

/// A node's wires.
#[derive(Debug, Default)]
pub(super) struct Wires {
    pub(super) cut: bool,
    pub(super) listeners: Vec<mpsc::Sender<Logged>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) model: Model,
    /// Earlier states, which a failover may go back to.
    pub(super) replica: Vec<(Nanos, Model)>,
    pub(super) wires: Vec<Wires>,
    pub(super) commits: Vec<Commit>,
    pub(super) ledger: Ledger,
    pub(super) counts: Counts,
    violation: Option<String>,
    pub(super) source_fails: bool,
    pub(super) replica_lag: Duration,
    pub(super) loss: f64,
    /// The source keeps no versions of what was deleted.
    forgets: bool,
    /// The wires work now.
    pub(super) calm: bool,
}

impl State {
    /// An absence of a source that forgets its deletes counts as that of the last delete.
    fn counted(&self, key: &Key, version: Version, absent: bool) -> Version {
        if !absent || !self.forgets {
            return version;
        }
        let deletes = self
            .commits
            .iter()
            .filter(|commit| commit.deleted && commit.key == *key);
        let last = deletes.map(|commit| commit.version).max().unwrap_or_default();
        version.max(last)
    }
}

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    pub(super) random: Random,
    pub(super) seed: u64,
    pub(super) plant: Plant,
}

pub(super) fn now() -> Nanos {
    TokioClock.now()
}

impl World {
    pub(super) fn new(seed: u64, plant: Plant) -> Self {
        let random = Random::seeded(crate::random::mix(seed ^ 0xC0FF_EE00));
        let mut model = Model::new(PARTITIONS, seed);
        model.faults = plant.faults;
        model.log_length = [4, 64][usize::from(random.unit() < 0.7)];
        let loss = [0.0, 0.05, 0.3][pick(&random, 3)];
        Self {
            state: Mutex::new(State {
                model,
                replica: Vec::new(),
                wires: Vec::new(),
                commits: Vec::new(),
                ledger: Ledger::default(),
                counts: Counts::default(),
                violation: None,
                source_fails: false,
                replica_lag: Duration::from_millis(random.bits() % 400),
                loss,
                forgets: seed.is_multiple_of(2),
                calm: false,
            }),
            random,
            seed,
            plant,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn verdict(&self) -> Result<Counts, String> {
        let mut state = self.state();
        state.violation.take().map_or(Ok(state.counts), Err)
    }

    pub(super) fn failed(&self) -> bool {
        self.state().violation.is_some()
    }

    pub(super) fn violated(&self, what: String) {
        self.state().violation.get_or_insert(what);
    }

    pub(super) fn check(&self, asked: &Asked, answer: &Answer) {
        let mut state = self.state();
        state.counts.reads += 1;
        match answer.origin() {
            crate::Origin::L1 => state.counts.hits += 1,
            crate::Origin::L2 => state.counts.from_l2 += 1,
            _ => {}
        }
        let absent = answer.value().is_none();
        let version = state.counted(&asked.key, answer.version(), absent);
        let verdict = state.ledger.check(asked, answer, version, made(answer));
        drop(state);
        if let Err(violation) = verdict {
            self.violated(violation);
        }
    }

    pub(super) fn chance(&self, of: f64) -> bool {
        self.random.unit() < of
    }

    pub(super) fn up_to(&self, ms: u64) -> Duration {
        Duration::from_millis(self.random.bits() % (ms + 1))
    }

    /// Changes a key at the source.
    pub(super) fn commit(&self, key: &Key, deleted: bool) -> Commit {
        let mut state = self.state();
        let version = latest(&state.commits, key).map_or(1, |commit| commit.version.get() + 1);
        let commit = Commit {
            key: key.clone(),
            version: Version::new(version),
            mark: Mark::new(state.commits.len() as u64 + 1),
            deleted,
            at: now(),
        };
        state.commits.push(commit.clone());
        state.counts.changes += 1;
        commit
    }

    pub(super) fn latest(&self, key: &Key) -> Option<Commit> {
        latest(&self.state().commits, key).cloned()
    }

    /// Reads at once, answers later. A replica answers where the engine allows it.
    pub(super) fn loader(self: &Arc<Self>) -> Arc<dyn Loader> {
        let world = Arc::clone(self);
        loader::many(move |wanted: Vec<Wanted>| {
            let world = Arc::clone(&world);
            async move {
                tokio::time::sleep(world.up_to(5)).await;
                let rows: Vec<Loaded> = wanted.iter().map(|one| world.row(one)).collect();
                let slow = if world.chance(0.1) { 500 } else { 10 };
                tokio::time::sleep(world.up_to(slow)).await;
                if world.state().source_fails {
                    return Err("the source is down");
                }
                Ok(rows)
            }
        })
    }

    fn row(&self, wanted: &Wanted) -> Loaded {
        let replica = self.chance(0.7);
        let state = self.state();
        let behind = Nanos::from_nanos(
            now()
                .as_nanos()
                .saturating_sub(u64::try_from(state.replica_lag.as_nanos()).unwrap()),
        );
        let there: Vec<Commit> = state
            .commits
            .iter()
            .filter(|commit| commit.at <= behind)
            .cloned()
            .collect();
        let has = there.last().map_or(Mark::ZERO, |commit| commit.mark);
        let allowed = matches!(wanted.source, Source::AtLeast(mark) if has >= mark);
        let replica = replica && allowed;
        let commit = latest(if replica { &there } else { &state.commits }, &wanted.key);
        let loaded = match commit {
            None => Loaded::absent(Version::ZERO),
            Some(commit) if commit.deleted && state.forgets => Loaded::absent(Version::ZERO),
            Some(commit) if commit.deleted => Loaded::absent(commit.version),
            Some(commit) => Loaded::value(commit.version, value(commit, now())),
        };
        if replica { loaded.from_replica() } else { loaded }
    }

    /// What is published goes to each listener on a way of its own.
    fn publish(self: &Arc<Self>, logged: &Logged) {
        let (listeners, loss) = {
            let state = self.state();
            let open = state.wires.iter().filter(|wires| !wires.cut);
            let all: Vec<_> = open.flat_map(|wires| wires.listeners.iter().cloned()).collect();
            (all, state.loss)
        };
        for listener in listeners {
            let copies = if self.chance(loss) {
                0
            } else {
                1 + usize::from(self.chance(0.05))
            };
            for _ in 0..copies {
                let slow = if self.chance(0.1) { 600 } else { 15 };
                let (delay, logged, listener) = (self.up_to(slow), logged.clone(), listener.clone());
                drop(tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(listener.try_send(logged));
                }));
            }
        }
    }

    /// Books and publishes what was logged.
    fn logged(self: &Arc<Self>, logged: &Logged) {
        let mut state = self.state();
        match &logged.notice {
            Notice::Key { key, version, .. } => state.ledger.acknowledge(key, *version, now()),
            Notice::Tag { tag, .. } => state.ledger.raise(tag, now()),
        }
        drop(state);
        self.publish(logged);
    }

    /// Sends a question over a node's wire: it may be lost, and so may the answer, after it was carried out.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        node: usize,
        does: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Result<T, RemoteError> {
        let (answer, answered) = oneshot::channel();
        let world = Arc::clone(self);
        let calm = self.state().calm;
        let slow = if self.chance(0.03) && !calm { 400 } else { 4 };
        let (there, back) = (self.up_to(slow), self.up_to(slow));
        let (lost, unanswered) = (self.chance(0.01) && !calm, self.chance(0.01) && !calm);
        if lost || self.state().wires[node].cut {
            if self.chance(0.5) {
                return Err(RemoteError::Unavailable("cut off".to_owned()));
            }
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
        drop(tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let done = does(&world);
            tokio::time::sleep(back).await;
            if !unanswered && !world.state().wires[node].cut {
                drop(answer.send(done));
            } else {
                tokio::time::sleep(Duration::from_hours(1)).await;
            }
        }));
        answered.await.map_err(|_| RemoteError::TimedOut)
    }
}

/// A value tells its key, its version and when it was read at the source.
fn value(commit: &Commit, at: Nanos) -> String {
    format!("{}={} @{}", commit.key, commit.version, at.as_nanos())
}

pub(super) fn value_now(commit: &Commit) -> String {
    value(commit, now())
}

fn made(answer: &Answer) -> Option<Nanos> {
    let text = std::str::from_utf8(answer.value()?).ok()?;
    let (_, at) = text.split_once('@')?;
    Some(Nanos::from_nanos(at.parse().ok()?))
}

fn latest<'a>(commits: &'a [Commit], key: &Key) -> Option<&'a Commit> {
    commits.iter().rev().find(|commit| commit.key == *key)
}

pub(super) fn pick(random: &Random, of: usize) -> usize {
    usize::try_from(random.bits() % (of as u64)).unwrap()
}

/// The second level as one node reaches it.
pub(super) struct Port {
    pub(super) world: Arc<World>,
    pub(super) node: usize,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({})", self.node)
    }
}

impl Port {
    /// Asks for each thing in one call.
    fn each<A: Send + 'static, T: Send + 'static>(
        &self,
        asked: Vec<A>,
        mut does: impl FnMut(&Arc<World>, A) -> Result<T, RemoteError> + Send + 'static,
    ) -> BoxFuture<'_, Each<T>> {
        Box::pin(async move {
            let count = asked.len();
            let done = self
                .world
                .call(self.node, move |world| {
                    asked.into_iter().map(|one| does(world, one)).collect::<Vec<_>>()
                })
                .await;
            done.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
        })
    }
}

impl SecondLevel for Port {
    fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Fetched>> {
        self.each(keys, |world, key| Ok(world.state().model.get(&key, now())))
    }

    fn lease(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Leased>> {
        self.each(keys, |world, key| Ok(world.state().model.lease(&key, now())))
    }

    fn fill(&self, fills: Vec<Fill>) -> BoxFuture<'_, Each<Filled>> {
        self.each(fills, |world, fill| {
            let (key, absent) = (fill.key.clone(), fill.body == Body::Absent);
            let mut state = world.state();
            let filled = state.model.fill(fill, now())?;
            let there = state.model.version(&key).unwrap_or_default();
            let version = state.counted(&key, there, absent);
            let reached = state.ledger.reached(&key, now());
            drop(state);
            if filled == Filled::Stored && version < reached {
                world.violated(format!("G6: {key} was filled with {version:?} after {reached:?}"));
            }
            Ok(filled)
        })
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Each<Applied>> {
        self.each(changes, |world, change| {
            let applied = world.state().model.apply(change, now());
            if let Applied::Done {
                logged: Some(logged), ..
            } = &applied
            {
                world.logged(logged);
            }
            Ok(applied)
        })
    }

    fn tags(&self, tags: Vec<Key>) -> BoxFuture<'_, Each<u64>> {
        self.each(tags, |world, tag| Ok(world.state().model.tag(&tag)))
    }

    fn bump(&self, tag: Key) -> BoxFuture<'_, Result<Logged, RemoteError>> {
        Box::pin(async move {
            let mut done = self
                .each(vec![tag], |world, tag| {
                    let logged = world.state().model.bump(&tag);
                    world.logged(&logged);
                    Ok(logged)
                })
                .await;
            done.pop().unwrap_or(Err(RemoteError::TimedOut))
        })
    }
}

impl Backplane for Port {
    fn positions(&self) -> BoxFuture<'_, Vec<Option<Position>>> {
        Box::pin(async move {
            let told = self
                .world
                .call(self.node, |world| world.state().model.positions())
                .await;
            told.unwrap_or_else(|_| vec![None; usize::from(PARTITIONS)])
        })
    }

    fn replay(&self, partition: PartitionId, after: Position) -> BoxFuture<'_, Result<Replay, RemoteError>> {
        Box::pin(async move {
            let replay = self.world.call(self.node, move |world| {
                world.state().model.replay(partition, after)
            });
            tokio::time::timeout(Duration::from_millis(250), replay)
                .await
                .unwrap_or(Err(RemoteError::TimedOut))
        })
    }

    fn listen(&self, sink: mpsc::Sender<Logged>) -> BoxFuture<'static, ()> {
        self.world.state().wires[self.node].listeners.push(sink);
        Box::pin(std::future::pending())
    }
}

/// What each key was last seen as by a client, whose token carries it.
pub(super) type Session = BTreeMap<Key, Version>;
