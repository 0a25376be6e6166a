#![doc = include_str!("../README.md")]

mod daemon;
mod env;
mod error;
pub mod figures;
mod folder;
pub mod locate;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod services;
pub mod user;
pub mod wait;

pub use daemon::{Daemon, Stop};
pub use env::keys;
pub use error::{Error, Result};
pub use folder::{Folder, Lifetime, teardown};
pub use pgbouncer::PgBouncer;
pub use postgres::PgCluster;
pub use proxy::Proxy;
pub use redis::{RedisCluster, RedisNode};
pub use services::Services;
pub use wait::{eventually, eventually_async};
