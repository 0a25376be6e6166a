//! [`Options`] of a level.

use std::time::Duration;

use crate::redis::compress::Choice;
use crate::settings::CompressionSettings;

/// What is not a setting of the connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The beginning of all keys: caches of different names, or of different kinds of values, share nothing.
    pub name: String,
    /// As the cache's; all nodes have to agree.
    pub partitions: u16,
    /// Larger values are not kept.
    pub max_value: usize,
    /// Larger values lie in keys of their own and go over the pool.
    pub large_from: usize,
    /// How long a node may load a key before another may.
    pub lease: Duration,
    /// Entries of a partition's log that are kept for those who missed messages.
    pub log_length: u32,
    /// Values from this size on are compressed by lz4 (feature `compression`).
    pub lz4_from: usize,
    /// Values from this size on are compressed by zstd instead.
    pub zstd_from: usize,
}

impl Options {
    /// The usual ones.
    pub fn named(name: impl Into<String>) -> Self {
        let choice = Choice::default();
        Self {
            name: name.into(),
            partitions: 256,
            max_value: 8 << 20,
            large_from: 32 << 10,
            lease: Duration::from_secs(5),
            log_length: 512,
            lz4_from: choice.lz4_from,
            zstd_from: choice.zstd_from,
        }
    }

    /// Compresses as described.
    #[must_use]
    pub fn compression(mut self, settings: &CompressionSettings) -> Self {
        let from = |size: bytesize::ByteSize| {
            let size = usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
            if settings.enabled { size } else { usize::MAX }
        };
        self.lz4_from = from(settings.lz4_from);
        self.zstd_from = from(settings.zstd_from);
        self
    }
}
