//! Contexts that truncate themselves: after an append was acknowledged, beside it and never in its way.
//!
//! - **U1** An append neither waits for a truncation nor fails with it. What did not come off is tried after the next one.
//! - **U2** One context is truncated by one task at a time; an append meanwhile has it look once more.
//! - **U3** At most [`RUNNING_MAX`] truncations run and [`MARKS_MAX`] contexts are remembered; beyond that an append does
//!   nothing here.
//! - **U4** A context whose truncation failed has a rest of [`REST`]: what must stay may be over the budget for good. One
//!   that others changed each time has none: the next append tries again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::StandardContextManager;
use super::truncating::Wish;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::session::{Consistency, Session, Token};
use crate::truncate::AutoTruncation;

/// Truncations at the same time; each may hold a whole context.
const RUNNING_MAX: usize = 4;
/// Contexts that are remembered.
const MARKS_MAX: usize = 1024;
/// How long a context is left alone after a failure.
const REST: Duration = Duration::from_mins(1);
/// How often a truncation is tried when others change the context meanwhile.
const TRIES: usize = 5;

/// Which contexts are being truncated, and which have a rest.
#[derive(Debug)]
pub(super) struct Automatic {
    marks: Mutex<HashMap<ContextKey, Mark>>,
    permits: Semaphore,
    running: watch::Sender<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// A task is at it; whether it has to look once more.
    Running { again: bool },
    /// It failed.
    Rests { until: Instant },
}

impl Automatic {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            marks: Mutex::default(),
            permits: Semaphore::new(RUNNING_MAX),
            running: watch::Sender::new(0),
        })
    }

    /// Whether a task has to be started for this context.
    fn begins(&self, key: &ContextKey, now: Instant) -> bool {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        match marks.get_mut(key) {
            Some(Mark::Running { again }) => {
                *again = true;
                return false;
            }
            Some(Mark::Rests { until }) if *until > now => return false,
            _ => {}
        }
        if marks.len() >= MARKS_MAX {
            marks.retain(|_, mark| !matches!(mark, Mark::Rests { until } if *until <= now));
        }
        if marks.len() >= MARKS_MAX && !marks.contains_key(key) {
            return false;
        }
        marks.insert(key.clone(), Mark::Running { again: false });
        self.running.send_modify(|running| *running += 1);
        true
    }

    /// Whether the task is done; if not, it has to look once more.
    fn ends(&self, key: &ContextKey, came_off: bool, now: Instant) -> bool {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if !came_off {
            let until = now + REST;
            marks.insert(key.clone(), Mark::Rests { until });
        } else if marks.get(key) == Some(&Mark::Running { again: true }) {
            marks.insert(key.clone(), Mark::Running { again: false });
            return false;
        } else {
            marks.remove(key);
        }
        true
    }
}

/// Says that a task has ended, even if it was dropped or panicked.
struct Task {
    automatic: Arc<Automatic>,
    key: ContextKey,
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut marks = self
            .automatic
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if matches!(marks.get(&self.key), Some(Mark::Running { .. })) {
            marks.remove(&self.key);
        }
        drop(marks);
        self.automatic.running.send_modify(|running| *running -= 1);
    }
}

impl StandardContextManager {
    /// Waits until no context is being truncated by itself.
    pub async fn settled(&self) {
        let mut running = self.automatic.running.subscribe();
        // The sender lives as long as `self`, so the wait ends only by reaching zero.
        drop(running.wait_for(|running| *running == 0).await);
    }

    /// Looks after a context that an append has left over its budget (U1).
    pub(super) fn is_over_budget(&self, key: &ContextKey) {
        if !self.automatic.begins(key, Instant::now()) {
            return;
        }
        let task = Task {
            automatic: self.automatic.clone(),
            key: key.clone(),
        };
        let manager = self.clone();
        tokio::spawn(async move {
            let Task { automatic, key } = &task;
            // The semaphore is never closed.
            let Ok(_permit) = automatic.permits.acquire().await else {
                return;
            };
            loop {
                // What is dropped is chosen by reading; an old copy would choose for a version that is gone.
                let session = Session::new(Consistency::Strong, Token::default());
                let outcome = session.scope(manager.truncate_by_itself(key)).await;
                if let Err(error) = &outcome {
                    tracing::debug!(%error, "a context over its budget was not truncated; a later append tries again");
                }
                // A race that was lost says nothing of the next one.
                let lost = matches!(outcome, Err(Error::VersionMismatch { .. }));
                if automatic.ends(key, lost || outcome.is_ok(), Instant::now()) {
                    return;
                }
            }
        });
    }

    /// Truncates a context that is over its budget and wants that.
    async fn truncate_by_itself(&self, key: &ContextKey) -> Result<()> {
        let mut tries = 0;
        loop {
            let context = self.store.head(key).await?;
            let AutoTruncation::By(strategy) = context.truncation else {
                return Ok(());
            };
            if !context.over_budget() {
                return Ok(());
            }
            let target = AutoTruncation::target(context.max_tokens);
            let mut plan = self.choose(key, &context, target, strategy, Wish::LastSaid).await;
            if matches!(plan, Err(Error::BudgetTooSmall { .. })) {
                // What must stay is nearly all of the budget; the rest may go.
                plan = self
                    .choose(key, &context, context.max_tokens, strategy, Wish::LastSaid)
                    .await;
            }
            let done = match plan {
                Ok((plan, version)) => self.store.rewrite(key, plan.keep, Some(version)).await,
                Err(error) => Err(error),
            };
            tries += 1;
            match done {
                Err(Error::VersionMismatch { .. }) if tries < TRIES => {}
                outcome => return outcome.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextId, TenantId};

    fn key(id: &str) -> ContextKey {
        ContextKey::new(TenantId::parse("acme").unwrap(), ContextId::parse(id).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_context_has_one_task_that_looks_again_and_rests_after_a_failure() {
        let automatic = Automatic::new();
        let now = Instant::now();
        assert!(automatic.begins(&key("a"), now));
        assert!(!automatic.begins(&key("a"), now), "one at a time (U2)");
        assert!(!automatic.ends(&key("a"), true, now), "an append came meanwhile");
        assert!(automatic.ends(&key("a"), true, now));
        assert!(automatic.begins(&key("a"), now));
        assert!(automatic.ends(&key("a"), false, now));
        assert!(!automatic.begins(&key("a"), now), "it rests (U4)");
        assert!(automatic.begins(&key("a"), now + REST));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_remembered_and_rests_make_room() {
        let automatic = Automatic::new();
        let now = Instant::now();
        for n in 0..MARKS_MAX {
            assert!(automatic.begins(&key(&n.to_string()), now));
        }
        assert!(!automatic.begins(&key("one-more"), now), "U3");
        assert!(automatic.ends(&key("7"), false, now));
        assert!(!automatic.begins(&key("one-more"), now));
        assert!(automatic.begins(&key("one-more"), now + REST));
    }
}
