//! Heads that readers share.

use contextkeep_cache::Policy;

use super::*;
use crate::manager::ContextManager;
use crate::settings::LimitSettings;
use crate::{Head, OptimizedContextManager};

struct Shared {
    store: CachedStore,
    manager: OptimizedContextManager,
}

impl Shared {
    /// The context `a`.
    async fn new(policy: Policy) -> Self {
        let clock = crate::contract::clock();
        let cache = Cache::builder(CACHE_NAME).policy(policy).build().unwrap();
        let fake = Arc::new(FakeStore::new(clock.clone()));
        let store = CachedStore::new(fake, cache, Some(LIMITS), clock);
        store.create(&tenant(), new("a")).await.unwrap();
        let manager = OptimizedContextManager::new(store.clone(), LimitSettings::default());
        Self { store, manager }
    }

    async fn read(&self, consistency: Consistency) -> (Arc<Head>, Arc<Session>) {
        let key = key("a");
        let (head, session) = in_session(consistency, self.manager.get(&key)).await;
        (head.unwrap().value, session)
    }

    fn ready(&self, session: &Arc<Session>) -> Option<Arc<Head>> {
        let ready = session.sync_scope(|| self.manager.get_ready(&key("a")))?;
        assert_eq!(ready.origin, Origin::L1);
        Some(ready.value)
    }
}

fn session(consistency: Consistency) -> Arc<Session> {
    Session::new(consistency, Token::default())
}

#[tokio::test]
async fn readers_of_one_version_share_it_and_their_sessions_know() {
    let shared = Shared::new(Policy::default()).await;
    let (first, seen) = shared.read(Consistency::Session).await;
    let (second, _) = shared.read(Consistency::Bounded).await;
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(seen.token().floor(&key("a")), Some(1));
    for consistency in [Consistency::Session, Consistency::Bounded, Consistency::Any] {
        let session = session(consistency);
        let ready = shared.ready(&session).unwrap();
        assert!(Arc::ptr_eq(&first, &ready), "{consistency:?}");
        assert_eq!(session.token().floor(&key("a")), Some(1));
        assert!(session.age().is_some());
    }
    assert_eq!(
        **first,
        shared.store.head(&key("a")).await.unwrap(),
        "as the store has it"
    );
}

// K1, Q3
#[tokio::test]
async fn what_is_ready_is_not_given_to_who_may_have_seen_more() {
    let shared = Shared::new(Policy::default()).await;
    shared.read(Consistency::Session).await;
    assert!(shared.ready(&session(Consistency::Strong)).is_none());
    assert!(
        shared.manager.get_ready(&key("a")).is_none(),
        "outside of every session"
    );
    let later = session(Consistency::Session);
    later.saw(&key("a"), 2);
    assert!(shared.ready(&later).is_none());
    let forgetful = session(Consistency::Session);
    forgetful.saw_unplaced();
    assert!(shared.ready(&forgetful).is_none());
    assert!(
        forgetful.origin().is_none(),
        "nothing is noted of what was not given"
    );
}

#[tokio::test]
async fn what_is_ready_follows_each_change() {
    let shared = Shared::new(Policy::default()).await;
    let (first, _) = shared.read(Consistency::Session).await;
    shared.store.append(&key("a"), said("1")).await.unwrap();
    let ready = shared.ready(&session(Consistency::Session)).unwrap();
    assert_eq!((first.version, ready.version), (1, 2));
    shared.store.delete(&key("a"), None).await.unwrap();
    assert!(shared.ready(&session(Consistency::Any)).is_none());
    let key = key("a");
    let (gone, _) = in_session(Consistency::Any, shared.manager.get(&key)).await;
    assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
}

/// Else a head that is only read so would not be refreshed before its end.
#[tokio::test]
async fn one_that_is_to_be_refreshed_is_left_to_who_may_load() {
    let mut policy = Policy::default();
    policy.refresh_after = 1e-12;
    let shared = Shared::new(policy).await;
    let (_, seen) = shared.read(Consistency::Session).await;
    assert_eq!(seen.origin(), Some(Origin::L1));
    assert!(shared.ready(&session(Consistency::Session)).is_none());
}
