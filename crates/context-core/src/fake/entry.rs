//! One context in memory, with what was said about it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::id::{ClientId, ContextId, IdempotencyKey};
use crate::store::Appended;
use crate::summary::Summary;
use crate::{Context, Item, NewContext, Timestamp, Version};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) context: Context,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) items: Vec<Item>,
    pub(super) client_ids: HashMap<ClientId, Named>,
    pub(super) keys: HashMap<IdempotencyKey, ([u8; 32], Appended, Timestamp)>,
    pub(super) summaries: Vec<Summary>,
}

/// What a client id names, and what its append answered.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) item: Item,
    /// Whether there is no body left to compare with.
    pub(super) purged: bool,
    pub(super) appended: Appended,
}

impl Entry {
    pub(super) fn is_there(&self, now: Timestamp) -> bool {
        self.deleted_at.is_none() && self.context.expires_at.is_none_or(|at| at > now)
    }

    /// Recomputes what follows from the items.
    pub(super) fn set_items(&mut self, items: Vec<Item>) {
        self.context.first_seq = items.first().map_or(self.context.next_seq, |item| item.seq);
        self.context.item_count = items.len() as u64;
        self.context.tokens = items.iter().map(|item| u64::from(item.tokens)).sum();
        self.items = items;
    }

    pub(super) fn bury(&mut self, now: Timestamp) {
        self.deleted_at = Some(now);
        self.context.version += 1;
        self.client_ids.clear();
        self.keys.clear();
        self.summaries.clear();
        self.set_items(Vec::new());
    }
}

pub(super) fn new_entry(id: ContextId, new: NewContext, now: Timestamp) -> Entry {
    Entry {
        context: Context {
            stream: next_stream(),
            ..new.into_context(id, now)
        },
        deleted_at: None,
        items: Vec::new(),
        client_ids: HashMap::new(),
        keys: HashMap::new(),
        summaries: Vec::new(),
    }
}

/// A number that no stream has had.
pub(super) fn next_stream() -> u64 {
    static STREAMS: AtomicU64 = AtomicU64::new(1);
    STREAMS.fetch_add(1, Ordering::Relaxed)
}

pub(super) fn expect(entry: &Entry, expected: Option<Version>) -> Result<()> {
    match expected {
        Some(expected) if expected != entry.context.version => Err(Error::VersionMismatch {
            expected,
            actual: entry.context.version,
        }),
        _ => Ok(()),
    }
}
