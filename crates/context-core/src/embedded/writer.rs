//! The one thread that writes: while one transaction is on its way to the disk the next gathers.
//!
//! - **G1** A job's outcome is told only after the commit that holds it.
//! - **G2** A job that fails is rolled back alone (a savepoint each); its neighbours are committed.
//! - **G3** A job whose caller has gone is done all the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::database::RETRY_AFTER;
use crate::error::{Error, Result};

/// Runs inside the transaction, or learns why there is none, and answers what to do once its fate is known.
type Job = Box<dyn FnOnce(Result<&Connection>) -> Done + Send>;

struct Done {
    keep: bool,
    tell: Box<dyn FnOnce(Result<()>) + Send>,
}

#[derive(Debug)]
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    waiting: Arc<AtomicU64>,
    foreign: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread. At most `queue` jobs wait, at most `group` go into one commit.
    pub(super) fn start(connection: Connection, queue: usize, group: usize) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(queue);
        let waiting = Arc::new(AtomicU64::new(0));
        let foreign = Arc::new(AtomicU64::new(0));
        let (gauge, others) = (waiting.clone(), foreign.clone());
        let thread = std::thread::Builder::new()
            .name("contextkeep-writer".into())
            .spawn(move || run(&connection, receiver, group, &gauge, &others))
            .map_err(|error| Error::internal(format!("starting the writer: {error}")))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            waiting,
            foreign,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `job` in the next transaction and, once that is committed, `after` on the writer's thread. The job has its
    /// place in the queue when this returns; the future waits for the outcome.
    ///
    /// # Errors
    /// The job's own, `Overloaded` if the queue is full, or why the commit failed.
    pub(super) fn write<T, F, A>(&self, job: F, after: A) -> impl Future<Output = Result<T>> + use<T, F, A>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let outcome = self.enqueue(job, after);
        async move { outcome?.await.map_err(|_| closed())? }
    }

    /// As [`Writer::write`], from a thread that may wait.
    pub(super) fn write_blocking<T, F, A>(&self, job: F, after: A) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        self.enqueue(job, after)?.blocking_recv().map_err(|_| closed())?
    }

    fn enqueue<T, F, A>(&self, job: F, after: A) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A defect in one job must not end the thread that all others need.
            let run = |connection| catch_unwind(AssertUnwindSafe(|| job(connection)));
            let result =
                connection.and_then(|connection| run(connection).unwrap_or_else(|_| Err(panicked())));
            Done {
                keep: result.is_ok(),
                tell: Box::new(move |committed| {
                    // A job's own error says more than that of the commit that it may have brought down.
                    let result = result.and_then(|value| committed.map(|()| value));
                    if let Ok(value) = &result {
                        after(value);
                    }
                    // The caller may have gone (G3); the outcome is the same.
                    drop(reply.send(result));
                }),
            }
        });
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
            .ok_or_else(closed)?;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        queue.try_send(job).map_err(|error| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => Error::Overloaded {
                    what: "the write queue of the embedded store",
                    retry_after: RETRY_AFTER,
                },
                mpsc::error::TrySendError::Closed(_) => closed(),
            }
        })?;
        Ok(outcome)
    }

    /// Jobs that wait for their commit.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How often a transaction found that another process had committed since the one before it.
    #[cfg_attr(
        not(feature = "cache"),
        expect(dead_code, reason = "only who caches has to know")
    )]
    pub(super) fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Acquire)
    }

    /// Takes no more jobs, finishes those that wait and ends the thread.
    pub(super) fn close(&self) {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer of the embedded store panicked");
        }
    }
}

fn panicked() -> Error {
    Error::internal("a write panicked and was rolled back; the log has the place")
}

fn closed() -> Error {
    Error::Unavailable {
        detail: "the embedded store is closed".into(),
        retry_after: RETRY_AFTER,
    }
}

fn run(
    connection: &Connection,
    mut queue: mpsc::Receiver<Job>,
    group: usize,
    waiting: &AtomicU64,
    foreign: &AtomicU64,
) {
    let mut jobs = Vec::with_capacity(group);
    let mut others = Others {
        count: foreign,
        last: None,
    };
    others.look(connection);
    while let Some(first) = queue.blocking_recv() {
        jobs.push(first);
        while jobs.len() < group
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let count = jobs.len() as u64;
        commit_group(connection, jobs.drain(..), &mut others);
        waiting.fetch_sub(count, Ordering::Relaxed);
    }
    // Leaves one file behind instead of three.
    if let Err(error) = connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);") {
        tracing::warn!(%error, "the write-ahead log stays beside the data file; it is used at the next start");
    }
}

/// Other processes that write into the same file.
struct Others<'count> {
    count: &'count AtomicU64,
    last: Option<i64>,
}

impl Others<'_> {
    /// To be called with the file's lock held: then nobody else is about to commit. The number does not change by what
    /// this connection commits.
    fn look(&mut self, connection: &Connection) {
        let version = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        // Who can't tell says so: nothing that was remembered is then taken for the newest.
        let same = self.last.is_none() || version.as_ref().ok() == self.last.as_ref();
        self.last = version.ok();
        if !same {
            self.count.fetch_add(1, Ordering::Release);
        }
    }
}

fn commit_group(connection: &Connection, jobs: impl Iterator<Item = Job>, others: &mut Others<'_>) {
    let mut dones = Vec::new();
    let mut failure = connection.execute_batch("BEGIN IMMEDIATE").err().map(Error::from);
    if failure.is_none() {
        others.look(connection);
    }
    for job in jobs {
        dones.push(run_job(connection, job, &mut failure));
    }
    if failure.is_none() {
        failure = connection.execute_batch("COMMIT").err().map(Error::from);
    }
    if let Some(error) = &failure {
        tracing::warn!(%error, jobs = dones.len(), "a group of writes was not committed");
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rolling back a group of writes");
        }
    }
    for done in dones {
        (done.tell)(failure.clone().map_or(Ok(()), Err));
    }
}

fn run_job(connection: &Connection, job: Job, failure: &mut Option<Error>) -> Done {
    if failure.is_none()
        && let Err(error) = connection.execute_batch("SAVEPOINT job")
    {
        *failure = Some(error.into());
    }
    if let Some(error) = failure {
        return job(Err(error.clone()));
    }
    let done = job(Ok(connection));
    // A full disk or a failed read ends the whole transaction, and what the neighbours wrote with it.
    if connection.is_autocommit() {
        *failure = Some(Error::Unavailable {
            detail: "the commit was undone because another write in it failed; try again".into(),
            retry_after: RETRY_AFTER,
        });
        return done;
    }
    let end = if done.keep {
        "RELEASE job"
    } else {
        "ROLLBACK TO job; RELEASE job"
    };
    if let Err(error) = connection.execute_batch(end) {
        *failure = Some(error.into());
    }
    done
}
