//! What a link counts, for gauges and counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The other side closed it, or it broke.
    Lost,
    /// Older than `conn_max_lifetime`.
    Lifetime,
    /// Unused for longer than `conn_max_idle_time`.
    IdleTime,
    /// Unused beyond `max_idle_conns`.
    Surplus,
    /// Something on it was given up: a timeout, a dropped future.
    Abandoned,
    /// The server is suspect, as after a failover.
    Suspect,
    /// The endpoint was closed.
    Shutdown,
}

impl Closed {
    /// Each of them, as indexed in [`PoolStatus::closed`].
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::Lifetime,
        Self::IdleTime,
        Self::Surplus,
        Self::Abandoned,
        Self::Suspect,
        Self::Shutdown,
    ];

    /// A stable word for a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Lifetime => "lifetime",
            Self::IdleTime => "idle_time",
            Self::Surplus => "surplus",
            Self::Abandoned => "abandoned",
            Self::Suspect => "suspect",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The connections to one server at a moment, and what became of the earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Pooled connections, in use or not.
    pub open: usize,
    /// Pooled connections that nobody uses.
    pub idle: usize,
    /// Callers that wait for a pooled connection.
    pub waiting: usize,
    /// The most pooled connections there may be.
    pub max: usize,
    /// Shared connections.
    pub shared: usize,
    /// Statements under way on the shared connections.
    pub shared_in_flight: usize,
    /// Connections opened so far, of every kind.
    pub created: u64,
    /// Connections closed so far, by reason, in the order of [`Closed::ALL`].
    pub closed: [u64; Closed::ALL.len()],
    /// Attempts to connect that failed so far.
    pub connect_failures: u64,
    /// Callers that were turned away because no connection came free.
    pub shed: u64,
    /// Whether statements are known to be sent unprepared, because a pooler stands in between.
    pub behind_pooler: bool,
}

impl PoolStatus {
    /// How many were closed for this reason.
    pub fn closed_for(&self, reason: Closed) -> u64 {
        self.closed.get(reason as usize).copied().unwrap_or_default()
    }
}

/// The counters behind [`PoolStatus`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) created: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) shed: AtomicU64,
    closed: [AtomicU64; Closed::ALL.len()],
}

impl Counters {
    pub(super) fn closed(&self, reason: Closed) {
        self.closed_many(reason, 1);
    }

    pub(super) fn closed_many(&self, reason: Closed, how_many: usize) {
        if let Some(counter) = self.closed.get(reason as usize) {
            counter.fetch_add(u64::try_from(how_many).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    pub(super) fn fill(&self, status: &mut PoolStatus) {
        status.created = self.created.load(Ordering::Relaxed);
        status.connect_failures = self.connect_failures.load(Ordering::Relaxed);
        status.shed = self.shed.load(Ordering::Relaxed);
        for (count, counter) in status.closed.iter_mut().zip(&self.closed) {
            *count = counter.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_indexed_as_they_are_listed() {
        for (index, reason) in Closed::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }
}
