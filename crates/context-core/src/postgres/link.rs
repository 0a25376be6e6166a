//! The link to one Postgres server: its address, a pool for exclusive sessions, a few shared connections for
//! short reads, one connection for health checks, and what an error means.
//!
//! | for | use | waits for |
//! |---|---|---|
//! | a short read | [`Endpoint::query`] | nothing: pipelined on a shared connection |
//! | a write, a slow read, several statements | [`Endpoint::session`] | a pooled connection, at most `pool_timeout` |
//! | a look at the server | [`Endpoint::check`] | nothing: a connection of its own |
//!
//! Invariants:
//! 1. Nothing connects before it is asked for, so a server that is down at start is an error of the first call.
//! 2. Nothing waits for ever: each wait ends at the request's deadline or at a configured time, also when the
//!    other side is frozen or cut off.
//! 3. No statement relies on the state of a session beyond its transaction, so a pooler may stand in between.
//! 4. At most `max_open_conns` connections are open to the server at a time.
//! 5. A connection about which anything is unknown (a query that was given up, a transaction that did not end)
//!    is never used again.
//! 6. No error shows a password or a value of a statement.

mod address;
mod connect;
mod endpoint;
mod fault;
mod limit;
mod pool;
mod position;
mod session;
mod shared;
mod statement;
mod status;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use self::address::Address;
pub(crate) use self::endpoint::Endpoint;
pub(crate) use self::fault::{Fault, Kind};
pub(crate) use self::position::{Epoch, Lsn, Probe};
pub(crate) use self::session::Session;
#[cfg(test)]
pub(crate) use self::statement::{Call, NoWatch, Params};
pub(crate) use self::statement::{LinkSettings, Statement, Watch};
pub use self::status::{Closed, PoolStatus};
