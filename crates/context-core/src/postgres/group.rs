//! Which appends go into one commit: while groups are on their way to the disk the next one gathers.
//!
//! - **P1** A group is decided by one statement, so its appends must not depend on each other: of one context, keys and
//!   client ids differ, and an append that names a version is alone. What does not fit waits for the next group, and
//!   so does everything behind it of the same context.
//! - **P2** A context is in one group at a time, and its appends go in the order in which they came. Contexts take turns:
//!   one that had to leave some behind goes behind those that wait, so that a busy one delays another by at most the
//!   groups before it.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::sync::oneshot;

use super::append::{Committed, Room};
use crate::error::Result;
use crate::id::{ClientId, ContextKey, IdempotencyKey};
use crate::store::Append;
use crate::{Timestamp, Tokenizer};

/// An append that waits for its commit.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: ContextKey,
    pub(super) append: Append,
    pub(super) now: Timestamp,
    pub(super) room: Room,
    pub(super) reply: oneshot::Sender<Result<Committed>>,
}

impl Job {
    /// Whether doing it twice adds nothing: its outcome may be asked for by repeating it.
    pub(super) fn is_repeatable(&self) -> bool {
        self.append.idempotency.is_some()
            || self
                .append
                .items
                .iter()
                .all(|item| item.traits.client_id.is_some())
    }

    /// Tells the outcome to a caller who may have gone; the append is the same.
    pub(super) fn answer(self, outcome: Result<Committed>) {
        drop(self.room);
        drop(self.reply.send(outcome));
    }
}

/// What waits to be sent, by context.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Every context that waits or is in a group under way.
    lines: HashMap<ContextKey, Line>,
    /// Those that may go into the next group, in the order of their turns.
    turns: VecDeque<ContextKey>,
    ready: usize,
}

#[derive(Debug, Default)]
struct Line {
    jobs: VecDeque<Job>,
    under_way: bool,
}

/// Appends for one commit.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) jobs: Vec<Job>,
    /// Theirs, each once. To be given back to the queue when all of them are answered.
    pub(super) contexts: Vec<ContextKey>,
}

/// What a group may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupMax {
    pub(super) jobs: usize,
    /// Of item bodies. A single append may be larger.
    pub(super) bytes: u64,
}

impl Queue {
    /// Puts an append behind the others of its context.
    pub(super) fn push(&mut self, job: Job) {
        let line = self.lines.entry(job.key.clone()).or_default();
        if !line.under_way {
            self.ready += 1;
            if line.jobs.is_empty() {
                self.turns.push_back(job.key.clone());
            }
        }
        line.jobs.push_back(job);
    }

    /// Appends of contexts that are in no group; not all of them may fit into one.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Takes as many as fit, at least one if any is ready.
    pub(super) fn take(&mut self, most: GroupMax) -> Group {
        let mut group = Group {
            jobs: Vec::with_capacity(self.ready.min(most.jobs)),
            contexts: Vec::new(),
        };
        let mut bytes = 0;
        while let Some(key) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&key) else {
                continue;
            };
            let before = group.jobs.len();
            let waited = line.jobs.len();
            let mut used = None;
            let full = loop {
                let Some(job) = line.jobs.front() else { break false };
                let is_full = group.jobs.len() >= most.jobs
                    || (bytes + job.room.bytes() > most.bytes && !group.jobs.is_empty());
                if is_full {
                    break true;
                }
                if !Used::admit(&mut used, job) {
                    break false;
                }
                bytes += job.room.bytes();
                group.jobs.extend(line.jobs.pop_front());
            };
            if group.jobs.len() == before {
                // Only a full group takes nothing of a context.
                self.turns.push_front(key);
                break;
            }
            line.under_way = true;
            self.ready -= waited;
            group.contexts.push(key);
            if full {
                break;
            }
        }
        group
    }

    /// Lets contexts of a group that has ended go into the next ones.
    pub(super) fn release(&mut self, contexts: &[ContextKey]) {
        for key in contexts {
            let Some(line) = self.lines.get_mut(key) else {
                continue;
            };
            if line.jobs.is_empty() {
                self.lines.remove(key);
            } else {
                line.under_way = false;
                self.ready += line.jobs.len();
                self.turns.push_back(key.clone());
            }
        }
    }
}

/// What the appends of one context in a group have used.
#[derive(Debug)]
struct Used {
    tokenizer: Tokenizer,
    alone: bool,
    keys: HashSet<IdempotencyKey>,
    client_ids: HashSet<ClientId>,
}

impl Used {
    /// Whether an append is independent of those that were taken (P1); notes what it uses if so.
    fn admit(used: &mut Option<Self>, job: &Job) -> bool {
        let append = &job.append;
        let client_ids = || {
            append
                .items
                .iter()
                .filter_map(|item| item.traits.client_id.as_ref())
        };
        let key = append.idempotency.as_ref().map(|idempotency| &idempotency.key);
        let Some(used) = used else {
            *used = Some(Self {
                tokenizer: append.tokenizer,
                alone: append.expected.is_some(),
                keys: key.cloned().into_iter().collect(),
                client_ids: client_ids().cloned().collect(),
            });
            return true;
        };
        let independent = !used.alone
            && append.expected.is_none()
            && used.tokenizer == append.tokenizer
            && key.is_none_or(|key| !used.keys.contains(key))
            && client_ids().all(|id| !used.client_ids.contains(id));
        if independent {
            used.keys.extend(key.cloned());
            used.client_ids.extend(client_ids().cloned());
        }
        independent
    }
}

#[cfg(test)]
mod tests;
