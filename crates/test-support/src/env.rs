//! The harness' only reads of the environment.

use std::ffi::OsString;
use std::path::PathBuf;

/// The variables that `cargo xtask` and the tests agree on.
pub mod keys {
    /// Path of the JSON file that describes the running services.
    pub const SERVICES: &str = "CONTEXTKEEP_TEST_SERVICES";
    /// External mode: URL of the primary.
    pub const PG_PRIMARY: &str = "CONTEXTKEEP_TEST_PG_PRIMARY";
    /// External mode: URLs of the replicas, separated by commas.
    pub const PG_REPLICAS: &str = "CONTEXTKEEP_TEST_PG_REPLICAS";
    /// External mode: URL of the single Redis node.
    pub const REDIS: &str = "CONTEXTKEEP_TEST_REDIS";
    /// External mode: URLs of the cluster's nodes, separated by commas.
    pub const REDIS_CLUSTER: &str = "CONTEXTKEEP_TEST_REDIS_CLUSTER";
    /// Folder of `initdb` and `postgres`, when they are not where they usually are.
    pub const PG_BIN: &str = "PG_BIN";
    /// Path of `redis-server` (or `valkey-server`), when it is not on `PATH`.
    pub const REDIS_SERVER: &str = "REDIS_SERVER";
    /// Path of `pgbouncer`, when it is neither on `PATH` nor where Debian puts it.
    pub const PGBOUNCER: &str = "PGBOUNCER";
}

/// A variable's value, when it is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "a development tool without a configuration of its own"
)]
pub(crate) fn get(key: &str) -> Option<OsString> {
    std::env::var_os(key).filter(|value| !value.is_empty())
}

/// The folders on `PATH`.
pub(crate) fn path_folders() -> Vec<PathBuf> {
    get("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default()
}
