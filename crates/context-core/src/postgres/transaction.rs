//! Writes that take several statements: one transaction, repeated when Postgres asks for it.

use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::link::{Endpoint, Fault, Session};
use super::replicas::Replicas;
use crate::error::{Error, Result};

/// How often a transaction is tried that others keep from committing (a deadlock, a serialization failure).
const TRIES: u32 = 5;

/// What a step of a transaction answers.
pub(super) type Outcome<T> = Result<T, Failure>;

/// Why a transaction did not commit.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is refused, whoever asks how often.
    Refused(Error),
    /// Postgres or the way to it failed.
    Fault(Fault),
}

impl Failure {
    /// What went wrong on the way or in the server; a refusal is an answer.
    pub(super) const fn fault<T>(outcome: &Outcome<T>) -> Option<&Fault> {
        match outcome {
            Err(Self::Fault(fault)) => Some(fault),
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Fault(fault) => fault.into(),
        }
    }
}

/// Says that what a job borrows besides its session lives longer than that.
pub(super) type Outlives<'s, 'a> = PhantomData<&'s &'a ()>;

/// Runs `job` in a transaction on the primary and commits it.
///
/// # Cancellation
/// Dropping the future before the commit was sent rolls back; after that the outcome is unknown to the caller.
pub(super) async fn transaction<'a, T>(
    servers: &Arc<Replicas>,
    job: impl for<'s> Fn(&'s Session, Outlives<'s, 'a>) -> BoxFuture<'s, Outcome<T>> + Send + Sync,
) -> Result<T> {
    let job = &job;
    repeated(servers, |primary| async move { on(&primary, job).await }).await
}

/// Runs `job`, which is one statement and so a transaction of its own, on the primary: one round trip.
///
/// # Cancellation
/// Dropping the future after the statement was sent leaves its outcome unknown to the caller.
pub(super) async fn statement<T, Running>(
    servers: &Arc<Replicas>,
    job: impl Fn(Session) -> Running + Send + Sync,
) -> Result<T>
where
    Running: Future<Output = Outcome<T>> + Send,
{
    let job = &job;
    repeated(
        servers,
        |primary| async move { job(primary.session().await?).await },
    )
    .await
}

/// Tries on the primary, again if others stood in the way.
async fn repeated<T, Trying>(
    servers: &Arc<Replicas>,
    attempt: impl Fn(Arc<Endpoint>) -> Trying + Send + Sync,
) -> Result<T>
where
    Trying: Future<Output = Outcome<T>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        let member = servers.primary_member();
        let primary = &member.endpoint;
        let entered = member.enter().await?;
        let outcome = member.while_it_answers(attempt(primary.clone())).await;
        entered.end_by(Failure::fault(&outcome));
        match outcome {
            Ok(value) => return Ok(value),
            Err(Failure::Fault(fault)) => {
                servers.notice(primary, &fault);
                if !fault.is_transient_conflict() || tries >= TRIES {
                    return Err(fault.into());
                }
                tracing::debug!(%fault, tries, "a transaction stood in another one's way and is tried again");
            }
            Err(refused @ Failure::Refused(_)) => return Err(refused.into()),
        }
    }
}

async fn on<'a, T>(
    primary: &Arc<Endpoint>,
    job: &(impl for<'s> Fn(&'s Session, Outlives<'s, 'a>) -> BoxFuture<'s, Outcome<T>> + Send + Sync),
) -> Outcome<T> {
    let mut session = primary.session().await?;
    session.begin().await?;
    match job(&session, PhantomData).await {
        Ok(value) => {
            session.commit().await?;
            Ok(value)
        }
        Err(failure) => {
            // Its own error says more than that of the rollback, and an aborted session is thrown away anyway.
            drop(session.rollback().await);
            Err(failure)
        }
    }
}
