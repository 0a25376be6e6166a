//! Summaries that nobody waits for: a model's, and extractive ones of more than a read may take upon itself.
//!
//! - **B1** Nobody waits for this: a wish is noted or not, at once. What does not come off is done when it is wished again.
//! - **B2** At most [`ModelLimits::max_concurrent`] contexts are worked on, at most [`ModelLimits::queue`] wait, tenants
//!   take turns ([`queue`], Q1 to Q5).
//! - **B3** A model is asked once for a wish: with its own or the client's last summary of the beginning of the range and
//!   what was said since, as much of it as [`ModelLimits::max_input_tokens`] has room for, from the end; of what lies
//!   between the two an extractive summary stands for it.
//! - **B4** What is made is kept beside what others made, never over it: the first of a kind and range stays, a client's
//!   is a kind of its own and preferred. It is not kept if the context's stream is another one by then.

mod queue;
#[cfg(test)]
mod tests;
mod work;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::queue::{Pushed, Queue};
use self::work::Outcome;
use crate::id::ContextKey;
use crate::session::{Consistency, Session, Token};
use crate::store::{ContextStore, SeqRange};
use crate::summary::{ModelLimits, Summariser};

/// What is done without a model: little, and quick.
const WITHOUT_MODEL: ModelLimits = ModelLimits {
    max_input_tokens: ModelLimits::INPUT_TOKENS_MIN,
    max_output_tokens: 0,
    max_concurrent: 1,
    queue: 256,
    rest: Duration::from_mins(1),
};

/// Makes summaries beside the requests that want them: asked for, and not waited for. Its clones are one.
#[derive(Clone, Debug)]
pub struct BackgroundSummaries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ContextStore>,
    model: Option<Arc<dyn Summariser>>,
    limits: ModelLimits,
    queue: Mutex<Queue>,
    tasks: Mutex<JoinSet<()>>,
    running: watch::Sender<usize>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    kept: AtomicU64,
    needless: AtomicU64,
    outdated: AtomicU64,
    not_asked: AtomicU64,
    failed: AtomicU64,
    unusable: AtomicU64,
    store_failed: AtomicU64,
    shed: AtomicU64,
}

/// What became of wishes since the start, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackgroundCounts {
    /// Made and kept.
    pub kept: u64,
    /// Somebody else had made it, or there was nothing to say.
    pub needless: u64,
    /// Made, and not kept: the context was truncated, replaced or deleted meanwhile.
    pub outdated: u64,
    /// The model was not asked: it is known to be down, or has too much to do.
    pub not_asked: u64,
    /// The model did not answer.
    pub failed: u64,
    /// The model answered something that is no summary.
    pub unusable: u64,
    /// The store did not do its part.
    pub store_failed: u64,
    /// Not taken on, or given up for another tenant's, because too many waited.
    pub shed: u64,
    /// Contexts that wait.
    pub waiting: usize,
    /// Contexts that are worked on.
    pub running: usize,
}

impl BackgroundSummaries {
    /// With a model, within these limits.
    pub fn with_model(store: Arc<dyn ContextStore>, model: Arc<dyn Summariser>, limits: ModelLimits) -> Self {
        Self::new(store, Some(model), limits)
    }

    /// Without one: only what a read would take too long for is made.
    pub fn without_model(store: Arc<dyn ContextStore>) -> Self {
        Self::new(store, None, WITHOUT_MODEL)
    }

    fn new(store: Arc<dyn ContextStore>, model: Option<Arc<dyn Summariser>>, limits: ModelLimits) -> Self {
        Self(Arc::new(Inner {
            store,
            model,
            queue: Mutex::new(Queue::new(limits.queue.max(1))),
            limits,
            tasks: Mutex::default(),
            running: watch::Sender::new(0),
            counts: Counts::default(),
        }))
    }

    /// Has the model write a summary of this range, if there is a model.
    pub(crate) fn improve(&self, key: &ContextKey, range: SeqRange) {
        if self.0.model.is_some() {
            self.make(key, range);
        }
    }

    /// Has a summary of this range made, by the model if there is one (B1). Has to be called on a runtime.
    pub(crate) fn make(&self, key: &ContextKey, range: SeqRange) {
        let pushed = self.0.queue().push(key, range, Instant::now());
        match pushed {
            Pushed::Waits => self.0.start(),
            Pushed::Displaces => {
                add(&self.0.counts.shed);
                self.0.start();
            }
            Pushed::Refused => add(&self.0.counts.shed),
            Pushed::Joins | Pushed::Rests => {}
        }
    }

    /// What became of wishes.
    pub fn counts(&self) -> BackgroundCounts {
        let counts = &self.0.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BackgroundCounts {
            kept: get(&counts.kept),
            needless: get(&counts.needless),
            outdated: get(&counts.outdated),
            not_asked: get(&counts.not_asked),
            failed: get(&counts.failed),
            unusable: get(&counts.unusable),
            store_failed: get(&counts.store_failed),
            shed: get(&counts.shed),
            waiting: self.0.queue().waiting(),
            running: *self.0.running.borrow(),
        }
    }

    /// Waits until nothing is worked on and nobody waits.
    pub async fn settled(&self) {
        let mut running = self.0.running.subscribe();
        // The sender lives as long as `self`, so the wait ends only by reaching zero. A worker ends when nobody waits.
        drop(running.wait_for(|running| *running == 0).await);
    }

    /// Takes nothing more on, gives up what waits, and lets what is worked on go on for so long at most. A summary is kept
    /// whole or not at all, so that what is broken off is only to be made again.
    pub async fn close(&self, grace: Duration) {
        self.0.queue().close();
        if tokio::time::timeout(grace, self.settled()).await.is_err() {
            tracing::info!("a summary was under way and is given up");
        }
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Says that a worker has ended, even if it was dropped or panicked.
struct Worker(Arc<Inner>);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl Worker {
    async fn work(self) {
        let inner = self.0.clone();
        loop {
            let next = {
                let mut queue = inner.queue();
                let next = queue.next();
                if next.is_none() {
                    // Before anybody else looks at the queue: who wishes from now on starts another worker.
                    drop(self);
                    return;
                }
                next
            };
            let Some((key, range)) = next else { return };
            let mut turn = Turn {
                inner: &inner,
                key: &key,
                // Of a task that is dropped or panics.
                rest: inner.limits.rest,
            };
            // What is made is made of what is there now, not of an old copy.
            let session = Session::new(Consistency::Strong, Token::default());
            let outcome = session.scope(inner.summarise(&key, range)).await;
            if inner.note(&outcome) {
                turn.rest = Duration::ZERO;
            }
        }
    }
}

/// Says that a context is not worked on any more, likewise.
struct Turn<'inner> {
    inner: &'inner Inner,
    key: &'inner ContextKey,
    rest: Duration,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let rest = (!self.rest.is_zero()).then(|| now + self.rest);
        self.inner.queue().done(self.key, rest, now);
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a worker, unless there are as many as there may be.
    fn start(self: &Arc<Self>) {
        let mut started = false;
        self.running.send_modify(|running| {
            started = *running < self.limits.max_concurrent.max(1);
            *running += usize::from(started);
        });
        if !started {
            return;
        }
        let worker = Worker(self.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(worker.work());
    }

    /// Counts an outcome; whether it was a good one.
    fn note(&self, outcome: &Outcome) -> bool {
        let counts = &self.counts;
        match outcome {
            Outcome::Kept => add(&counts.kept),
            Outcome::Needless => add(&counts.needless),
            Outcome::Outdated => add(&counts.outdated),
            Outcome::NoModel(fault) => {
                tracing::debug!(reason = fault.as_str(), error = %fault, "no summary by the model; the extractive one stands");
                add(match fault {
                    crate::summary::Fault::NotAsked(_) => &counts.not_asked,
                    crate::summary::Fault::Failed(_) => &counts.failed,
                    crate::summary::Fault::Unusable(_) => &counts.unusable,
                });
                return false;
            }
            Outcome::NoStore(error) => {
                tracing::debug!(%error, "a summary was not made in the background");
                add(&counts.store_failed);
                return false;
            }
        }
        true
    }
}
