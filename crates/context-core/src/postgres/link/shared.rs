//! A few connections that many callers use at the same time: their statements are pipelined.
//!
//! Measured, two to three times the throughput of a pool for short reads. A slow statement would hold up those
//! behind it, so nothing slow belongs here, and no transaction does.

use std::pin::pin;
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
    slots: Vec<Arc<Slot>>,
    epoch: Instant,
}

#[derive(Debug, Default)]
struct Slot {
    line: RwLock<Option<Arc<Line>>>,
    /// Held by the one who opens it.
    opening: Arc<tokio::sync::Mutex<()>>,
    closed: AtomicBool,
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

    /// Opens it, unless that has been done meanwhile. Its lock is held by whoever calls this.
    async fn fill(&self, connector: &Arc<Connector>) -> Result<Arc<Line>, Fault> {
        if let Some(line) = self.open() {
            return Ok(line);
        }
        let line = Arc::new(Line {
            link: connector.open().await?,
            in_flight: AtomicUsize::new(0),
            unanswered: AtomicU64::new(0),
        });
        if self.put(Some(line.clone())).is_some() {
            connector.counters.closed(Closed::Lost);
        }
        // After it was put: whoever closes looks in the other order.
        if self.closed.load(Ordering::SeqCst) {
            drop(self.put(None));
            return Err(Fault::closed());
        }
        Ok(line)
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
        let slots = (0..connector.settings.shared).map(|_| Arc::default()).collect();
        Self {
            connector,
            slots,
            epoch: Instant::now(),
        }
    }

    /// A turn on the connection with the least to do. If all are busy and there may be more, another one is opened
    /// meanwhile.
    ///
    /// # Errors
    /// `Busy` when every connection has `shared_in_flight` statements under way, or why none can be opened.
    pub(super) async fn turn(&self, limit: Limit) -> Result<Turn<'_>, Fault> {
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
        if let Some((load, slot, line)) = best {
            if let Some(vacant) = vacant.filter(|_| load > 0) {
                self.open_meanwhile(vacant);
            }
            return self.begin(slot, line);
        }
        let slot = vacant.ok_or_else(|| Fault::new(Kind::Internal, "there is no shared connection"))?;
        if slot.closed.load(Ordering::SeqCst) {
            return Err(Fault::closed());
        }
        let filling = pin!(async {
            let _alone = slot.opening.lock().await;
            slot.fill(&self.connector).await
        });
        let line = limit.run(Kind::Unreachable, filling).await?;
        self.begin(slot, line)
    }

    /// Nobody waits for it: they have a connection.
    fn open_meanwhile(&self, slot: &Arc<Slot>) {
        let Ok(alone) = slot.opening.clone().try_lock_owned() else {
            return;
        };
        let (slot, connector) = (slot.clone(), self.connector.clone());
        tokio::spawn(async move {
            if let Err(error) = slot.fill(&connector).await {
                tracing::debug!(%error, "another shared connection was not opened");
            }
            drop(alone);
        });
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
        let _earlier = line
            .unanswered
            .compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed);
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
        for slot in &self.slots {
            slot.closed.store(true, Ordering::SeqCst);
        }
        self.drop_all(Closed::Shutdown);
    }

    pub(super) fn fill(&self, status: &mut PoolStatus) {
        for line in self.slots.iter().filter_map(|slot| slot.open()) {
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
