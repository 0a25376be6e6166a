//! Partitions: what this node knows about the freshness of a slice of all keys, readable without a lock.
//!
//! - **P1** An entry is trusted only while its generation is its partition's. Raising the generation drops the
//!   whole partition from the first level in O(1), loads under way included: they carry the generation they began with.
//! - **P2** Before the horizon, everything that L2 acknowledged up to `horizon - bound` has been applied here.

use crate::clock::Nanos;
use crate::random::mix;
use crate::sync::{AtomicU64, Ordering};
use crate::version::Mark;

/// The number of a partition.
pub type PartitionId = u16;

/// Which of `count` partitions a key or a tag belongs to. Every node and every release has to agree on this.
pub fn partition_of(key: &str, count: u16) -> PartitionId {
    let hash = key
        .as_bytes()
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
    let slot = mix(hash) % u64::from(count.max(1));
    PartitionId::try_from(slot).unwrap_or(0)
}

/// One partition, as the hit path sees it.
#[derive(Debug)]
pub(crate) struct Partition {
    generation: AtomicU64,
    horizon: AtomicU64,
    /// Until then L2's memory of this partition is in doubt.
    suspect_until: AtomicU64,
    mark: AtomicU64,
}

impl Partition {
    pub(crate) fn new(horizon: Nanos) -> Self {
        Self {
            generation: AtomicU64::new(1),
            horizon: AtomicU64::new(horizon.as_nanos()),
            suspect_until: AtomicU64::new(0),
            mark: AtomicU64::new(0),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn bump(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// P2.
    pub(crate) fn holds(&self, now: Nanos) -> bool {
        now.as_nanos() < self.horizon.load(Ordering::Acquire)
    }

    pub(crate) fn extend(&self, until: Nanos) {
        self.horizon.fetch_max(until.as_nanos(), Ordering::AcqRel);
    }

    pub(crate) fn is_suspect(&self, now: Nanos) -> bool {
        now.as_nanos() < self.suspect_until.load(Ordering::Acquire)
    }

    pub(crate) fn suspect(&self, until: Nanos) {
        self.suspect_until.fetch_max(until.as_nanos(), Ordering::AcqRel);
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark::new(self.mark.load(Ordering::Acquire))
    }

    pub(crate) fn raise_mark(&self, mark: Mark) {
        self.mark.fetch_max(mark.get(), Ordering::AcqRel);
    }
}

#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Partitions {
    all: Box<[Partition]>,
    count: u16,
}

#[cfg(not(loom))]
impl Partitions {
    pub(crate) fn new(count: u16, horizon: Nanos) -> Self {
        let count = count.max(1);
        Self {
            all: (0..count).map(|_| Partition::new(horizon)).collect(),
            count,
        }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn id(&self, key: &str) -> PartitionId {
        partition_of(key, self.count)
    }

    /// The partition with this number. Numbers come from [`id`](Self::id) or were checked where they came in.
    pub(crate) fn at(&self, id: PartitionId) -> &Partition {
        // Without a division, which would be a good part of what a hit costs.
        self.all
            .get(usize::from(id))
            .unwrap_or_else(|| &self.all[usize::from(id % self.count)])
    }
}
