//! A few connections that many callers use at the same time: their statements are pipelined.
//!
//! Measured, two to three times the throughput of a pool for short reads. A slow statement would hold up those
//! behind it, so nothing slow belongs here, and no transaction does.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Connector;
use super::fault::{Fault, Kind};
use super::limit::Limit;
use super::status::{Closed, PoolStatus};
use super::wire::Link;

/// A connection on which nothing was answered for so long, although something was asked, is taken for dead.
const STALL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Shared {
    connector: Arc<Connector>,
    slots: Vec<Slot>,
    epoch: Instant,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    line: RwLock<Option<Arc<Line>>>,
    /// Held by the one who opens it.
    opening: tokio::sync::Mutex<()>,
}

/// A connection and what is under way on it.
#[derive(Debug)]
struct Line {
    link: Link,
    in_flight: AtomicUsize,
    /// When the first statement was sent after the last answer, in milliseconds since the epoch; 0: all answered.
    unanswered: AtomicU64,
}

impl Slot {
    fn open(&self) -> Option<Arc<Line>> {
        let line = self.line.read().unwrap_or_else(PoisonError::into_inner).clone();
        line.filter(|line| !line.link.is_closed())
    }

    fn put(&self, line: Option<Arc<Line>>) -> Option<Arc<Line>> {
        std::mem::replace(
            &mut *self.line.write().unwrap_or_else(PoisonError::into_inner),
            line,
        )
    }

    /// Empties the slot if it still holds this connection.
    fn drop_if(&self, line: &Arc<Line>) -> bool {
        let mut held = self.line.write().unwrap_or_else(PoisonError::into_inner);
        let same = held.as_ref().is_some_and(|held| Arc::ptr_eq(held, line));
        if same {
            *held = None;
        }
        same
    }
}

/// The right to send statements on a connection; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    shared: &'a Shared,
    slot: &'a Slot,
    line: Arc<Line>,
}

impl Shared {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        let slots = (0..connector.settings.shared).map(|_| Slot::default()).collect();
        Self {
            connector,
            slots,
            epoch: Instant::now(),
            closed: AtomicBool::new(false),
        }
    }

    /// A turn on the connection with the least to do; opens another one if all are busy and there may be more.
    ///
    /// # Errors
    /// `Busy` when every connection has `shared_in_flight` statements under way, or why none can be opened.
    pub(super) async fn turn(&self, limit: Limit) -> Result<Turn<'_>, Fault> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Fault::closed());
        }
        let mut best: Option<(usize, &Slot, Arc<Line>)> = None;
        let mut vacant = None;
        for slot in &self.slots {
            match slot.open() {
                None => vacant = vacant.or(Some(slot)),
                Some(line) => {
                    let load = line.in_flight.load(Ordering::Relaxed);
                    if best.as_ref().is_none_or(|(least, ..)| load < *least) {
                        best = Some((load, slot, line));
                    }
                }
            }
        }
        match (best, vacant) {
            (Some((load, slot, line)), Some(vacant)) if load > 0 => {
                // Somebody else opening it, or nobody being able to, is no reason to wait.
                let opened = match vacant.opening.try_lock() {
                    Ok(alone) => limit
                        .run(Kind::Unreachable, self.fill_slot(vacant, alone))
                        .await
                        .ok(),
                    Err(_) => None,
                };
                let (slot, line) = opened.map_or((slot, line), |line| (vacant, line));
                self.begin(slot, line)
            }
            (Some((_, slot, line)), _) => self.begin(slot, line),
            (None, vacant) => {
                let vacant =
                    vacant.ok_or_else(|| Fault::new(Kind::Internal, "there is no shared connection"))?;
                let line = limit
                    .run(Kind::Unreachable, async {
                        let alone = vacant.opening.lock().await;
                        self.fill_slot(vacant, alone).await
                    })
                    .await?;
                self.begin(vacant, line)
            }
        }
    }

    async fn fill_slot(
        &self,
        slot: &Slot,
        alone: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Arc<Line>, Fault> {
        if let Some(line) = slot.open() {
            return Ok(line);
        }
        let line = Arc::new(Line {
            link: self.connector.open().await?,
            in_flight: AtomicUsize::new(0),
            unanswered: AtomicU64::new(0),
        });
        if slot.put(Some(line.clone())).is_some() {
            self.connector.counters.closed(Closed::Lost);
        }
        drop(alone);
        Ok(line)
    }

    fn begin<'a>(&'a self, slot: &'a Slot, line: Arc<Line>) -> Result<Turn<'a>, Fault> {
        let most = self.connector.settings.shared_in_flight;
        let reserve = |now: usize| (now < most).then_some(now + 1);
        if line
            .in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, reserve)
            .is_err()
        {
            self.connector.counters.shed.fetch_add(1, Ordering::Relaxed);
            return Err(Fault::new(
                Kind::Busy,
                "each shared connection has context_manager.database.shared_in_flight statements under way",
            ));
        }
        // Never 0, which means that everything is answered.
        let now = self.now().max(1);
        let first = |since: u64| (since == 0).then_some(now);
        drop(
            line.unanswered
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, first),
        );
        Ok(Turn {
            shared: self,
            slot,
            line,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Retires what is closed, too old or unused for too long. What is under way on it still ends.
    pub(super) fn maintain(&self) {
        for slot in &self.slots {
            let Some(line) = slot.line.read().unwrap_or_else(PoisonError::into_inner).clone() else {
                continue;
            };
            let unused = line.in_flight.load(Ordering::Relaxed) == 0;
            let idle_time = self.connector.settings.idle_time;
            let reason = if line.link.is_closed() {
                Closed::Lost
            } else if line.link.is_expired() {
                Closed::Lifetime
            } else if unused && idle_time.is_some_and(|limit| line.link.idle_for() > limit) {
                Closed::IdleTime
            } else {
                continue;
            };
            if slot.drop_if(&line) {
                self.connector.counters.closed(reason);
            }
        }
    }

    /// Lets go of all connections. What is under way on them still ends.
    pub(super) fn drop_all(&self, reason: Closed) {
        for slot in &self.slots {
            if slot.put(None).is_some() {
                self.connector.counters.closed(reason);
            }
        }
    }

    /// Refuses new callers, and lets go of all connections.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.drop_all(Closed::Shutdown);
    }

    pub(super) fn fill(&self, status: &mut PoolStatus) {
        for line in self.slots.iter().filter_map(Slot::open) {
            status.shared += 1;
            status.shared_in_flight += line.in_flight.load(Ordering::Relaxed);
        }
    }
}

impl Turn<'_> {
    pub(super) fn link(&self) -> &Link {
        &self.line.link
    }

    /// Says how it went; lets go of a connection that is of no use any more.
    pub(super) fn settle<T>(self, result: &Result<T, Fault>) {
        let reason = match result.as_ref().map_err(Fault::kind) {
            Err(Kind::Lost) => Some(Closed::Lost),
            // The whole time that a statement may take, and the server did not end it.
            Err(Kind::TimedOut) => Some(Closed::Abandoned),
            Err(Kind::Deadline) if self.is_stalled() => Some(Closed::Abandoned),
            Err(Kind::Deadline) => return,
            // The server is known to have spoken.
            _ => None,
        };
        let Some(reason) = reason else {
            self.line.unanswered.store(0, Ordering::Release);
            return;
        };
        if self.slot.drop_if(&self.line) {
            self.shared.connector.counters.closed(reason);
            if reason == Closed::Abandoned {
                self.line.link.cancel();
            }
        }
    }

    /// Whether nothing was answered for a while. One short deadline is no reason to cut off everybody else.
    fn is_stalled(&self) -> bool {
        let since = self.line.unanswered.load(Ordering::Acquire);
        since != 0 && Duration::from_millis(self.shared.now().saturating_sub(since)) >= STALL
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.line.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.line.link.rest();
    }
}
