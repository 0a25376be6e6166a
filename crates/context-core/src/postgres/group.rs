//! Which appends go into one commit: while one group is on its way to the disk the next gathers.
//!
//! - **P1** A group is decided by one statement, so its appends must not depend on each other: of one context, keys and
//!   client ids differ, and an append that names a version is alone. What does not fit waits for the next group, and
//!   so does everything behind it of the same context.
//! - **P2** An append waits for at most the groups before it: what waits goes first into the next one.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::sync::oneshot;

use super::append::Committed;
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
    pub(super) bytes: u64,
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
        drop(self.reply.send(outcome));
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

/// Gathers a group out of those that wait.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    jobs: Vec<Job>,
    bytes: u64,
    used: HashMap<ContextKey, Used>,
    blocked: HashSet<ContextKey>,
}

impl Gathering {
    /// Takes as many of `waiting` as fit, in order, at most `jobs_max` and `bytes_max` but at least one. The others
    /// stay, in order.
    pub(super) fn take(waiting: &mut VecDeque<Job>, jobs_max: usize, bytes_max: u64) -> Vec<Job> {
        let mut gathering = Self::default();
        let mut left = VecDeque::with_capacity(waiting.len());
        while let Some(job) = waiting.pop_front() {
            let full = gathering.jobs.len() >= jobs_max
                || (gathering.bytes + job.bytes > bytes_max && !gathering.jobs.is_empty());
            if full {
                left.push_back(job);
                break;
            }
            if gathering.fits(&job) {
                gathering.bytes += job.bytes;
                gathering.jobs.push(job);
            } else {
                gathering.blocked.insert(job.key.clone());
                left.push_back(job);
            }
        }
        left.append(waiting);
        *waiting = left;
        gathering.jobs
    }

    /// Whether a job is independent of those that were taken (P1); notes what it uses if so.
    fn fits(&mut self, job: &Job) -> bool {
        if self.blocked.contains(&job.key) {
            return false;
        }
        let append = &job.append;
        let client_ids = || {
            append
                .items
                .iter()
                .filter_map(|item| item.traits.client_id.as_ref())
        };
        let key = append.idempotency.as_ref().map(|idempotency| &idempotency.key);
        if let Some(used) = self.used.get_mut(&job.key) {
            let independent = !used.alone
                && append.expected.is_none()
                && used.tokenizer == append.tokenizer
                && key.is_none_or(|key| !used.keys.contains(key))
                && client_ids().all(|id| !used.client_ids.contains(id));
            if independent {
                used.keys.extend(key.cloned());
                used.client_ids.extend(client_ids().cloned());
            }
            return independent;
        }
        let used = Used {
            tokenizer: append.tokenizer,
            alone: append.expected.is_some(),
            keys: key.cloned().into_iter().collect(),
            client_ids: client_ids().cloned().collect(),
        };
        self.used.insert(job.key.clone(), used);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Idempotency;
    use crate::{ContextId, NewItem, TenantId};

    fn job(context: &str, body: &str, key: Option<&str>, expected: Option<u64>) -> Job {
        let item = NewItem::parse(body, 1 << 20).unwrap();
        Job {
            key: ContextKey::new(
                TenantId::parse("acme").unwrap(),
                ContextId::parse(context).unwrap(),
            ),
            append: Append {
                items: Arc::from([item]),
                tokenizer: Tokenizer::Estimate,
                expected,
                idempotency: key.map(|key| Idempotency {
                    key: IdempotencyKey::parse(key).unwrap(),
                    fingerprint: [0; 32],
                }),
            },
            now: Timestamp::from_micros(0),
            bytes: body.len() as u64,
            reply: oneshot::channel().0,
        }
    }

    fn plain(context: &str) -> Job {
        job(context, r#"{"role":"user","content":"a"}"#, None, None)
    }

    fn take(jobs: impl IntoIterator<Item = Job>) -> (Vec<String>, Vec<String>) {
        let mut waiting: VecDeque<Job> = jobs.into_iter().collect();
        let names = |job: &Job| job.key.id.to_string();
        let taken = Gathering::take(&mut waiting, 4, 1 << 20)
            .iter()
            .map(names)
            .collect();
        (taken, waiting.iter().map(names).collect())
    }

    #[test]
    fn plain_appends_of_one_context_go_together_up_to_the_limit() {
        let (taken, left) = take([
            plain("a"),
            plain("a"),
            plain("b"),
            plain("a"),
            plain("c"),
            plain("d"),
        ]);
        assert_eq!(taken, ["a", "a", "b", "a"]);
        assert_eq!(left, ["c", "d"]);
    }

    #[test]
    fn a_key_that_stands_twice_waits_and_holds_back_its_context() {
        let keyed = || job("a", r#"{"role":"user","content":"a"}"#, Some("k"), None);
        let (taken, left) = take([keyed(), keyed(), plain("a"), plain("b")]);
        assert_eq!(taken, ["a", "b"]);
        assert_eq!(left, ["a", "a"]);
    }

    #[test]
    fn a_client_id_that_stands_twice_waits() {
        let named = || {
            job(
                "a",
                r#"{"role":"user","content":"a","client_id":"m1"}"#,
                None,
                None,
            )
        };
        assert_eq!(take([named(), named()]).0.len(), 1);
    }

    #[test]
    fn an_append_that_names_a_version_is_alone() {
        let conditional = || job("a", r#"{"role":"user","content":"a"}"#, None, Some(3));
        assert_eq!(take([conditional(), plain("a")]).0.len(), 1);
        assert_eq!(take([plain("a"), conditional()]).0.len(), 1);
        assert_eq!(take([plain("b"), conditional()]).0.len(), 2);
    }

    #[test]
    fn bytes_bound_a_group_but_never_empty_it() {
        let mut waiting: VecDeque<Job> = [plain("a"), plain("b")].into();
        assert_eq!(Gathering::take(&mut waiting, 10, 1).len(), 1);
        assert_eq!(waiting.len(), 1);
    }
}
