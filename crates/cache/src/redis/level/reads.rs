//! Reads of a single node that are asked for at about the same time travel as one command.
//!
//! A read costs the server little and its client much: a command of its own is a message to the connection's task, a wake
//! back, a timer and a parse. Under load all but the parse are shared here. A read that is alone goes at once; nobody
//! waits for an answer before he asks, so no read is delayed by a round trip.
//!
//! - **B1** Each read is answered within the deadline of one command, whatever becomes of those it travels with: a
//!   reader that goes away takes nobody with it, because the command belongs to a task of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::cmd;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::ask::within;
use crate::error::RemoteError;
use crate::redis::link::{Dial, Shared, unavailable};

/// Most reads that travel together: with values of up to 32 KiB each, an answer stays about 2 MiB.
const MOST: usize = 64;

/// The names of two keys: an entry and its partition's meta.
pub(super) type Names = [String; 2];
/// What is there under them, seen at one moment.
pub(super) type Found = (Option<Bytes>, Option<Bytes>);
type Answer = Result<Found, RemoteError>;

/// The reads that wait to leave.
#[derive(Clone)]
pub(super) struct Reads(Arc<Inner>);

struct Inner {
    shared: Shared,
    deadline: Duration,
    /// One in a cluster, where keys of different slots are no command's.
    most: usize,
    under_way: AtomicUsize,
    waiting: Mutex<Vec<(Names, oneshot::Sender<Answer>)>>,
}

/// One read under way, whoever drops it.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reads {
    pub(super) fn new(dial: &Dial, shared: Shared) -> Self {
        Self(Arc::new(Inner {
            shared,
            deadline: dial.answer_within(),
            most: if dial.is_cluster() { 1 } else { MOST },
            under_way: AtomicUsize::new(0),
            waiting: Mutex::default(),
        }))
    }

    pub(super) async fn one(&self, names: Names) -> Answer {
        let others = self.0.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(&self.0.under_way);
        if others == 0 || self.0.most == 1 {
            return self
                .0
                .ask(&[names])
                .await
                .and_then(|mut found| found.pop().ok_or_else(odd));
        }
        let (answer, answered) = oneshot::channel();
        let is_first = self.0.wait(names, answer);
        if is_first {
            drop(tokio::spawn(Arc::clone(&self.0).leave()));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(unavailable("the runtime shuts down")))
    }

    pub(super) async fn many(&self, names: &[Names]) -> Vec<Answer> {
        let parts = names.chunks(self.0.most).map(|part| self.0.ask_each(part));
        join_all(parts).await.into_iter().flatten().collect()
    }
}

impl Inner {
    /// Whether it is the first one that waits.
    fn wait(&self, names: Names, answer: oneshot::Sender<Answer>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((names, answer));
        waiting.len() == 1
    }

    /// Takes along all who wait.
    async fn leave(self: Arc<Self>) {
        // An answer to many wakes many, who ask anew one after the other: once they all have run, they all wait here.
        tokio::task::yield_now().await;
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (names, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let parts = names.chunks(self.most).map(|part| self.ask_each(part));
        for (answer, found) in answers
            .into_iter()
            .zip(join_all(parts).await.into_iter().flatten())
        {
            // Its reader may be gone.
            drop(answer.send(found));
        }
    }

    async fn ask_each(&self, names: &[Names]) -> Vec<Answer> {
        match self.ask(names).await {
            Ok(found) => found.into_iter().map(Ok).collect(),
            Err(error) => names.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn ask(&self, names: &[Names]) -> Result<Vec<Found>, RemoteError> {
        let mut command = cmd("MGET");
        for [entry, meta] in names {
            command.arg(entry).arg(meta);
        }
        let mut link = self.shared.link()?;
        let told: Vec<Option<Bytes>> = within(self.deadline, command.query_async(&mut link)).await?;
        if told.len() != names.len() * 2 {
            return Err(odd());
        }
        let mut told = told.into_iter();
        Ok(names
            .iter()
            .map(|_| (told.next().flatten(), told.next().flatten()))
            .collect())
    }
}

fn odd() -> RemoteError {
    super::garbled("an answer of another length")
}
