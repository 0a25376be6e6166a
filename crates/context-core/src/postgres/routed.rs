//! Reads that go where the client's session allows, and note there what they saw.
//!
//! A context's version decides about reads of one context (Q2): it comes with the data, so no other check is needed. For
//! lists and searches a position in the log does. Outside of a session the primary answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::{PgLsn, Type};

use super::link::{Endpoint, Epoch, Lsn, Session as Connection, Statement};
use super::read::Read;
use super::replicas::{Consistency as Freshness, Demand, Floor, Replicas, Served, ServedBy, reached};
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::manager::Origin;
use crate::session::{self, Consistency, Session};
use crate::store::ContextPage;
use crate::{Context, Version};

/// How long the primary gets to show what a standby has shown.
const NOT_SHOWN_YET: Duration = Duration::from_secs(1);
/// Between two looks for it: about a commit's time.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A place in the log that covers something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// There are no replicas that could be behind it.
    NotNeeded,
    /// It could not be learned.
    Unknown,
    /// This one.
    At(Epoch, Lsn),
}

impl Position {
    /// Notes it in the session of the present task.
    pub(super) fn note(self) {
        if let Some(session) = Session::current() {
            match self {
                Self::NotNeeded => {}
                Self::Unknown => session.saw_unplaced(),
                Self::At(epoch, lsn) => session.saw_position(outside(epoch), lsn.0),
            }
        }
    }
}

/// Everything that a server has shown to anybody so far. A standby shows nothing that it has not received.
static POSITION: Statement = Statement {
    name: "position",
    sql: "SELECT CASE WHEN pg_is_in_recovery()
                      THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                      ELSE pg_current_wal_insert_lsn() END",
    types: &[] as &[Type],
};

/// A position that covers what was read from or written to this server before.
pub(super) async fn position(servers: &Replicas, endpoint: &Arc<Endpoint>) -> Position {
    let rows = endpoint.query(&POSITION, &[]).await;
    let lsn = rows
        .ok()
        .and_then(|rows| rows.first()?.try_get::<_, PgLsn>(0).ok());
    match (servers.epoch(), lsn) {
        (Some(epoch), Some(lsn)) => Position::At(epoch, Lsn::from(lsn)),
        _ => Position::Unknown,
    }
}

/// Reads of one store.
#[derive(Debug)]
pub(super) struct Reads {
    pub(super) servers: Arc<Replicas>,
    /// How old an answer may be that no floor guards (G5).
    pub(super) bound: Duration,
    /// Whether there are replicas at all.
    pub(super) replicated: bool,
}

impl Reads {
    /// Reads one context.
    ///
    /// # Errors
    /// `SessionLost` if even the primary is behind what the session has seen.
    pub(super) async fn context<T, Op, Reading>(
        &self,
        key: &ContextKey,
        op: Op,
        version: impl Fn(&T) -> Version + Send + Sync,
    ) -> Result<T>
    where
        Op: Fn(Arc<Endpoint>) -> Reading + Send + Sync,
        Reading: Future<Output = Read<T>> + Send,
        T: Send,
    {
        let session = Session::current();
        let (freshness, floor) = match &session {
            None => (Freshness::Strong, None),
            Some(session) => self.for_context(session, key),
        };
        let demand = Demand {
            consistency: freshness,
            floor: None,
            slow: false,
        };
        // What is missing on a replica may only not be there yet.
        let will_do = |answer: &Result<T>| match answer {
            Ok(value) => floor.is_none_or(|floor| version(value) >= floor),
            Err(Error::NotFound) => false,
            Err(_) => true,
        };
        let patience = Instant::now() + NOT_SHOWN_YET;
        loop {
            let served = self.servers.read(&demand, &op, &will_do).await?;
            note(session.as_deref(), &served);
            let value = served.value?;
            match floor {
                Some(seen) if version(&value) < seen => {
                    self.look_again(session.as_deref(), patience, seen, version(&value))
                        .await?;
                }
                _ => return Ok(value),
            }
        }
    }

    /// Even the primary is behind what the session has seen. With synchronous replication that may be so for a moment:
    /// a standby shows a commit as soon as it has it, the primary only when a standby has said so. Returns when it is
    /// worth asking again.
    ///
    /// # Errors
    /// When it has not been shown in time: `SessionLost` if there was a failover since, else `Unavailable`.
    async fn look_again(
        &self,
        session: Option<&Session>,
        patience: Instant,
        seen: Version,
        actual: Version,
    ) -> Result<()> {
        if Instant::now() < patience {
            tokio::time::sleep(LOOK_AGAIN).await;
            return Ok(());
        }
        let position = session.and_then(|session| session.token().position());
        let same_log = position.is_some_and(|(epoch, _)| Some(inside(epoch)) == self.servers.epoch());
        if same_log {
            return Err(Error::Unavailable {
                detail: "the primary does not show yet what a standby has shown: it waits for its standbys"
                    .into(),
                retry_after: super::RETRY_AFTER,
            });
        }
        Err(lost_version(seen, actual))
    }

    /// How fresh a read of one context has to be, and the version that it must have.
    fn for_context(&self, session: &Session, key: &ContextKey) -> (Freshness, Option<Version>) {
        let token = session.token();
        if !Session::current_plan().replicas {
            return (Freshness::Strong, token.floor(key));
        }
        match (session.consistency(), token.floor(key)) {
            (Consistency::Strong, floor) => (Freshness::Strong, floor),
            (Consistency::Any, _) => (Freshness::Any, None),
            (Consistency::Bounded, _) => (Freshness::Bounded(self.bound), None),
            (Consistency::Session, None) if token.has_overflowed() => (Freshness::Strong, None),
            (Consistency::Session, Some(floor)) if session.is_bounded_by_floor() => {
                (Freshness::Session, Some(floor))
            }
            (Consistency::Session, floor) => (Freshness::Bounded(self.bound), floor),
        }
    }

    /// Reads the heads of several contexts. The position covers what the session wrote and listed; a head that it read
    /// by itself left its version alone, so that the versions count here as well (Q2).
    ///
    /// # Errors
    /// `SessionLost` if even the primary is behind what the session has seen of one of them.
    pub(super) async fn heads<Op, Reading>(
        &self,
        tenant: &TenantId,
        ids: &[ContextId],
        op: Op,
    ) -> Result<Vec<Option<Context>>>
    where
        Op: Fn(Connection) -> Reading + Send + Sync,
        Reading: Future<Output = Read<Vec<Option<Context>>>> + Send,
    {
        let session = Session::current();
        let floor_of = |id| self.for_context(session.as_deref()?, &(tenant, id).into()).1;
        let floors: Vec<Option<Version>> = ids.iter().map(floor_of).collect();
        // What is missing on a replica may only not be there yet.
        let will_do = |heads: &Result<Vec<Option<Context>>>| {
            heads.as_ref().map_or(true, |heads| {
                let mut pairs = heads.iter().zip(&floors);
                pairs.all(|(head, floor)| head.as_ref().is_some_and(|head| Some(head.version) >= *floor))
            })
        };
        let patience = Instant::now() + NOT_SHOWN_YET;
        loop {
            let heads = self.many_if(&op, &will_do).await??;
            let shown = heads.iter().zip(&floors);
            let mut below = shown.filter_map(|(head, floor)| {
                let (seen, actual) = ((*floor)?, head.as_ref()?.version);
                (actual < seen).then_some((seen, actual))
            });
            let Some((seen, actual)) = below.next() else {
                return Ok(heads);
            };
            self.look_again(session.as_deref(), patience, seen, actual)
                .await?;
        }
    }

    /// Lists contexts. The position is not enough here either: a head from memory left only its version (Q2).
    ///
    /// # Errors
    /// As of [`Reads::heads`].
    pub(super) async fn list<Op, Reading>(&self, tenant: &TenantId, op: Op) -> Result<ContextPage>
    where
        Op: Fn(Connection) -> Reading + Send + Sync,
        Reading: Future<Output = Read<ContextPage>> + Send,
    {
        let session = Session::current();
        let below = |page: &ContextPage| {
            page.contexts.iter().find_map(|context| {
                let seen = self
                    .for_context(session.as_deref()?, &(tenant, &context.id).into())
                    .1?;
                (context.version < seen).then_some((seen, context.version))
            })
        };
        let will_do = |page: &Result<ContextPage>| page.as_ref().map_or(true, |page| below(page).is_none());
        let patience = Instant::now() + NOT_SHOWN_YET;
        loop {
            let page = self.many_if(&op, &will_do).await??;
            let Some((seen, actual)) = below(&page) else {
                return Ok(page);
            };
            self.look_again(session.as_deref(), patience, seen, actual)
                .await?;
        }
    }

    /// Reads several contexts on a connection of its own: it may take long.
    pub(super) async fn many<T, Op, Reading>(&self, op: Op) -> Read<T>
    where
        Op: Fn(Connection) -> Reading + Send + Sync,
        Reading: Future<Output = Read<T>> + Send,
        T: Send,
    {
        self.many_if(op, |_| true).await
    }

    /// As [`Reads::many`], from the primary if what a replica says will not do.
    async fn many_if<T, Op, Reading>(
        &self,
        op: Op,
        will_do: impl Fn(&Result<T>) -> bool + Send + Sync,
    ) -> Read<T>
    where
        Op: Fn(Connection) -> Reading + Send + Sync,
        Reading: Future<Output = Read<T>> + Send,
        T: Send,
    {
        let session = Session::current();
        let demand = session
            .as_deref()
            .map_or_else(strong, |session| self.for_many(session));
        let op = &op;
        let guarded = |endpoint: Arc<Endpoint>| async move {
            let connection = endpoint.session().await?;
            // Before the read, whose snapshot is then a later one.
            if let Some(floor) = demand.floor
                && !reached(&connection, floor.lsn).await?
            {
                return Ok(None);
            }
            op(connection).await.map(Some)
        };
        let accepted = |answer: &Option<Result<T>>| answer.as_ref().is_some_and(&will_do);
        let served = self.servers.read(&demand, guarded, accepted).await?;
        note(session.as_deref(), &served);
        if session.is_some() && self.replicated {
            position(&self.servers, &served.by).await.note();
        }
        // The primary is not asked whether it has reached a position of another epoch: it is the truth.
        Ok(served.value.unwrap_or_else(|| Err(lost())))
    }

    fn for_many(&self, session: &Session) -> Demand {
        let token = session.token();
        if !Session::current_plan().replicas {
            return strong();
        }
        let at_most = |floor| Demand {
            consistency: Freshness::Bounded(self.bound),
            floor,
            slow: true,
        };
        match (session.consistency(), token.position()) {
            (Consistency::Any, _) => Demand {
                consistency: Freshness::Any,
                floor: None,
                slow: true,
            },
            (Consistency::Bounded, _) => at_most(None),
            (Consistency::Session, None) if token.is_empty() => at_most(None),
            (Consistency::Session, Some((epoch, lsn))) if !token.has_overflowed() => at_most(Some(Floor {
                epoch: inside(epoch),
                lsn: Lsn(lsn),
            })),
            // Or it has seen something, and where that is in the log is not known.
            (Consistency::Strong | Consistency::Session, _) => strong(),
        }
    }
}

fn strong() -> Demand {
    Demand {
        consistency: Freshness::Strong,
        floor: None,
        slow: true,
    }
}

fn lost_version(seen: Version, actual: Version) -> Error {
    tracing::error!(seen, actual, "a session has seen what the database does not have");
    Error::SessionLost { seen, actual }
}

fn lost() -> Error {
    Error::Unavailable {
        detail: "the primary has not reached a position that it gave out before; it may be another server"
            .into(),
        retry_after: super::RETRY_AFTER,
    }
}

fn note<T>(session: Option<&Session>, served: &Served<T>) {
    if let Some(session) = session {
        let origin = match served.from {
            ServedBy::Replica => Origin::Replica,
            ServedBy::LaggingReplica => Origin::Stale,
            ServedBy::Primary => Origin::Primary,
        };
        session.served_by(origin, served.age);
    }
}

fn outside(epoch: Epoch) -> session::Epoch {
    session::Epoch {
        system: epoch.system_identifier,
        timeline: epoch.timeline,
    }
}

fn inside(epoch: session::Epoch) -> Epoch {
    Epoch {
        system_identifier: epoch.system,
        timeline: epoch.timeline,
    }
}
