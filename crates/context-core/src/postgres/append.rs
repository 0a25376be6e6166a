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
mod lanes;

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::oneshot;

pub(super) use self::lanes::Room;
use self::lanes::{Commit, Lanes};
use super::group::{GroupMax, Job};
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
    /// Groups that may be on their way at the same time.
    pub(super) lanes: usize,
    /// Most appends that wait.
    pub(super) queue: u64,
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
    lanes: Arc<Lanes<Committer>>,
}

impl Appender {
    /// Commits on the runtime that appends come from. What waits is done even if the appender is dropped.
    pub(super) fn new(
        servers: &Arc<Replicas>,
        settings: GroupSettings,
        committed: &Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Self {
        let at_once = settings.lanes;
        let most = GroupMax {
            jobs: settings.group,
            bytes: GROUP_BYTES_MAX,
        };
        let committer = Committer {
            servers: servers.clone(),
            settings,
            committed: committed.clone(),
        };
        Self {
            lanes: Lanes::new(committer, at_once, most),
        }
    }

    /// Appends in one of the next groups.
    pub(super) async fn append(&self, key: &ContextKey, append: Append, now: Timestamp) -> Result<Committed> {
        let (job, outcome) = self.admit(key.clone(), append, now)?;
        self.lanes.enqueue([job]);
        answer(outcome).await
    }

    /// Appends in the next groups: in one, if nobody else is there.
    pub(super) async fn append_many(
        &self,
        tenant: &TenantId,
        appends: Vec<(ContextId, Append)>,
        now: Timestamp,
    ) -> Vec<Result<Committed>> {
        let mut jobs = Vec::with_capacity(appends.len());
        let mut outcomes = Vec::with_capacity(appends.len());
        for (id, append) in appends {
            let admitted = self.admit(ContextKey::from((tenant, &id)), append, now);
            outcomes.push(admitted.map(|(job, outcome)| {
                jobs.push(job);
                outcome
            }));
        }
        self.lanes.enqueue(jobs);
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
        let settings = &self.lanes.committer.settings;
        let waiting = &self.lanes.unanswered;
        let Some(room) = waiting.admit(bytes, settings.queue, settings.queue_bytes) else {
            return Err(Error::Overloaded {
                what: "the queue of appends to Postgres",
                retry_after: super::RETRY_AFTER,
            });
        };
        let (reply, outcome) = oneshot::channel();
        let job = Job {
            key,
            append,
            now,
            room,
            reply,
        };
        Ok((job, outcome))
    }

    /// Appends that wait for their commit.
    pub(super) fn waiting(&self) -> u64 {
        self.lanes.unanswered.jobs()
    }
}

async fn answer(outcome: oneshot::Receiver<Result<Committed>>) -> Result<Committed> {
    timed(Stage::Commit, outcome)
        .await
        .map_err(|_| Error::internal("a group of appends ended before its work; the log has the place"))?
}

/// Commits groups on the primary.
struct Committer {
    servers: Arc<Replicas>,
    settings: GroupSettings,
    committed: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Commit for Committer {
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
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Committer {
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
