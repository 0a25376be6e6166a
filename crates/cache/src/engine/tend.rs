//! What goes on in the background: the coarse clock, the backplane, and bringing deferred changes home.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Engine;
use crate::coherence::Step;
use crate::entry::Body;
use crate::observe::{Event, RemoteOp};
use crate::partition::PartitionId;
use crate::remote::{Backplane, Change, Logged, Notice, Position};
use crate::sync::lock;

/// Messages that may wait to be applied; more are dropped, which is a gap like any other.
const INBOX: usize = 4096;
/// Deferred changes that are tried together.
const BATCH: usize = 128;

/// The tasks of a cache. Each ends when the engine is gone.
pub(crate) fn tend(
    engine: &Arc<Engine>,
    replays: mpsc::Receiver<(PartitionId, Position)>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = vec![tokio::spawn(tick(Arc::downgrade(engine), engine.bound.tick))];
    if let Some(backplane) = &engine.backplane {
        let (sink, inbox) = mpsc::channel(INBOX);
        tasks.push(tokio::spawn(backplane.listen(sink)));
        tasks.push(tokio::spawn(listen(Arc::downgrade(engine), inbox)));
        tasks.push(tokio::spawn(poll(Arc::downgrade(engine), Arc::clone(backplane))));
        let follow = replay(Arc::downgrade(engine), Arc::clone(backplane), replays);
        tasks.push(tokio::spawn(follow));
    }
    if engine.remote.is_some() {
        tasks.push(tokio::spawn(recover(Arc::downgrade(engine))));
    }
    tasks
}

/// Moves the coarse clock.
async fn tick(engine: Weak<Engine>, every: Duration) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(engine) = engine.upgrade() else { return };
        engine.now();
    }
}

async fn listen(engine: Weak<Engine>, mut inbox: mpsc::Receiver<Logged>) {
    while let Some(logged) = inbox.recv().await {
        let Some(engine) = engine.upgrade() else { return };
        engine.heard(logged);
    }
    // The backplane gave up listening; polls and replays go on.
    pending::<()>().await;
}

/// Polls the logs' positions (C2).
async fn poll(engine: Weak<Engine>, backplane: Arc<dyn Backplane>) {
    let Some(every) = engine.upgrade().map(|engine| engine.bound.poll()) else {
        return;
    };
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Polls overlap, so that one that is lost costs its own answer and not the next one's. Aborted with this task.
    let mut polls = JoinSet::new();
    loop {
        interval.tick().await;
        while polls.try_join_next().is_some() {}
        let Some(engine) = engine.upgrade() else { return };
        polls.spawn(poll_once(engine, Arc::clone(&backplane)));
    }
}

async fn poll_once(engine: Arc<Engine>, backplane: Arc<dyn Backplane>) {
    let before = lock(&engine.coherence).snapshot();
    let sent = engine.now();
    // A later answer would validate nothing.
    let limit = engine.bound.promised;
    let Ok(positions) = tokio::time::timeout(limit, backplane.positions()).await else {
        engine.event(&Event::RemoteFailed(RemoteOp::Positions));
        engine.standing.note(false, engine.now());
        return;
    };
    engine
        .standing
        .note(positions.iter().any(Option::is_some), engine.now());
    let mut steps = Vec::new();
    lock(&engine.coherence).polled(sent, &before, &positions, &mut steps);
    engine.take(steps);
}

/// Replays what was missed.
async fn replay(
    engine: Weak<Engine>,
    backplane: Arc<dyn Backplane>,
    mut asked: mpsc::Receiver<(PartitionId, Position)>,
) {
    while let Some((partition, after)) = asked.recv().await {
        let replay = backplane.replay(partition, after).await;
        let Some(engine) = engine.upgrade() else { return };
        let Ok(replay) = replay else {
            // The next poll asks again.
            engine.event(&Event::RemoteFailed(RemoteOp::Replay));
            continue;
        };
        let mut steps = Vec::new();
        lock(&engine.coherence).replayed(partition, after, replay, &mut steps);
        engine.take(steps);
    }
}

/// Brings deferred changes to the second level.
async fn recover(engine: Weak<Engine>) {
    let Some(every) = engine.upgrade().map(|engine| engine.bound.poll()) else {
        return;
    };
    loop {
        tokio::time::sleep(every).await;
        let Some(engine) = engine.upgrade() else { return };
        engine.bring_deferred().await;
    }
}

impl Engine {
    async fn bring_deferred(&self) {
        let (changes, tags) = lock(&self.recovery).some(BATCH);
        let Some(remote) = self.remote.as_ref() else {
            return;
        };
        let mut done = 0;
        if !changes.is_empty() {
            let results = self
                .ask(RemoteOp::Apply, changes.len(), remote.apply(changes.clone()))
                .await;
            let through: Vec<Change> = changes
                .into_iter()
                .zip(results)
                .filter_map(|(change, result)| {
                    let applied = result.ok()?;
                    if let crate::remote::Applied::Done {
                        logged: Some(logged), ..
                    } = applied
                    {
                        self.heard(logged);
                    }
                    Some(change)
                })
                .collect();
            done += through.len();
            lock(&self.recovery).done(&through, &[]);
        }
        for tag in tags {
            let bump = async { vec![remote.bump(tag.clone()).await] };
            let bumped = self.ask(RemoteOp::Tag, 1, Box::pin(bump)).await;
            if let Some(Ok(logged)) = bumped.into_iter().next() {
                self.heard(logged);
                lock(&self.recovery).done(&[], &[tag]);
                done += 1;
            }
        }
        if done > 0 {
            self.event(&Event::Recovered(done));
        }
    }

    /// Takes the steps that the coherence protocol asks for.
    pub(super) fn take(&self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Apply { notice, in_order } => self.notice(notice, in_order),
                Step::Validate { partition, sent } => {
                    let until = sent.after(self.bound.trusted());
                    self.partitions.at(partition).extend(until);
                }
                // A full queue is a lot to do already, and the next poll asks again.
                Step::Replay { partition, after } => drop(self.replays.try_send((partition, after))),
                Step::Drop { partition, suspect } => self.drop_partition(partition, suspect),
                Step::Restore { notices } => self.restore(notices),
                Step::Gap => self.event(&Event::Gap),
            }
        }
    }

    fn notice(&self, notice: Notice, in_order: bool) {
        match notice {
            Notice::Key { key, version, mark } => {
                self.partitions.at(self.partitions.id(&key)).raise_mark(mark);
                self.reached(&key, version, true);
            }
            // Out of order it may belong to a history that is over; doubting the tag costs a question.
            Notice::Tag { tag, .. } if !in_order => self.tags.doubt(&tag),
            Notice::Tag { tag, generation } => self.tags.raise(&tag, generation),
        }
    }

    /// C3.
    fn drop_partition(&self, partition: PartitionId, suspect: bool) {
        let state = self.partitions.at(partition);
        state.bump();
        if suspect {
            state.suspect(self.now().after(self.bound.promised * 10));
            self.event(&Event::Diverged);
        }
        self.tags.forget(partition);
    }

    /// C3: what this node remembers is brought to the second level again.
    fn restore(&self, notices: Vec<Notice>) {
        let mut recovery = lock(&self.recovery);
        let mut kept = true;
        for notice in notices {
            kept &= match notice {
                Notice::Key { key, version, mark } => recovery.defer(&Change {
                    key,
                    version,
                    mark,
                    body: Body::Unknown,
                    tags: Vec::new(),
                }),
                Notice::Tag { tag, .. } => recovery.defer_tag(&tag),
            };
        }
        drop(recovery);
        if !kept {
            self.event(&Event::RecoveryFull);
        }
    }
}
