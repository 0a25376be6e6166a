//! The second level and the backplane on Redis, Valkey or a cluster of either.
//!
//! All keys of a partition have one hash tag, so each operation is one script or one command at one node:
//!
//! | key | what |
//! |---|---|
//! | `{name.p}m` | sequence number, nonce and mark of the partition's log |
//! | `{name.p}l` | the log's last entries |
//! | `{name.p}t` | generations of tags |
//! | `{name.p}e:key` | an entry, with a time to live |
//! | `{name.p}b:key:version` | the body of a large entry, with a time to live |
//! | `{name.p}L:key` | a lease, with a time to live |
//!
//! The first three have no time to live: use an eviction policy that spares such keys (`volatile-*`). Under another one
//! nothing wrong is served, but losing one of them costs its partition's entries on every node.

mod cluster;
mod compress;
mod lane;
mod lanes;
mod level;
mod link;
mod listen;
mod resp;
mod script;
mod wire;

pub use self::level::{Options, RedisLevel};

#[cfg(test)]
mod tests;
