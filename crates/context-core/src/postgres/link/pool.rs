//! The pool of connections that are used by one caller at a time.
//!
//! What each key does here:
//!
//! | key | by |
//! |---|---|
//! | `max_open_conns` | the pool's size, after the shared connections and the health check's |
//! | `pool_timeout` | the wait for a place |
//! | `max_idle_conns` | maintenance closes the surplus, those unused longest first; the last given back is the first taken, so that a surplus shows |
//! | `conn_max_lifetime` | at checkout and by maintenance, ±10 % drawn for each connection |
//! | `conn_max_idle_time` | at checkout and by maintenance, counted from when it was given back |

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use tokio::time::Instant;

use super::connect::Connector;
use super::fault::{Fault, Kind};
use super::limit::Limit;
use super::status::{Closed, PoolStatus};
use super::wire::Link;
use crate::error::{Error, Result};

/// A connection out of the pool; dropping it gives it back.
pub(super) type Pooled = managed::Object<Keeper>;

/// Makes and looks over pooled connections.
#[derive(Debug)]
pub(super) struct Keeper(Arc<Connector>);

impl Keeper {
    /// Why a connection may not be used any more.
    fn worn(&self, link: &Link) -> Option<Closed> {
        if link.is_closed() {
            return Some(Closed::Lost);
        }
        if link.is_expired() {
            return Some(Closed::Lifetime);
        }
        let idle_time = self.0.settings.idle_time?;
        (link.idle_for() > idle_time).then_some(Closed::IdleTime)
    }
}

impl managed::Manager for Keeper {
    type Type = Link;
    type Error = Fault;

    async fn create(&self) -> Result<Link, Fault> {
        self.0.open().await
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<Fault> {
        match self.worn(link) {
            None => Ok(()),
            Some(reason) => {
                self.0.counters.closed(reason);
                Err(RecycleError::message(reason.as_str()))
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    pool: managed::Pool<Keeper>,
    connector: Arc<Connector>,
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>) -> Result<Self> {
        let built = managed::Pool::builder(Keeper(connector.clone()))
            .max_size(connector.settings.pooled_max)
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build();
        let pool = built.map_err(|error| Error::internal(format!("the pool cannot be built: {error}")))?;
        Ok(Self { pool, connector })
    }

    /// A connection for one caller.
    ///
    /// # Errors
    /// `PoolTimeout` after `pool_timeout`, or why no connection can be opened.
    pub(super) async fn take(&self, limit: Limit) -> Result<Pooled, Fault> {
        let waits = Timeouts {
            wait: Some(self.connector.settings.pool_timeout),
            // Both end by themselves: connecting has a limit of its own, looking over waits for nothing.
            create: None,
            recycle: None,
        };
        let taking = pin!(async {
            let taken = self.pool.timeout_get(&waits).await;
            taken.map_err(|error| match error {
                PoolError::Backend(fault) => fault,
                PoolError::Timeout(_) => Fault::late(Kind::PoolTimeout, false),
                PoolError::Closed => Fault::closed(),
                error => Fault::new(Kind::Internal, format!("the pool failed: {error}")),
            })
        });
        let taken = limit.run(Kind::PoolTimeout, taking).await;
        if let Err(fault) = &taken
            && fault.kind() == Kind::PoolTimeout
        {
            self.connector.counters.shed.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Gives a connection back in good order.
    pub(super) fn give_back(pooled: Pooled) {
        pooled.rest();
        drop(pooled);
    }

    /// Closes a connection that must not be used again.
    pub(super) fn discard(&self, pooled: Pooled, reason: Closed) {
        self.connector.counters.closed(reason);
        drop(managed::Object::take(pooled));
    }

    /// Closes what is worn and what is idle beyond `max_idle_conns`.
    pub(super) fn maintain(&self) {
        let manager = self.pool.manager();
        let mut reasons = Vec::new();
        let mut idle: Vec<(Instant, u64)> = Vec::new();
        let worn = self.pool.retain(|link, _| {
            let reason = manager.worn(link);
            match reason {
                Some(reason) => reasons.push(reason),
                None => idle.push((link.idle_since(), link.id)),
            }
            reason.is_none()
        });
        for reason in reasons {
            self.connector.counters.closed(reason);
        }
        // Dropped out here: `retain` holds the pool's lock.
        drop(worn.removed);

        let surplus = idle.len().saturating_sub(self.connector.settings.idle_max);
        if surplus == 0 {
            return;
        }
        idle.sort_unstable();
        idle.truncate(surplus);
        // One that was taken meanwhile is not seen by this pass.
        let trimmed = self
            .pool
            .retain(|link, _| !idle.iter().any(|(_, id)| *id == link.id));
        self.connector
            .counters
            .closed_many(Closed::Surplus, trimmed.removed.len());
        drop(trimmed.removed);
    }

    /// Closes everything idle; what is in use ends when it is given back.
    pub(super) fn drop_idle(&self, reason: Closed) {
        let dropped = self.pool.retain(|_, _| false);
        self.connector.counters.closed_many(reason, dropped.removed.len());
        drop(dropped.removed);
    }

    /// Refuses new callers and those that wait, and closes everything idle.
    pub(super) fn close(&self) {
        self.drop_idle(Closed::Shutdown);
        self.pool.close();
    }

    /// An error once it is closed.
    pub(super) fn is_open(&self) -> Result<(), Fault> {
        if self.pool.is_closed() {
            Err(Fault::closed())
        } else {
            Ok(())
        }
    }

    pub(super) fn fill(&self, status: &mut PoolStatus) {
        let now = self.pool.status();
        status.open = now.size;
        status.idle = now.available;
        status.waiting = now.waiting;
        status.max = now.max_size;
    }
}
