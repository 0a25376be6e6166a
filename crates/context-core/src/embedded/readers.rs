//! Connections that read, each query on a thread that may block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::database::{Database, RETRY_AFTER};
use crate::error::{Error, Result};
use crate::session::{Stage, timed};

/// Longest that one read may take. Pages are bounded, so only a search for very common words gets there.
const READ_MAX: Duration = Duration::from_secs(10);
/// Virtual machine steps between two looks at the clock.
const STEPS: i32 = 100_000;

#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(database: &Database, count: usize) -> Result<Self> {
        let idle = (0..count)
            .map(|_| database.reader())
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            permits: Arc::new(Semaphore::new(idle.len())),
            idle: Arc::new(Mutex::new(idle)),
        })
    }

    /// Runs `query` on a snapshot. A caller that goes away leaves the query to end by itself, within
    /// [`READ_MAX`].
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        timed(Stage::Statement, self.run(query, READ_MAX)).await
    }

    /// As [`Readers::read`], for what takes as long as reading everything.
    #[cfg(feature = "postgres")]
    pub(super) async fn dump<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(query, Duration::MAX).await
    }

    async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
        longest: Duration,
    ) -> Result<T> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let idle = self.idle.clone();
        let work = move || {
            let mut connection = idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
                .ok_or_else(closed)?;
            // A defect in one read must not cost a connection.
            let run = AssertUnwindSafe(|| snapshot(&mut connection, query, longest));
            let outcome = catch_unwind(run)
                .unwrap_or_else(|_| Err(Error::internal("a read panicked; the log has the place")));
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            drop(permit);
            outcome
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal(format!("a read failed: {error}")))?
    }
}

fn snapshot<T>(
    connection: &mut Connection,
    query: impl FnOnce(&Connection) -> Result<T>,
    longest: Duration,
) -> Result<T> {
    let begun = tokio::time::Instant::now();
    connection.progress_handler(STEPS, Some(move || begun.elapsed() > longest))?;
    let transaction = connection.unchecked_transaction()?;
    let outcome = query(&transaction);
    // Nothing was written: ending it either way is the same.
    transaction.finish()?;
    outcome
}

fn closed() -> Error {
    Error::Unavailable {
        detail: "the embedded store is closed".into(),
        retry_after: RETRY_AFTER,
    }
}
