//! The names of keys and channels: one hash tag a partition.

use std::sync::Arc;

use super::Inner;
use crate::partition::{PartitionId, partition_of};
use crate::redis::resp::{Digits, word};
use crate::version::{Key, Version};

/// The names of what belongs to a level.
#[derive(Clone)]
pub(super) struct Names(Arc<str>);

impl Names {
    pub(super) fn of(name: &str) -> Self {
        Self(name.into())
    }

    fn tagged(&self, partition: PartitionId, rest: impl std::fmt::Display) -> String {
        format!("{{{}.{partition}}}{rest}", self.0)
    }

    pub(super) fn meta(&self, partition: PartitionId) -> String {
        self.tagged(partition, "m")
    }

    pub(super) fn entry(&self, partition: PartitionId, key: &Key) -> String {
        self.tagged(partition, format_args!("e:{key}"))
    }

    /// [`meta`](Self::meta) as a word of a command.
    pub(super) fn write_meta(&self, out: &mut Vec<u8>, partition: PartitionId) {
        let digits = Digits::of(partition.into());
        word(out, [b"{", self.0.as_bytes(), b".", digits.as_bytes(), b"}m"]);
    }

    /// [`entry`](Self::entry) as a word of a command.
    pub(super) fn write_entry(&self, out: &mut Vec<u8>, partition: PartitionId, key: &Key) {
        let digits = Digits::of(partition.into());
        word(
            out,
            [
                b"{",
                self.0.as_bytes(),
                b".",
                digits.as_bytes(),
                b"}e:",
                key.as_bytes(),
            ],
        );
    }
}

impl Inner {
    pub(super) fn id(&self, key: &str) -> PartitionId {
        partition_of(key, self.options.partitions)
    }

    pub(super) fn key(&self, partition: PartitionId, rest: &str) -> String {
        self.names.tagged(partition, rest)
    }

    pub(super) fn entry_key(&self, partition: PartitionId, key: &Key) -> String {
        self.names.entry(partition, key)
    }

    pub(super) fn body_key(&self, partition: PartitionId, key: &Key, version: Version) -> String {
        self.names.tagged(partition, format_args!("b:{key}:{version}"))
    }

    pub(super) fn lease_key(&self, partition: PartitionId, key: &Key) -> String {
        self.names.tagged(partition, format_args!("L:{key}"))
    }

    /// One channel a partition in a cluster, where it stays within its shard; else one for all.
    pub(super) fn channel(&self, partition: PartitionId) -> String {
        if self.dial.is_cluster() {
            self.key(partition, "i")
        } else {
            format!("{{{}}}i", self.options.name)
        }
    }

    pub(super) fn channels(&self) -> Vec<String> {
        if self.dial.is_cluster() {
            (0..self.options.partitions).map(|id| self.channel(id)).collect()
        } else {
            vec![self.channel(0)]
        }
    }

    pub(super) fn publish(&self) -> &'static str {
        if self.dial.is_cluster() {
            "SPUBLISH"
        } else {
            "PUBLISH"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are_spelled() {
        let (names, key) = (Names::of("a cache"), Key::from("a {key}"));
        for partition in [0, 9, 255, u16::MAX] {
            let mut written = Vec::new();
            names.write_entry(&mut written, partition, &key);
            names.write_meta(&mut written, partition);
            let mut spelled = Vec::new();
            word(&mut spelled, [names.entry(partition, &key).as_bytes()]);
            word(&mut spelled, [names.meta(partition).as_bytes()]);
            assert_eq!(written, spelled);
        }
    }
}
