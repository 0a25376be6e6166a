//! What is run on a connection.

use std::fmt;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use crate::settings::{DatabaseSettings, Durability, PreparedStatements};

/// SQL with the types of its parameters, a `static` of whoever uses it.
///
/// The types are said here and not asked of the server, so that a statement costs one round trip also where it
/// cannot be prepared.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Labels metrics and the log of slow statements.
    pub name: &'static str,
    /// One statement, parameters as `$1`, `$2`, …
    pub sql: &'static str,
    /// The type of each parameter, in order.
    pub types: &'static [Type],
}

/// The values of a statement's parameters, in order.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement with its values, for running several together.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// What to run.
    pub statement: &'static Statement,
    /// With which values.
    pub params: Params<'a>,
}

/// Without the values.
#[cfg(test)]
impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.statement.name).finish()
    }
}

/// Hears of each statement that was run. Called on the caller's task: must be quick.
pub(crate) trait Watch: fmt::Debug + Send + Sync {
    /// It has ended, one way or another; pipelined ones each with the time of the whole flush.
    fn ran(&self, statement: &'static Statement, took: Duration, failed: bool);
}

/// Hears nothing.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoWatch;

#[cfg(test)]
impl Watch for NoWatch {
    fn ran(&self, _: &'static Statement, _: Duration, _: bool) {}
}

/// What a link takes from [`DatabaseSettings`], in its own types.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSettings {
    /// Most pooled connections: what `max_open_conns` leaves beside the shared ones and the health check's.
    pub pooled_max: usize,
    /// As `max_idle_conns`.
    pub idle_max: usize,
    /// As `conn_max_lifetime`; `None`: no limit.
    pub lifetime: Option<Duration>,
    /// As `conn_max_idle_time`; `None`: no limit.
    pub idle_time: Option<Duration>,
    /// As `health_check_interval`.
    pub health_check_interval: Duration,
    /// As `shared_conns`.
    pub shared: usize,
    /// As `shared_in_flight`.
    pub shared_in_flight: usize,
    /// As `pool_timeout`.
    pub pool_timeout: Duration,
    /// As `connect_timeout`.
    pub connect_timeout: Duration,
    /// As `statement_timeout`.
    pub statement_timeout: Duration,
    /// As `prepared_statements`.
    pub prepared: PreparedStatements,
    /// As `durability`.
    pub durability: Durability,
}

impl From<&DatabaseSettings> for LinkSettings {
    fn from(settings: &DatabaseSettings) -> Self {
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let limit = |time: Duration| (!time.is_zero()).then_some(time);
        let shared = settings.shared_conns.max(1);
        let pooled = settings.max_open_conns.saturating_sub(shared).saturating_sub(1);
        Self {
            pooled_max: count(pooled.max(1)),
            idle_max: count(settings.max_idle_conns),
            lifetime: limit(settings.conn_max_lifetime),
            idle_time: limit(settings.conn_max_idle_time),
            health_check_interval: settings.health_check_interval,
            shared: count(shared),
            shared_in_flight: count(settings.shared_in_flight.max(1)),
            pool_timeout: settings.pool_timeout,
            connect_timeout: settings.connect_timeout,
            statement_timeout: settings.statement_timeout,
            prepared: settings.prepared_statements,
            durability: settings.durability,
        }
    }
}
