//! When the next group is sent. A group costs the database about as much whether it has ten appends or thirty, so under
//! load one large group after another is cheaper than two small ones at a time.
//!
//! - **P7** A group that would be small lets those under way end first, and gathers meanwhile; but one that has taken
//!   [`WAIT_MAX`] holds nobody up any more. [`ENOUGH`] appends wait for nobody, and with fewer writers than [`MANY`]
//!   nobody waits at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::group::{Group, GroupMax, Job, Queue};
use crate::id::ContextKey;

/// From so many appends on that are not answered it pays to wait. Not the size of the group under way decides: a small one
/// would be followed by small ones.
const MANY: u64 = 16;
/// A group of so many is worth a commit at the same time as another one.
const ENOUGH: usize = 32;
/// How long a group may hold up others.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// What all lanes share. A lane is a task that commits one group after the other; there are none while nothing waits.
#[derive(Debug)]
pub(super) struct Lanes<C> {
    pub(super) committer: C,
    pub(super) unanswered: Arc<Waiting>,
    state: Mutex<State>,
    at_once: usize,
    group_max: GroupMax,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    under_way: usize,
    /// Those of them that others wait for.
    awaited: usize,
}

/// What waits for its commit or is under way. Counted for as long as its [`Room`]s exist.
#[derive(Debug, Default)]
pub(in super::super) struct Waiting {
    jobs: AtomicU64,
    bytes: AtomicU64,
}

/// The place that one append takes.
#[derive(Debug)]
pub(in super::super) struct Room {
    waiting: Arc<Waiting>,
    bytes: u64,
}

/// Commits groups.
pub(super) trait Commit: Send + Sync + 'static {
    /// Commits a group and answers every append of it.
    fn commit(&self, jobs: Vec<Job>) -> impl Future<Output = ()> + Send;
}

impl<C: Commit> Lanes<C> {
    pub(super) fn new(committer: C, at_once: usize, group_max: GroupMax) -> Arc<Self> {
        Arc::new(Self {
            committer,
            unanswered: Arc::default(),
            state: Mutex::default(),
            at_once: at_once.max(1),
            group_max,
        })
    }

    /// Puts appends into the queue. What comes as one goes as one group, if it is sent at once.
    pub(super) fn enqueue(self: &Arc<Self>, jobs: impl IntoIterator<Item = Job>) {
        let mut state = self.lock();
        for job in jobs {
            state.queue.push(job);
        }
        self.start_next(state);
    }

    /// Starts a lane if a group is to be sent now.
    fn start_next(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let group = self.next(&mut state);
        drop(state);
        if let Some(group) = group {
            // Made here, so that a task that is never run lets go of it as well.
            let under_way = UnderWay::new(self.clone(), group.contexts);
            tokio::spawn(run(under_way, group.jobs));
        }
    }

    /// P7: the group that is to be sent now. Counts it as under way.
    fn next(&self, state: &mut State) -> Option<Group> {
        let ready = state.queue.ready();
        if ready == 0 || state.under_way >= self.at_once {
            return None;
        }
        if state.awaited > 0 && ready < ENOUGH && self.unanswered.jobs() >= MANY {
            return None;
        }
        let group = state.queue.take(self.group_max);
        state.under_way += 1;
        state.awaited += 1;
        Some(group)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Commits this group and those after it, until nothing is to be sent.
async fn run<C: Commit>(mut under_way: UnderWay<C>, mut jobs: Vec<Job>) {
    loop {
        let lanes = under_way.lanes.clone();
        let mut commit = std::pin::pin!(lanes.committer.commit(jobs));
        if tokio::time::timeout(WAIT_MAX, commit.as_mut()).await.is_err() {
            under_way.let_others_pass();
            commit.await;
        }
        match under_way.end() {
            Some(next) => {
                under_way = UnderWay::new(lanes.clone(), next.contexts);
                jobs = next.jobs;
            }
            None => return,
        }
    }
}

/// A group under way. Dropped unended, because its lane was, it lets go of its contexts all the same.
struct UnderWay<C: Commit> {
    lanes: Arc<Lanes<C>>,
    contexts: Vec<ContextKey>,
    is_awaited: bool,
    has_ended: bool,
}

impl<C: Commit> UnderWay<C> {
    /// Of a group that is counted already.
    fn new(lanes: Arc<Lanes<C>>, contexts: Vec<ContextKey>) -> Self {
        Self {
            lanes,
            contexts,
            is_awaited: true,
            has_ended: false,
        }
    }

    /// Nobody waits for this group any more.
    fn let_others_pass(&mut self) {
        let mut state = self.lanes.lock();
        state.awaited -= 1;
        self.is_awaited = false;
        self.lanes.start_next(state);
    }

    /// Lets go of its contexts; answers what its lane is to commit next.
    fn end(mut self) -> Option<Group> {
        self.has_ended = true;
        let mut state = self.lanes.lock();
        self.release(&mut state);
        self.lanes.next(&mut state)
    }

    fn release(&self, state: &mut State) {
        state.queue.release(&self.contexts);
        state.under_way -= 1;
        state.awaited -= usize::from(self.is_awaited);
    }
}

impl<C: Commit> Drop for UnderWay<C> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut state = self.lanes.lock();
        self.release(&mut state);
        // Otherwise its runtime ends; who comes next, on another one, starts a lane there.
        if std::thread::panicking() {
            self.lanes.start_next(state);
        }
    }
}

impl Waiting {
    /// Appends that are not answered.
    pub(super) fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Room for one append, unless so many or so many bytes wait already.
    pub(super) fn admit(self: &Arc<Self>, bytes: u64, jobs_max: u64, bytes_max: u64) -> Option<Room> {
        let room = Room::of(self, bytes);
        // Both are counted before either decides; dropping the room takes it off both again.
        let before = (self.jobs() - 1, self.bytes.load(Ordering::Relaxed) - bytes);
        (before.0 < jobs_max && before.1 < bytes_max).then_some(room)
    }
}

impl Room {
    /// Room that nobody refuses.
    pub(in super::super) fn of(waiting: &Arc<Waiting>, bytes: u64) -> Self {
        waiting.jobs.fetch_add(1, Ordering::Relaxed);
        waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self {
            waiting: waiting.clone(),
            bytes,
        }
    }

    /// Bytes of the item bodies.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.jobs.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
