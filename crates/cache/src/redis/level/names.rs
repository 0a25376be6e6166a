//! The names of keys and channels: one hash tag a partition.

use super::Inner;
use crate::partition::{PartitionId, partition_of};
use crate::version::{Key, Version};

impl Inner {
    pub(super) fn id(&self, key: &str) -> PartitionId {
        partition_of(key, self.options.partitions)
    }

    pub(super) fn key(&self, partition: PartitionId, rest: &str) -> String {
        format!("{{{}.{partition}}}{rest}", self.options.name)
    }

    pub(super) fn entry_key(&self, partition: PartitionId, key: &Key) -> String {
        format!("{{{}.{partition}}}e:{key}", self.options.name)
    }

    pub(super) fn body_key(&self, partition: PartitionId, key: &Key, version: Version) -> String {
        format!("{{{}.{partition}}}b:{key}:{version}", self.options.name)
    }

    pub(super) fn lease_key(&self, partition: PartitionId, key: &Key) -> String {
        format!("{{{}.{partition}}}L:{key}", self.options.name)
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
