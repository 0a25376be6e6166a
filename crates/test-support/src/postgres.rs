//! A Postgres primary with streaming replicas.
//!
//! Built the short way: `initdb` once, the data folder copied before the first start (same system identifier, so a
//! legal base for a standby), then all members started at once. No backup, no waiting for a checkpoint; about a
//! second for three members.

mod builder;
mod disk;
mod member;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::builder::PgClusterBuilder;
pub use self::disk::Slowness;
pub use self::member::PgMember;
pub use self::wire::{Connection, Row};
use crate::folder::Folder;
use crate::wait::{self, Look};
use crate::{Error, Result};

/// The superuser that everything connects as.
pub const USER: &str = "postgres";
/// The database that is made for the tests.
pub const DATABASE: &str = "contextkeep";

/// How long a member gets to become ready, to stream or to be promoted.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// A primary and its replicas. Dropping the value that started them ends them; one that was read from a file
/// ends nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct PgCluster {
    members: Vec<PgMember>,
    /// Which of them the primary is: it moves on promotion.
    primary: AtomicUsize,
    #[serde(skip)]
    folder: Option<Arc<Folder>>,
}

impl PgCluster {
    /// Starts describing a cluster.
    pub fn builder() -> PgClusterBuilder {
        PgClusterBuilder::default()
    }

    /// All members, in the order they were made: the first primary, then the replicas.
    pub fn members(&self) -> &[PgMember] {
        &self.members
    }

    /// The member that takes writes: the first one, or the last promoted.
    pub fn primary(&self) -> &PgMember {
        // The index was found in `members`, which never changes.
        &self.members[self.primary.load(Ordering::Acquire)]
    }

    /// All members but the primary (after a failover that includes the old, dead one).
    pub fn replicas(&self) -> impl Iterator<Item = &PgMember> {
        let primary = self.primary().name();
        self.members.iter().filter(move |member| member.name() != primary)
    }

    /// The member with this name.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is none.
    pub fn member(&self, name: &str) -> Result<&PgMember> {
        let found = self.members.iter().find(|member| member.name() == name);
        found.ok_or_else(|| Error::State(format!("no Postgres member is called {name}")))
    }

    /// Makes the named replica the primary and points the others at it; returns once it takes writes.
    ///
    /// The old primary is not touched: kill, stop or cut it off first, or there are two. The other replicas follow
    /// as soon as they run. Promote the one that has replayed most; a replica that is ahead of it can't follow.
    ///
    /// # Errors
    ///
    /// When the member is unknown, is not a running replica, or is not promoted within a minute.
    pub fn promote(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        member.ask("select pg_promote(true, 60)")?;
        wait::until(&format!("{name} to take writes"), READY_TIMEOUT, || {
            Ok(Look::when(member.ask("select pg_is_in_recovery()")? == "f"))
        })?;
        let old = self.primary.load(Ordering::Acquire);
        for (index, other) in self.members.iter().enumerate() {
            if index != old && other.name() != name {
                other.follow(member)?;
            }
        }
        let index = self
            .members
            .iter()
            .position(|other| other.name() == name)
            .unwrap_or(old);
        self.primary.store(index, Ordering::Release);
        Ok(())
    }

    /// Makes the named member a fresh replica of the present primary, whatever it was; returns once it streams.
    ///
    /// This is how a failed primary comes back: its data is thrown away and copied anew (`pg_basebackup`).
    ///
    /// # Errors
    ///
    /// When the member is unknown or is the primary itself, or a step fails.
    pub fn rebuild(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        let primary = self.primary();
        if member.name() == primary.name() {
            return Err(Error::State(format!(
                "{name} is the primary: promote another member first"
            )));
        }
        member.kill()?;
        member.copy_from(primary)?;
        member.start()?;
        primary.wait_streaming(member)
    }

    /// Waits until every running replica has replayed what the primary has written so far.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] with the replica that is behind.
    pub fn wait_replayed(&self, timeout: Duration) -> Result<()> {
        let written = self.primary().ask("select pg_current_wal_insert_lsn()")?;
        for replica in self.replicas().filter(|replica| replica.is_running()) {
            let sql = format!("select coalesce(pg_last_wal_replay_lsn() >= '{written}', false)");
            wait::until(
                &format!("{} to replay {written}", replica.name()),
                timeout,
                || Ok(Look::when(replica.ask(&sql)? == "t")),
            )?;
        }
        Ok(())
    }

    /// The folder they live in, when this value owns it.
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_deref()
    }
}
