//! Appends in groups (DESIGN: one statement over arrays, one result per append). Their cost does not depend on the
//! length of the context.
//!
//! - **P3** Each append is answered once, with its own outcome: one that is refused does not touch its neighbours.
//! - **P4** A group that failed as a whole and wrote nothing for certain is done again, each append by itself.
//! - **P5** A group whose outcome is unknown, because the connection broke, is asked again only for appends that can
//!   be repeated; the others learn that it is unknown. No append is ever done twice.
//! - **P6** A caller that goes away changes nothing of this.

mod careful;
pub(super) mod columns;
mod fresh;
mod pace;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use self::pace::Pace;
use super::group::{Gathering, Job};
use super::link::{Endpoint, Fault, Session};
use super::replicas::Replicas;
use super::routed::{Position, position};
use super::transaction::{Failure, Outcome};
use crate::Timestamp;
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::session::{Stage, timed};
use crate::store::{Append, Appended};

/// Largest group, in bytes of item bodies; a single append may be larger.
const GROUP_BYTES_MAX: u64 = 8 << 20;

/// An append, and what covers it.
pub(super) type Committed = (Appended, Position);

/// How appends are gathered.
#[derive(Clone, Debug)]
pub(super) struct GroupSettings {
    /// Groups that may be on their way at the same time; the appends of one context are always in the same lane.
    pub(super) lanes: usize,
    /// Most appends that wait.
    pub(super) queue: usize,
    /// Most bytes of item bodies that wait.
    pub(super) queue_bytes: u64,
    /// Most appends in one group.
    pub(super) group: usize,
    /// Whether appends are answered with a position in the log.
    pub(super) positions: bool,
    /// Value of `synchronous_commit` for a group.
    pub(super) synchronous_commit: &'static str,
}

/// Takes appends and commits them in groups.
#[derive(Debug)]
pub(super) struct Appender {
    /// A message is what came together; it may be one append.
    lanes: Vec<mpsc::UnboundedSender<Vec<Job>>>,
    hasher: RandomState,
    waiting: Arc<Waiting>,
    settings: GroupSettings,
}

/// What waits for its commit, in all lanes together. The lanes' channels have no bound of their own.
#[derive(Debug, Default)]
struct Waiting {
    jobs: AtomicU64,
    bytes: AtomicU64,
}

impl Appender {
    /// Starts the lanes on the current runtime; they end when the appender is dropped and what waits is done.
    pub(super) fn start(
        servers: &Arc<Replicas>,
        settings: GroupSettings,
        committed: &Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Self {
        let waiting = Arc::new(Waiting::default());
        let pace = Arc::new(Pace::default());
        let lanes = (0..settings.lanes.max(1))
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                let lane = Lane {
                    servers: servers.clone(),
                    settings: settings.clone(),
                    waiting: waiting.clone(),
                    pace: pace.clone(),
                    committed: committed.clone(),
                };
                tokio::spawn(lane.run(receiver));
                sender
            })
            .collect();
        Self {
            lanes,
            hasher: RandomState::new(),
            waiting,
            settings,
        }
    }

    /// Appends in the next group of its lane.
    pub(super) async fn append(&self, key: &ContextKey, append: Append, now: Timestamp) -> Result<Committed> {
        let (job, outcome) = self.admit(key.clone(), append, now)?;
        self.enqueue(self.lane_of(key), vec![job]);
        answer(outcome).await
    }

    /// Appends in the next groups of their lanes. A lane gets its share as one message, so that one which is idle
    /// commits it as one group.
    pub(super) async fn append_many(
        &self,
        tenant: &TenantId,
        appends: Vec<(ContextId, Append)>,
        now: Timestamp,
    ) -> Vec<Result<Committed>> {
        let mut shares: BTreeMap<usize, Vec<Job>> = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(appends.len());
        for (id, append) in appends {
            let key = ContextKey::from((tenant, &id));
            let lane = self.lane_of(&key);
            let admitted = self.admit(key, append, now);
            outcomes.push(admitted.map(|(job, outcome)| {
                shares.entry(lane).or_default().push(job);
                outcome
            }));
        }
        for (lane, share) in shares {
            self.enqueue(lane, share);
        }
        let answers = outcomes
            .into_iter()
            .map(|outcome| async { answer(outcome?).await });
        join_all(answers).await
    }

    /// Makes a job of an append, if there is room for it to wait; the receiver learns the outcome.
    fn admit(
        &self,
        key: ContextKey,
        append: Append,
        now: Timestamp,
    ) -> Result<(Job, oneshot::Receiver<Result<Committed>>)> {
        let bytes = append.items.iter().map(|item| item.body.len() as u64).sum();
        let (reply, outcome) = oneshot::channel();
        // Both are counted before either decides: what is refused is taken off both again.
        let jobs_before = self.waiting.jobs.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let full = jobs_before >= self.settings.queue as u64 || bytes_before >= self.settings.queue_bytes;
        let job = Job {
            key,
            append,
            now,
            bytes,
            reply,
        };
        if full {
            self.waiting.done(&job);
            return Err(Error::Overloaded {
                what: "the queue of appends to Postgres",
                retry_after: super::RETRY_AFTER,
            });
        }
        Ok((job, outcome))
    }

    /// Where the appends of a context go, always the same.
    fn lane_of(&self, key: &ContextKey) -> usize {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key.tenant.as_str().as_bytes());
        hasher.write(key.id.as_str().as_bytes());
        usize::try_from(hasher.finish() % self.lanes.len() as u64).unwrap_or(0)
    }

    /// Puts jobs into their lane's queue.
    fn enqueue(&self, lane: usize, jobs: Vec<Job>) {
        let left = match self.lanes.get(lane) {
            Some(lane) => lane.send(jobs).err().map(|refused| refused.0),
            None => Some(jobs),
        };
        for job in left.into_iter().flatten() {
            self.waiting.done(&job);
            job.answer(Err(Error::internal("a lane of appends has ended")));
        }
    }

    /// Appends that wait for their commit.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.jobs.load(Ordering::Relaxed)
    }
}

async fn answer(outcome: oneshot::Receiver<Result<Committed>>) -> Result<Committed> {
    timed(Stage::Commit, outcome)
        .await
        .map_err(|_| Error::internal("a lane of appends ended before its work; the log has the place"))?
}

impl Waiting {
    fn done(&self, job: &Job) {
        self.jobs.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(job.bytes, Ordering::Relaxed);
    }
}

/// One group at a time.
struct Lane {
    servers: Arc<Replicas>,
    settings: GroupSettings,
    waiting: Arc<Waiting>,
    pace: Arc<Pace>,
    committed: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Lane {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Vec<Job>>) {
        let mut waiting: VecDeque<Job> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match queue.recv().await {
                    Some(jobs) => waiting.extend(jobs),
                    None => return,
                }
            }
            self.pace
                .gather(&mut queue, &mut waiting, &self.waiting.jobs)
                .await;
            let group = Gathering::take(&mut waiting, self.settings.group, GROUP_BYTES_MAX);
            let _under_way = self.pace.begin();
            self.commit(group).await;
        }
    }

    /// Commits a group and answers every append of it.
    async fn commit(&self, group: Vec<Job>) {
        let left = match self.try_fresh(&group).await {
            Ok((outcomes, position)) => {
                let mut left = Vec::new();
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    match outcome {
                        Some(appended) => self.answer(job, Ok((appended, position))),
                        None => left.push(job),
                    }
                }
                left
            }
            Err(Failure::Refused(error)) => return self.answer_all(group, &error),
            // Nothing was written. Usually a key was used before.
            Err(Failure::Fault(fault)) if fault.is_not_applied() => {
                tracing::debug!(%fault, appends = group.len(), "a group of appends is done with care");
                group
            }
            Err(Failure::Fault(fault)) => self.unknown(group, fault),
        };
        if !left.is_empty() {
            self.commit_carefully(left).await;
        }
    }

    /// The usual way. A group that gets no connection is refused: more care would not mend that.
    async fn try_fresh(&self, group: &[Job]) -> Outcome<(Vec<Option<Appended>>, Position)> {
        let member = self.servers.primary_member();
        let primary = &member.endpoint;
        let entered = member.enter().await.map_err(Error::from)?;
        let session = match member.while_it_answers(primary.session()).await {
            Ok(session) => session,
            Err(fault) => {
                entered.end_by(Some(&fault));
                self.servers.notice(primary, &fault);
                return Err(Failure::Refused(fault.into()));
            }
        };
        let commit = fresh::commit(&session, group, self.settings.synchronous_commit);
        let outcomes = member.while_it_answers(commit).await;
        entered.end_by(Failure::fault(&outcomes));
        let outcomes = outcomes.inspect_err(|failure| match failure {
            Failure::Fault(fault) if !fault.is_not_applied() => self.servers.notice(primary, fault),
            _ => {}
        })?;
        // Not held while the position is asked for: the next group may have it.
        drop(session);
        Ok((outcomes, self.position(primary).await))
    }

    /// What may be asked again of a group whose outcome is unknown; the others are answered.
    fn unknown(&self, group: Vec<Job>, fault: Fault) -> Vec<Job> {
        tracing::warn!(%fault, appends = group.len(), "whether a group of appends was committed is unknown");
        let error = unknown(fault);
        let (again, lost): (Vec<Job>, Vec<Job>) = group.into_iter().partition(Job::is_repeatable);
        self.answer_all(lost, &error);
        again
    }

    /// With every key looked up first: together, and if that fails each by itself.
    async fn commit_carefully(&self, group: Vec<Job>) {
        let jobs = match self.try_carefully(&group).await {
            Ok(outcomes) => return self.answer_each(group, outcomes),
            Err(Failure::Refused(error)) => return self.answer_all(group, &error),
            Err(Failure::Fault(fault)) if !fault.is_not_applied() => self.unknown(group, fault),
            Err(Failure::Fault(fault)) if group.len() > 1 || fault.is_transient_conflict() => {
                tracing::debug!(%fault, appends = group.len(), "a group of appends is done singly");
                group
            }
            Err(Failure::Fault(fault)) => return self.answer_all(group, &fault.into()),
        };
        for job in jobs {
            let outcome = match self.try_carefully(std::slice::from_ref(&job)).await {
                Ok(mut outcomes) => outcomes
                    .pop()
                    .unwrap_or_else(|| Err(Error::internal("an append has no outcome"))),
                Err(Failure::Fault(fault)) if !fault.is_not_applied() => Err(unknown(fault)),
                Err(failure) => Err(failure.into()),
            };
            self.answer(job, outcome);
        }
    }

    async fn try_carefully(&self, jobs: &[Job]) -> Outcome<Vec<Result<Committed>>> {
        let member = self.servers.primary_member();
        let primary = &member.endpoint;
        let entered = member.enter().await?;
        let committed = async {
            let session: Session = primary.session().await?;
            careful::commit(&session, jobs, self.settings.synchronous_commit).await
        };
        let outcomes = member.while_it_answers(committed).await;
        entered.end_by(Failure::fault(&outcomes));
        let outcomes = outcomes.inspect_err(|failure| {
            if let Failure::Fault(fault) = failure {
                self.servers.notice(primary, fault);
            }
        })?;
        let position = self.position(primary).await;
        let placed = outcomes.into_iter();
        Ok(placed.map(|outcome| Ok((outcome?, position))).collect())
    }

    /// A position that covers the group: taken after its commit, because inside of its statement it would be short of
    /// the commit's own record. Only for those who read from replicas.
    async fn position(&self, primary: &Arc<Endpoint>) -> Position {
        if self.settings.positions {
            position(&self.servers, primary).await
        } else {
            Position::NotNeeded
        }
    }

    fn answer_each(&self, group: Vec<Job>, outcomes: Vec<Result<Committed>>) {
        for (job, outcome) in group.into_iter().zip(outcomes) {
            self.answer(job, outcome);
        }
    }

    fn answer_all(&self, group: Vec<Job>, error: &Error) {
        for job in group {
            self.answer(job, Err(error.clone()));
        }
    }

    fn answer(&self, job: Job, outcome: Result<Committed>) {
        self.waiting.done(&job);
        if let Ok((appended, _)) = &outcome
            && !appended.replayed
        {
            (self.committed)(job.append.items.len() as u64);
        }
        job.answer(outcome);
    }
}

fn unknown(fault: Fault) -> Error {
    match Error::from(fault) {
        Error::Unavailable { detail, retry_after } => Error::Unavailable {
            detail: format!(
                "{detail}; whether the items were stored is unknown: read the context, or repeat an append that has \
                 an idempotency key"
            ),
            retry_after,
        },
        error => error,
    }
}
