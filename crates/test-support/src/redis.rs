//! Redis: single nodes and clusters, nothing persisted.
//!
//! A cluster is joined by our own commands (`CLUSTER ADDSLOTSRANGE`, `MEET`, `REPLICATE`), which is as fast as a
//! cluster gets: a master refuses writes for its first two seconds, so one takes about that long to be ready. Share
//! one where a test does not break it.

mod cluster;
mod node;
mod resp;

pub use self::cluster::{RedisCluster, RedisClusterBuilder};
pub use self::node::RedisNode;
pub use self::resp::{Connection, Value};
