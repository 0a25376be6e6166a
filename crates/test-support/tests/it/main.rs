//! The harness against the real servers. Each test starts its own, so all of them may run at once.

mod pgbouncer;
mod postgres;
mod proxy;
mod redis;
mod services;

use std::time::Duration;

/// Bounds every wait; nothing is expected to take anywhere near it.
const SOON: Duration = Duration::from_mins(1);
