//! One server and how it was last seen.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::link::{Endpoint, Probe};
use super::health::Health;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    /// Has it looked at before its time.
    pub(super) wake: Notify,
    seen: RwLock<Seen>,
}

/// How a server was last seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) health: Health,
    /// The last look that succeeded.
    pub(super) probe: Option<Probe>,
    /// Bytes behind the primary.
    pub(super) lag_bytes: Option<u64>,
    /// It has everything that was acknowledged before this.
    pub(super) fresh: Option<Instant>,
    /// It is of another cluster, or writes an outdated timeline: not to be used for anything.
    pub(super) fenced: bool,
}

impl Member {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            wake: Notify::new(),
            seen: RwLock::default(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn see(&self, seen: Seen) {
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}
