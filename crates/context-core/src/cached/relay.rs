//! Tells the level that processes share what a writer may not have told it: one that died after its commit, one that
//! knows no cache. What is told comes from the store's outbox, so that nothing depends on anybody's memory.
//!
//! - **O1** The place in the outbox moves only after everything up to it was taken by the second level. What is told
//!   twice does no harm: versions are compared there.
//! - **O2** One process tells at a time, by a lease that ends by itself. Two that believe to have it tell twice.
//! - **O3** Nothing is locked, and no connection held, while the second level is asked.
//! - **O4** Changes are told under the names of the history that they were read in; else the place does not move.
//! - **O5** Where the outbox was purged before it was told, every context that changed within the life of an entry is
//!   told anew.
//!
//! A change whose writer died is therefore known everywhere within about the interval and the longest transaction that
//! runs, as transactions are told in order; [`LEASE`] more if the process died that was telling.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contextkeep_cache::remote::{Applied, Change};
use contextkeep_cache::{Body, Mark, SecondLevel};
use tokio::task::AbortHandle;

use super::key::Name;
use crate::Version;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::store::ContextStore;

/// How long a process that died keeps the others from telling.
pub const LEASE: Duration = Duration::from_secs(10);
/// Longest time for telling what was read at a time: shorter than the lease.
const TELL_MAX: Duration = Duration::from_secs(5);
/// Changes that the second level is told together.
const TOGETHER: usize = 256;
/// Rows of the outbox that are read at a time, at most; fewer after it took too long.
const ROWS_MAX: u32 = 128;
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A store's outbox, with a place in it that its processes share.
#[async_trait::async_trait]
pub trait Outbox: Send + Sync + fmt::Debug {
    /// Whether there is something to tell. Changes nothing.
    ///
    /// # Errors
    /// As any read.
    async fn look(&self) -> Result<Look>;
    /// Takes the place for [`LEASE`] and reads what comes after it, up to so many rows; `None` while another process has it.
    ///
    /// # Errors
    /// As any write; what was taken ends with its lease.
    async fn take(&self, rows: u32) -> Result<Option<Untold>>;
    /// Moves the place behind what was read, unless another process took it meanwhile; answers whether it moved.
    ///
    /// # Errors
    /// As any write.
    async fn told(&self, untold: &Untold) -> Result<bool>;
    /// Lets others have the place.
    ///
    /// # Errors
    /// As any write; then its lease has to end.
    async fn give_back(&self) -> Result<()>;
}

/// What a look at the outbox found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// There is something to tell, and no other process tells.
    pub due: bool,
    /// How long ago the oldest change was made that was not told, if there is one.
    pub lag: Option<Duration>,
}

/// What comes next in the outbox.
#[derive(Clone, Debug)]
pub struct Untold {
    /// Contexts and the versions that they reached.
    pub changes: Vec<(ContextKey, Version)>,
    /// Where the place is after it.
    pub place: Place,
    /// There may be more.
    pub more: bool,
    /// This begins a walk over all contexts, because the outbox was purged before it was told (O5).
    pub overtaken: bool,
}

/// A place in the outbox, and in a walk over all contexts if one is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The transaction, as the store writes it.
    pub transaction: String,
    /// The row among those of the transaction.
    pub row: i64,
    /// The last context that was walked over.
    pub walked: Option<i64>,
}

/// What a relay did since it began, and how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// Contexts told by this process that the second level knew already.
    pub known: u64,
    /// Contexts told by this process that the second level did not know.
    pub mended: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Walks over all contexts that this process began, because the outbox was purged before it was told.
    pub walks: u64,
    /// How long ago the oldest change was made that nobody has told, as last seen; `None` when the outbox did not answer.
    pub lag: Option<Duration>,
}

/// The task that tells. It ends with the value.
#[derive(Debug)]
pub struct Relay {
    counts: Arc<Counts>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Counts {
    known: AtomicU64,
    mended: AtomicU64,
    failed: AtomicU64,
    walks: AtomicU64,
    lag: Mutex<Option<Duration>>,
}

impl Relay {
    /// Begins to tell this level what is in the outbox of this store, with a look every `interval`. Needs a runtime.
    pub fn start(
        outbox: Arc<dyn Outbox>,
        store: Arc<dyn ContextStore>,
        level: Arc<dyn SecondLevel>,
        interval: Duration,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        let teller = Teller {
            outbox,
            store,
            level,
            counts: counts.clone(),
        };
        let task = tokio::spawn(teller.run(interval)).abort_handle();
        Self { counts, task }
    }

    /// What it did, and how far it is.
    pub fn status(&self) -> RelayStatus {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RelayStatus {
            known: count(&self.counts.known),
            mended: count(&self.counts.mended),
            failed: count(&self.counts.failed),
            walks: count(&self.counts.walks),
            lag: *self.counts.lag(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Counts {
    fn lag(&self) -> std::sync::MutexGuard<'_, Option<Duration>> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Teller {
    outbox: Arc<dyn Outbox>,
    store: Arc<dyn ContextStore>,
    level: Arc<dyn SecondLevel>,
    counts: Arc<Counts>,
}

impl Teller {
    async fn run(self, interval: Duration) {
        let (mut pause, mut rows) = (interval, ROWS_MAX);
        loop {
            tokio::time::sleep(pause).await;
            match self.step(rows).await {
                Ok(more) => {
                    pause = if more { Duration::ZERO } else { interval };
                    rows = ROWS_MAX;
                }
                Err(error) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, "the cache was not told what is in the outbox; it is tried again");
                    pause = (pause * 2).clamp(interval.min(PAUSE_MAX), PAUSE_MAX.max(interval));
                    rows = (rows / 2).max(1);
                }
            }
        }
    }

    /// Tells what comes next; answers whether there is more.
    async fn step(&self, rows: u32) -> Result<bool> {
        let look = self.outbox.look().await;
        *self.counts.lag() = look.as_ref().ok().map(|look| look.lag.unwrap_or_default());
        // From before the read (O4); 0 as long as the store does not know it.
        let history = self.store.history();
        if !look?.due || history == 0 {
            return Ok(false);
        }
        let Some(untold) = self.outbox.take(rows).await? else {
            return Ok(false);
        };
        if untold.overtaken {
            self.counts.walks.fetch_add(1, Ordering::Relaxed);
            // As at the first start: nothing is known of what was told before.
            tracing::info!("the cache is told all that changed lately: the outbox alone no longer has it");
        }
        let told = self.tell(history, &untold.changes).await;
        if told.is_err() || self.store.history() != history {
            // Perhaps another process gets through.
            drop(self.outbox.give_back().await);
            return told.map(|()| false);
        }
        Ok(self.outbox.told(&untold).await? && untold.more)
    }

    async fn tell(&self, history: u64, changes: &[(ContextKey, Version)]) -> Result<()> {
        let tell = async {
            for some in changes.chunks(TOGETHER) {
                let markers = some.iter().map(|(key, version)| marker(history, key, *version));
                for applied in self.level.apply(markers.collect()).await {
                    let count = match applied.map_err(unavailable)? {
                        Applied::Done { logged: Some(_), .. } => &self.counts.mended,
                        Applied::Done { logged: None, .. } | Applied::Superseded(_) => &self.counts.known,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        tokio::time::timeout(TELL_MAX, tell)
            .await
            .unwrap_or_else(|late| Err(unavailable(late)))
    }
}

fn marker(history: u64, key: &ContextKey, version: Version) -> Change {
    Change {
        key: Name::new(history, key).as_str().into(),
        version: version.into(),
        mark: Mark::ZERO,
        body: Body::Unknown,
        tags: Vec::new(),
    }
}

fn unavailable(error: impl fmt::Display) -> Error {
    Error::Unavailable {
        detail: format!("the second level of the cache: {error}"),
        retry_after: PAUSE_MAX,
    }
}
