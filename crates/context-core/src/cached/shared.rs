//! Heads as readers share them.

use std::sync::Arc;

use super::{CachedStore, note, origin_of};
use crate::Head;
use crate::error::Result;
use crate::id::ContextKey;
use crate::manager::Origin;
use crate::session::Session;

impl CachedStore {
    /// As [`head`](crate::store::ContextStore::head), without a copy for each reader of what memory holds.
    pub(crate) async fn shared_head(&self, key: &ContextKey) -> Result<Arc<Head>> {
        let inner = &*self.0;
        let read = inner.reading(key);
        let found = match &read {
            Some(read) => inner.find(key, read).await,
            None => None,
        };
        let Some(found) = found else {
            return Ok(Arc::new(inner.store.head(key).await?.into()));
        };
        note(&found, origin_of(&found));
        inner.there(&found)
    }

    /// As [`CachedStore::shared_head`], if the process holds it and its cache does not want to refresh it. Who is told that
    /// there is no such context learns it there.
    pub(crate) fn head_ready(&self, key: &ContextKey) -> Option<Arc<Head>> {
        let inner = &*self.0;
        if !inner.heads.cache().has_memory() {
            return None;
        }
        let read = inner.reading(key).filter(|_| Session::current_plan().l1)?;
        let found = inner.heads.hit(key, &read).filter(|found| !found.is_aging)?;
        let head = inner.there(&found).ok()?;
        note(&found, Origin::L1);
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // It is the most of a box that each read of a head has; mimalloc gives out what is larger than 1,024 on its slow path.
    #[test]
    fn a_head_is_waited_for_in_little_room() {
        fn size<F>(_: impl FnOnce(&'static CachedStore, &'static ContextKey) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(CachedStore::shared_head);
        assert!(size <= 992, "{size}");
    }
}
