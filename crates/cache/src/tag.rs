//! Tags: groups of entries that are invalidated together, in O(1), by raising one number.
//!
//! - **T1** An entry is trusted only while each of its tags has the generation that was captured before its load began.
//! - **T2** Generations of a tag only grow; 0 means unknown, and no entry is trusted under an unknown generation.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::partition::PartitionId;
use crate::version::Key;

/// The generation of a cell that was given up: whoever still has it never trusts it, nor can raise it.
const DEAD: u64 = u64::MAX;

/// One tag as this node knows it.
#[derive(Debug)]
pub(crate) struct TagCell {
    pub(crate) name: Key,
    pub(crate) partition: PartitionId,
    generation: AtomicU64,
}

impl TagCell {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self, generation: u64) {
        self.generation.fetch_max(generation, Ordering::AcqRel);
    }
}

/// The tags of an entry with their generations before its load. Nothing is allocated for no tags.
#[derive(Clone, Default)]
pub(crate) struct Captured(Option<Arc<[Pair]>>);

type Pair = (Arc<TagCell>, u64);

impl Captured {
    pub(crate) fn of(tags: impl IntoIterator<Item = Pair>) -> Self {
        let tags: Vec<_> = tags.into_iter().collect();
        Self((!tags.is_empty()).then(|| tags.into()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.0.iter().flat_map(|tags| tags.iter())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// T1.
    pub(crate) fn hold(&self) -> bool {
        self.iter()
            .all(|(cell, generation)| !matches!(*generation, 0 | DEAD) && cell.generation() == *generation)
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(cell, generation)| (&cell.name, generation)))
            .finish()
    }
}

/// All tags that entries of this node have. Looked up when a load begins, never on a hit.
#[derive(Debug)]
pub(crate) struct Tags {
    cells: Mutex<HashMap<Key, Arc<TagCell>>>,
    /// The generation of a tag nobody has told us about: 0 where there is a second level to ask.
    unknown: u64,
    sweep_over: usize,
}

impl Tags {
    pub(crate) fn new(unknown: u64) -> Self {
        Self {
            cells: Mutex::default(),
            unknown,
            sweep_over: 10_000,
        }
    }

    pub(crate) fn cell(&self, name: &Key, partition: PartitionId) -> Arc<TagCell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if cells.len() >= self.sweep_over && self.unknown == 0 {
            // Forgotten tags are asked for anew. Without a second level there is nobody to ask, so they stay.
            cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        let make = || {
            Arc::new(TagCell {
                name: name.clone(),
                partition,
                generation: AtomicU64::new(self.unknown),
            })
        };
        Arc::clone(cells.entry(name.clone()).or_insert_with(make))
    }

    /// T2: a generation that was learned in the tag's log.
    pub(crate) fn raise(&self, name: &str, generation: u64) {
        if let Some(cell) = self
            .cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            cell.raise(generation);
        }
    }

    /// A raise of this tag may or may not have happened: entries that have it are not trusted any more here.
    pub(crate) fn doubt(&self, name: &str) {
        let gone = self
            .cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        if let Some(cell) = gone {
            cell.generation.store(DEAD, Ordering::Release);
        }
    }

    /// The log of this partition has lost something, so its tags' generations mean nothing any more. Entries keep the
    /// old cells, which never come to hold again; new loads get new cells.
    pub(crate) fn forget(&self, partition: PartitionId) {
        self.cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, cell| {
                let keep = cell.partition != partition;
                if !keep {
                    cell.generation.store(DEAD, Ordering::Release);
                }
                keep
            });
    }
}
