//! N2: a window that is kept ready costs no allocation. What heads take is what they are accounted with.

use std::hint::black_box;
use std::sync::Arc;

use contextkeep_cache::Cache;
use contextkeep_core::cached::{CACHE_NAME, CachedStore, HeldLimits};
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::rollout::Rollout;
use contextkeep_core::session::{Consistency, Session, Token};
use contextkeep_core::settings::{EmbeddedSettings, LimitSettings, RolloutSettings};
use contextkeep_core::{
    AppendRequest, ContextId, ContextKey, ContextManagerFactory, NewContext, NewItem, Origin, SystemClock,
    TenantId, WindowRequest,
};

#[tokio::test]
async fn a_window_that_is_kept_ready_allocates_nothing_for_who_has_seen_its_context() {
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        ..EmbeddedSettings::default()
    };
    let clock = Arc::new(SystemClock);
    let store = Arc::new(EmbeddedStore::open(&settings, clock.clone()).unwrap());
    let held = HeldLimits {
        contexts: 10,
        bytes: 1 << 20,
        context_bytes: 1 << 17,
        cold_percent: 30,
    };
    let cache = Cache::builder(CACHE_NAME).build().unwrap();
    let cached = CachedStore::new(store.clone(), cache, Some(held), clock);
    let (manager, _) = ContextManagerFactory::new(store, LimitSettings::default())
        .cached(cached, Arc::new(Rollout::new(RolloutSettings::default())))
        .build();
    let key = ContextKey::new(
        TenantId::parse("acme").unwrap(),
        ContextId::parse("trip-42").unwrap(),
    );
    let request = WindowRequest::default();
    let session = Session::new(Consistency::Session, Token::default());
    let fill = async {
        let new = NewContext::of_agent("a").with_id(key.id.clone());
        manager.create(&key.tenant, new).await.unwrap();
        let append = AppendRequest {
            items: vec![NewItem::parse(r#"{"role":"user","content":"hello"}"#, 1 << 10).unwrap()],
            expected: None,
            idempotency_key: None,
        };
        manager.append(&key, append).await.unwrap();
        manager.window(&key, request).await.unwrap();
    };
    session.scope(fill).await;
    session.sync_scope(|| {
        // More than one round of those that go by the head.
        let hits = allocation_counter::measure(|| {
            for _ in 0..200 {
                let ready = black_box(manager.window_ready(&key, &request)).expect("it is kept ready");
                assert_eq!((ready.origin, ready.value.items.len()), (Origin::L1, 1));
            }
        });
        assert_eq!(hits.count_total, 0);
    });
    assert!(session.token().floor(&key).is_some());
}

#[cfg(feature = "test-util")]
#[cfg(test)]
mod heads {
    use contextkeep_core::cached::{HEAD_BYTES, HEAD_COPIES};
    use contextkeep_core::fake::FakeStore;
    use contextkeep_core::{ContextManager, ContextStore, JsonObject, OptimizedContextManager};

    use super::*;

    /// The cache's formula with [`HEAD_BYTES`], by which `max_bytes` bounds what heads take.
    #[test]
    fn a_head_takes_no_more_than_it_is_accounted_with() {
        const HEADS: u32 = 2_000;
        // Everything on this thread, where allocations are counted.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for metadata in [0, 300, 3_000] {
            let store = Arc::new(FakeStore::new(Arc::new(SystemClock)));
            let cached = runtime.block_on(async {
                // More than fits, so that none is evicted; and an entry's share of it is less than what a head takes.
                let cache = Cache::builder(CACHE_NAME)
                    .max_entries(u64::from(4 * HEADS))
                    .max_bytes(u64::from(4 * HEADS) * (1500 + metadata as u64))
                    .decoded_size(HEAD_BYTES, HEAD_COPIES);
                CachedStore::new(store.clone(), cache.build().unwrap(), None, Arc::new(SystemClock))
            });
            let keys = keys(HEADS);
            runtime.block_on(created(&*store, &keys, metadata));
            let manager = OptimizedContextManager::new(cached.clone(), LimitSettings::default());
            let read = allocation_counter::measure(|| runtime.block_on(read_and_written(&manager, &keys)));
            let stats = cached.cache().stats();
            assert_eq!(u32::try_from(stats.entries).unwrap(), HEADS);
            let each = |bytes: u64| bytes / u64::from(HEADS);
            let taken = u64::try_from(read.bytes_current).unwrap();
            println!(
                "{metadata} bytes of metadata: {} bytes a head, accounted {}",
                each(taken),
                each(stats.bytes)
            );
            assert!(taken <= stats.bytes, "{taken} over {}", stats.bytes);
        }
    }

    /// As by a face: each in a session of its own, whose token is told.
    async fn read_and_written(manager: &dyn ContextManager, keys: &[ContextKey]) {
        for key in keys {
            let session = Session::new(Consistency::Bounded, Token::default());
            let head = session.scope(manager.get(key)).await.unwrap().value;
            assert!(!head.document().is_empty());
            assert!(session.told_with(head.token()).0.is_some());
        }
    }

    fn keys(number: u32) -> Vec<ContextKey> {
        let tenant = TenantId::parse("acme").unwrap();
        let id = |number| ContextId::parse(&format!("context-{number:08}")).unwrap();
        (0..number)
            .map(|number| ContextKey::new(tenant.clone(), id(number)))
            .collect()
    }

    async fn created(store: &dyn ContextStore, keys: &[ContextKey], metadata: usize) {
        for key in keys {
            let note = format!(r#"{{"note":"{:metadata$}"}}"#, "");
            let new = NewContext {
                metadata: Some(JsonObject::parse("metadata", &note).unwrap()),
                labels: Some(vec!["gold".to_owned()]),
                ..NewContext::of_agent("support").with_id(key.id.clone())
            };
            store.create(&key.tenant, new).await.unwrap();
        }
    }
}
