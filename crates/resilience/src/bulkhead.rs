//! The bulkhead: so many calls at once, so many waiting, and no more.
//!
//! Invariants:
//!
//! - **B1** slots out plus slots free is the limit, always
//! - **B2** nobody waits while a slot is free
//! - **B3** a slot given to a waiter who has gone is given on
//! - **B4** at most `max_queue` wait

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::{Rejected, Why};
use crate::name::Name;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Whom a free slot goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Queue {
    /// The one who has waited longest.
    #[default]
    Fifo,
    /// The one who came last: under overload, the one whose caller is most likely still there.
    Lifo,
}

/// A limit on concurrent calls with a bounded queue. Clones share the slots.
#[derive(Clone)]
pub struct Bulkhead(Arc<Core>);

pub(crate) struct Core {
    name: Name,
    limit: u32,
    max_queue: u32,
    order: Queue,
    /// `waiting 32 | free 32`. B2: one of the two is zero.
    counts: AtomicU64,
    waiters: Mutex<VecDeque<Arc<Waiter>>>,
}

/// One who waits. `place` changes only under the queue's lock.
struct Waiter {
    place: Mutex<Place>,
}

enum Place {
    Waiting(Option<Waker>),
    Granted,
}

const WAITING: u64 = 1 << 32;
const FREE_MASK: u64 = WAITING - 1;

impl Bulkhead {
    /// `limit` slots (at least one) and room for `max_queue` waiters.
    pub fn new(name: impl Into<Name>, limit: u32, max_queue: u32) -> Self {
        Self::with_order(name, limit, max_queue, Queue::Fifo)
    }

    /// The same, with a say in who is next.
    pub fn with_order(name: impl Into<Name>, limit: u32, max_queue: u32, order: Queue) -> Self {
        let limit = limit.max(1);
        Self(Arc::new(Core {
            name: name.into(),
            limit,
            max_queue,
            order,
            counts: AtomicU64::new(limit.into()),
            waiters: Mutex::new(VecDeque::new()),
        }))
    }

    /// A slot, if one is free now.
    ///
    /// # Errors
    /// [`Why::BulkheadFull`].
    pub fn try_acquire(&self) -> Result<Slot, Rejected> {
        if self.0.take_free() {
            Ok(Slot(Taken(Arc::clone(&self.0))))
        } else {
            Err(self.0.full())
        }
    }

    /// A slot that borrows the bulkhead, if one is free now: [`Self::try_acquire`] without counting
    /// references.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn lend(&self) -> Option<Lent<'_>> {
        self.0.take_free().then(|| Taken(&*self.0))
    }

    /// A slot, waiting for one in the queue if need be.
    ///
    /// # Errors
    /// [`Why::BulkheadFull`] when the queue is full as well.
    ///
    /// # Cancellation
    /// Dropping the future leaves the queue; a slot that was already on its way goes to the next.
    pub fn acquire(&self) -> Acquire {
        Acquire {
            core: Arc::clone(&self.0),
            state: Progress::New,
        }
    }

    /// A slot, waiting in the queue for at most `limit`.
    ///
    /// # Errors
    /// [`Why::BulkheadFull`], or [`Why::QueueTimeout`] when the wait was in vain.
    ///
    /// # Cancellation
    /// As [`Self::acquire`].
    #[cfg(feature = "tokio")]
    pub async fn acquire_within(&self, limit: Option<std::time::Duration>) -> Result<Slot, Rejected> {
        match crate::timer::within(|| limit, std::pin::pin!(self.acquire()), std::pin::pin!(None)).await {
            Some(slot) => slot,
            None => Err(Rejected::new(self.0.name.clone(), Why::QueueTimeout, None)),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    #[cfg(all(feature = "tokio", feature = "tower"))]
    pub(crate) fn name_to_share(&self) -> Name {
        self.0.name.clone()
    }

    /// How many slots there are.
    pub fn limit(&self) -> u32 {
        self.0.limit
    }

    /// How many are taken.
    pub fn in_use(&self) -> u32 {
        let free = self.0.counts.load(Ordering::Relaxed) & FREE_MASK;
        self.0.limit - u32::try_from(free).unwrap_or(self.0.limit)
    }

    /// How many callers wait.
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.0.counts.load(Ordering::Relaxed) >> 32).unwrap_or(u32::MAX)
    }

    /// Whether [`Self::acquire`] may wait.
    pub fn has_queue(&self) -> bool {
        self.0.max_queue > 0
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.0.name)
            .field("in_use", &self.in_use())
            .field("limit", &self.0.limit)
            .field("waiting", &self.waiting())
            .finish()
    }
}

impl Core {
    fn full(&self) -> Rejected {
        Rejected::new(self.name.clone(), Why::BulkheadFull, None)
    }

    fn take_free(&self) -> bool {
        self.update(|counts| (counts & FREE_MASK > 0).then(|| counts - 1))
    }

    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        let mut seen = self.counts.load(Ordering::Acquire);
        while let Some(next) = change(seen) {
            match self
                .counts
                .compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Gives a slot back: to a waiter if there is one.
    fn release(&self) {
        // A waiter registers in the same word, so a slot cannot be freed past one.
        if self.update(|counts| (counts < WAITING).then(|| counts + 1)) {
            return;
        }
        let mut waiters = lock(&self.waiters);
        let next = match self.order {
            Queue::Fifo => waiters.pop_front(),
            Queue::Lifo => waiters.pop_back(),
        };
        let Some(waiter) = next else {
            // The last waiter left between the word and the lock.
            self.update(|counts| Some(counts + 1));
            return;
        };
        self.update(|counts| Some(counts - WAITING));
        let before = std::mem::replace(&mut *lock(&waiter.place), Place::Granted);
        drop(waiters);
        if let Place::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Joins the queue, or takes a slot that came free meanwhile (`Ok(None)`).
    fn enqueue(&self, waker: &Waker) -> Result<Option<Arc<Waiter>>, Rejected> {
        let mut waiters = lock(&self.waiters);
        loop {
            if self.take_free() {
                return Ok(None);
            }
            if waiters.len() >= self.max_queue as usize {
                return Err(self.full());
            }
            if self.update(|counts| (counts & FREE_MASK == 0).then(|| counts + WAITING)) {
                let waiter = Arc::new(Waiter {
                    place: Mutex::new(Place::Waiting(Some(waker.clone()))),
                });
                waiters.push_back(Arc::clone(&waiter));
                return Ok(Some(waiter));
            }
        }
    }

    /// Leaves the queue. B3: a slot that was granted meanwhile is given on.
    fn leave(&self, waiter: &Arc<Waiter>) {
        let mut waiters = lock(&self.waiters);
        let index = waiters.iter().position(|each| Arc::ptr_eq(each, waiter));
        if let Some(index) = index {
            waiters.remove(index);
            self.update(|counts| Some(counts - WAITING));
            return;
        }
        drop(waiters);
        self.release();
    }
}

/// A taken slot. Dropping it gives it back.
#[must_use = "dropping a slot gives it back"]
pub struct Slot(Taken<Arc<Core>>);

/// The slot itself, of a bulkhead that is shared or merely borrowed.
pub(crate) struct Taken<C: Deref<Target = Core>>(C);

/// A slot that borrows its bulkhead.
#[cfg(feature = "tokio")]
pub(crate) type Lent<'a> = Taken<&'a Core>;

impl<C: Deref<Target = Core>> Drop for Taken<C> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.0.0.name).finish()
    }
}

/// Waits for a slot: see [`Bulkhead::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    core: Arc<Core>,
    state: Progress,
}

enum Progress {
    New,
    Queued(Arc<Waiter>),
    Done,
}

impl Future for Acquire {
    type Output = Result<Slot, Rejected>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match &this.state {
            Progress::New if this.core.take_free() => {}
            Progress::New => match this.core.enqueue(context.waker()) {
                Ok(None) => {}
                Ok(Some(waiter)) => {
                    this.state = Progress::Queued(waiter);
                    return Poll::Pending;
                }
                Err(rejected) => {
                    this.state = Progress::Done;
                    return Poll::Ready(Err(rejected));
                }
            },
            Progress::Queued(waiter) => match &mut *lock(&waiter.place) {
                Place::Granted => {}
                Place::Waiting(waker) => {
                    if !waker
                        .as_ref()
                        .is_some_and(|waker| waker.will_wake(context.waker()))
                    {
                        *waker = Some(context.waker().clone());
                    }
                    return Poll::Pending;
                }
            },
            Progress::Done => return Poll::Pending,
        }
        this.state = Progress::Done;
        Poll::Ready(Ok(Slot(Taken(Arc::clone(&this.core)))))
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let Progress::Queued(waiter) = &self.state {
            self.core.leave(waiter);
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acquire").field(&self.core.name).finish()
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
