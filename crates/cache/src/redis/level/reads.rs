//! Reads of a single node that are asked for at about the same time travel as one command.
//!
//! A read costs the server little and its client much: a command of its own is a message to the connection's task, a wake
//! back, a timer and a parse. Under load all but the parse are shared here. A read that is alone goes at once; nobody
//! waits for an answer before he asks, so no read is delayed by a round trip.
//!
//! Whoever asks, a reader that is alone or the task of those who travel together, takes a [lane](crate::redis::lanes) if one
//! is free, and the shared connection if not.
//!
//! - **B1** Each read is answered within the deadline of one command, whatever becomes of those it travels with: a
//!   reader that goes away takes nobody with it, because a lane is one question's only, and the command of several readers
//!   belongs to a task of its own.
//! - **B2** An entry and the position of its partition's log come in one command, so they were seen at one moment.
//! - **B3** A lane that leads elsewhere than the shared connection (an old primary that lives on) is not used for long: one
//!   that tells less of a log than a poll over the shared connection had told before ends, with all others, and the
//!   question is asked again there.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::cmd;
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ask::until;
use super::names::Names;
use crate::error::RemoteError;
use crate::partition::PartitionId;
use crate::redis::lane::{Failure, Lane};
use crate::redis::lanes::{Lanes, Taken};
use crate::redis::link::{Dial, Shared, unavailable};
use crate::redis::resp::{command, word};
use crate::redis::wire;
use crate::remote::Position;
use crate::version::Key;

/// Most reads that travel together: with values of up to 32 KiB each, an answer stays about 2 MiB.
const MOST: usize = 64;

/// What a read asks for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) key: Key,
    pub(super) partition: PartitionId,
}

/// What is there, seen at one moment (B2).
#[derive(Debug)]
pub(super) struct Found {
    pub(super) entry: Option<Bytes>,
    /// `None` when the log has not begun.
    pub(super) position: Option<Position>,
}

type Answer = Result<Found, RemoteError>;

/// The reads that wait to leave.
#[derive(Clone)]
pub(super) struct Reads(Arc<Inner>);

struct Inner {
    names: Names,
    shared: Shared,
    lanes: Lanes,
    deadline: Duration,
    /// One in a cluster, where keys of different slots are no command's.
    most: usize,
    /// What polls told last, by partition (B3).
    polled: Box<[AtomicU64]>,
    under_way: AtomicUsize,
    waiting: Mutex<Vec<(Question, oneshot::Sender<Answer>)>>,
}

/// One read under way, whoever drops it.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reads {
    pub(super) fn new(dial: &Dial, names: Names, partitions: u16, shared: Shared, lanes: Lanes) -> Self {
        Self(Arc::new(Inner {
            names,
            shared,
            lanes,
            deadline: dial.answer_within(),
            most: if dial.is_cluster() { 1 } else { MOST },
            polled: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            under_way: AtomicUsize::new(0),
            waiting: Mutex::default(),
        }))
    }

    /// B3: a poll over the shared connection told this.
    pub(super) fn polled(&self, partition: PartitionId, position: Position) {
        if let Some(polled) = self.0.polled.get(usize::from(partition)) {
            polled.store(position.seq, Ordering::Relaxed);
        }
    }

    pub(super) async fn one(&self, question: Question) -> Answer {
        let others = self.0.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(&self.0.under_way);
        if others == 0 || self.0.most == 1 {
            return self.0.ask_alone(&question).await;
        }
        let (answer, answered) = oneshot::channel();
        let is_first = self.0.wait(question, answer);
        if is_first {
            drop(tokio::spawn(Arc::clone(&self.0).leave()));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(unavailable("the runtime shuts down")))
    }

    pub(super) async fn many(&self, questions: &[Question]) -> Vec<Answer> {
        let parts = questions.chunks(self.0.most).map(|part| self.0.ask_each(part));
        join_all(parts).await.into_iter().flatten().collect()
    }
}

impl Inner {
    /// Whether it is the first one that waits.
    fn wait(&self, question: Question, answer: oneshot::Sender<Answer>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((question, answer));
        waiting.len() == 1
    }

    /// Takes along all who wait.
    async fn leave(self: Arc<Self>) {
        // An answer to many wakes many, who ask anew one after the other: once they all have run, they all wait here.
        tokio::task::yield_now().await;
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (questions, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let parts = questions.chunks(self.most).map(|part| self.ask_each(part));
        for (answer, found) in answers
            .into_iter()
            .zip(join_all(parts).await.into_iter().flatten())
        {
            // Its reader may be gone.
            drop(answer.send(found));
        }
    }

    async fn ask_each(&self, questions: &[Question]) -> Vec<Answer> {
        match self.ask(questions).await {
            Ok(found) => found.into_iter().map(Ok).collect(),
            Err(error) => questions.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// [`ask`](Self::ask) for a read that is alone.
    async fn ask_alone(&self, question: &Question) -> Answer {
        let questions = std::slice::from_ref(question);
        let now = Instant::now();
        let deadline = now + self.deadline;
        let told = self.told(question);
        match self.ask_lane(questions, now, deadline).await {
            Some(Ok(mut taken)) => {
                let found = taken.lane().map(|lane| found(lane, 0));
                taken.give_back(now);
                match found {
                    Some(found) if !is_behind(&found, told) => return Ok(found),
                    _ => self.lanes.abandon(),
                }
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
        // In a box, so that a read that needs no more than its lane has no room for it in its future.
        let mut found = Box::pin(self.ask_shared(questions, deadline)).await?;
        found.pop().ok_or_else(odd)
    }

    async fn ask(&self, questions: &[Question]) -> Result<Vec<Found>, RemoteError> {
        let now = Instant::now();
        let deadline = now + self.deadline;
        let told: Vec<u64> = questions.iter().map(|question| self.told(question)).collect();
        match self.ask_lane(questions, now, deadline).await {
            Some(Ok(mut taken)) => {
                let found = taken.lane().map(|lane| {
                    let places = 0..questions.len();
                    places.map(|place| found(lane, place)).collect::<Vec<_>>()
                });
                taken.give_back(now);
                let is_good = |found: &Vec<_>| {
                    !found
                        .iter()
                        .zip(&told)
                        .any(|(found, told)| is_behind(found, *told))
                };
                match found.filter(is_good) {
                    Some(found) => return Ok(found),
                    None => self.lanes.abandon(),
                }
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
        Box::pin(self.ask_shared(questions, deadline)).await
    }

    /// Over a lane, which then holds the answers; nothing if there is none, or its connection had ended.
    async fn ask_lane(
        &self,
        questions: &[Question],
        now: Instant,
        deadline: Instant,
    ) -> Option<Result<Taken, RemoteError>> {
        let mut taken = self.lanes.take(now)?;
        let write = |out: &mut Vec<u8>| {
            command(out, 1 + questions.len() * 2);
            word(out, [b"MGET"]);
            for question in questions {
                self.names.write_entry(out, question.partition, &question.key);
                self.names.write_meta(out, question.partition);
            }
        };
        match taken.lane()?.ask(write, questions.len() * 2, deadline).await {
            Ok(()) => Some(Ok(taken)),
            Err(Failure::Refused(why)) => {
                taken.give_back(now);
                Some(Err(unavailable(why)))
            }
            Err(Failure::TimedOut) => Some(Err(RemoteError::TimedOut)),
            Err(Failure::Broken) => None,
        }
    }

    /// What polls have told of the question's partition by now (B3).
    fn told(&self, question: &Question) -> u64 {
        let polled = self.polled.get(usize::from(question.partition));
        polled.map_or(0, |polled| polled.load(Ordering::Relaxed))
    }

    async fn ask_shared(&self, questions: &[Question], deadline: Instant) -> Result<Vec<Found>, RemoteError> {
        let mut command = cmd("MGET");
        for question in questions {
            command
                .arg(self.names.entry(question.partition, &question.key))
                .arg(self.names.meta(question.partition));
        }
        let mut link = self.shared.link()?;
        let told: Vec<Option<Bytes>> = until(deadline, command.query_async(&mut link)).await?;
        if told.len() != questions.len() * 2 {
            return Err(odd());
        }
        self.lanes.wish(Instant::now());
        let mut told = told.into_iter();
        Ok(questions
            .iter()
            .map(|_| Found {
                entry: told.next().flatten(),
                position: position(told.next().flatten().as_deref()),
            })
            .collect())
    }
}

/// The entry is copied, so that what keeps it keeps nothing of what came with it.
fn found(lane: &Lane, place: usize) -> Found {
    Found {
        entry: lane.got(place * 2).map(Bytes::copy_from_slice),
        position: position(lane.got(place * 2 + 1)),
    }
}

fn position(meta: Option<&[u8]>) -> Option<Position> {
    wire::meta(meta?).map(|(position, _)| position)
}

/// B3.
fn is_behind(found: &Found, told: u64) -> bool {
    found.position.map_or(0, |position| position.seq) < told
}

fn odd() -> RemoteError {
    super::garbled("an answer of another length")
}
