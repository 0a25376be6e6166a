//! The settings of this crate's parts. Plain data: another crate fills them.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

mod monitoring;
mod postgres;
mod rollout;

pub use self::monitoring::MonitoringSettings;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresSettings;
pub use self::postgres::{
    DatabaseSettings, Durability, PreparedStatements, ReplicaSettings, RoutingSettings,
};
pub use self::rollout::{Flag, RolloutSettings, Switch};

/// The embedded store, used when no database is configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// Folder of the data file `contextkeep.db`; created if absent.
    pub path: PathBuf,
    /// `full`: an acknowledged write survives a power cut. `normal`: it survives the death of the process; a
    /// power cut may lose the last commits, never the file.
    pub synchronous: Synchronous,
    /// Connections that read at the same time.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    pub readers: usize,
    /// Writes that may wait for their commit; more are refused with `overloaded`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1_000_000)))]
    pub write_queue: usize,
    /// Most writes in one commit.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000)))]
    pub group_commit: usize,
    /// How long a write waits for another process that holds the file.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub busy_timeout: Duration,
    /// Largest size of the data file; 0 means as large as the disk allows.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub max_size: ByteSize,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./contextkeep-data"),
            synchronous: Synchronous::Full,
            readers: 4,
            write_queue: 4096,
            group_commit: 256,
            busy_timeout: Duration::from_secs(5),
            max_size: ByteSize(0),
        }
    }
}

/// When a commit is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// Before it is acknowledged.
    #[default]
    Full,
    /// Soon after.
    Normal,
}

/// How long what is no longer visible is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Time between two sweeps for expired contexts and unreachable items.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub sweep_interval: Duration,
    /// How long the version of a deleted context is remembered. An id used again after that starts at version 1.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub tombstones: Duration,
    /// How long an `Idempotency-Key` is remembered. Client ids are remembered as long as their context.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub idempotency_keys: Duration,
    /// Most rows that one step of a sweep removes.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100_000)))]
    pub batch: u32,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            sweep_interval: Duration::from_mins(1),
            tombstones: Duration::from_hours(720),
            idempotency_keys: Duration::from_hours(24),
            batch: 500,
        }
    }
}

/// How much one request may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Largest item, in bytes of JSON.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub item_size: ByteSize,
    /// Most items in one append.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100_000)))]
    pub append_items: usize,
    /// Most entries in one `POST /v1/batch`. Each append of a batch has the limits of a single one besides, and the
    /// whole batch those of a body.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub batch_max: usize,
    /// Most entries on a page.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000)))]
    pub page_items: u32,
    /// Most bytes of item bodies on a page; at least one item is always given.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "byte-size")))]
    pub page_size: ByteSize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            item_size: ByteSize::mib(1),
            append_items: 1000,
            batch_max: 100,
            page_items: 1000,
            page_size: ByteSize::mib(8),
        }
    }
}
