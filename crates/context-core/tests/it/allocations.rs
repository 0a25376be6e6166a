//! N2: a window that is kept ready costs no allocation.

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
