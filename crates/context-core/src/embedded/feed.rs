//! What other processes do to the file: `contextkeep ctx` beside a server, two servers on one file. `SQLite` says that
//! something was committed, not what, so that whoever remembers heads forgets them all. It happens rarely.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::writer::Writer;
use crate::cached::{ChangeFeed, Changes};
use crate::error::{Error, Result};

/// Asks cheaply whether anybody has committed; only then whether it was somebody else.
#[derive(Debug)]
pub(super) struct Feed {
    /// Sees every commit, this process's as well.
    watcher: Arc<Mutex<Connection>>,
    seen: AtomicI64,
    /// Commits of others, as its thread met them, that were told.
    told: AtomicU64,
    writer: Arc<Writer>,
}

impl Feed {
    pub(super) fn new(watcher: Connection, writer: Arc<Writer>) -> Result<Self> {
        let seen = data_version(&watcher)?;
        Ok(Self {
            watcher: Arc::new(Mutex::new(watcher)),
            seen: AtomicI64::new(seen),
            told: AtomicU64::new(writer.foreign()),
            writer,
        })
    }
}

/// Differs from the last answer on this connection if another connection has committed meanwhile.
/// Source: the documentation of `PRAGMA data_version`.
pub(super) fn data_version(connection: &Connection) -> Result<i64> {
    Ok(connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?)
}

#[async_trait::async_trait]
impl ChangeFeed for Feed {
    async fn changes(&self) -> Result<Changes> {
        let watcher = self.watcher.clone();
        let now = tokio::task::spawn_blocking(move || {
            data_version(&watcher.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|error| Error::internal(format!("watching the data file: {error}")))??;
        if now == self.seen.load(Ordering::Relaxed) {
            return Ok(Changes::Known(Vec::new()));
        }
        // The writer's thread tells its own commits from those of others, at the beginning of each transaction.
        self.writer.write(|_| Ok(()), |()| ()).await?;
        let foreign = self.writer.foreign();
        self.seen.store(now, Ordering::Relaxed);
        if self.told.swap(foreign, Ordering::Relaxed) == foreign {
            Ok(Changes::Known(Vec::new()))
        } else {
            Ok(Changes::Unknown)
        }
    }
}
