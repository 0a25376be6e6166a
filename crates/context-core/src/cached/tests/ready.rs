//! Windows that are kept ready, given with and without a look at the head.

use futures_util::FutureExt as _;

use super::super::key::Name;
use super::*;
use crate::cached::feed::FeedBackplane;
use crate::manager::ContextManager;
use crate::settings::LimitSettings;
use crate::{OptimizedContextManager, WindowRequest};

/// More than it takes until the head is looked up once more.
const ROUNDS: usize = 200;

struct Ready {
    store: CachedStore,
    manager: OptimizedContextManager,
}

impl Ready {
    /// The context `a` with one item, whose window is kept ready.
    async fn new(store: CachedStore, expires_at: Option<crate::Timestamp>) -> Self {
        let manager = OptimizedContextManager::new(store.clone(), LimitSettings::default());
        let ready = Self { store, manager };
        let new = NewContext {
            expires_at,
            ..new("a")
        };
        ready.store.create(&tenant(), new).await.unwrap();
        ready.store.append(&key("a"), said("1")).await.unwrap();
        ready.keep().await;
        ready
    }

    async fn keep(&self) {
        let key = key("a");
        let window = self.manager.window(&key, WindowRequest::default());
        in_session(Consistency::Session, window).await.0.unwrap();
    }

    /// Has the head in memory.
    async fn look_up(&self) {
        let (store, key) = (self.store.clone(), key("a"));
        let head = async move { store.head(&key).await };
        in_session(Consistency::Session, head).await.0.unwrap();
    }

    fn given(&self, session: &Arc<Session>) -> Option<usize> {
        let ready = session.sync_scope(|| self.manager.window_ready(&key("a"), &WindowRequest::default()))?;
        Some(ready.value.items.len())
    }

    /// What sessions without a past are given, which all have to be the same.
    fn always(&self) -> Option<usize> {
        let session = || Session::new(Consistency::Session, Token::default());
        let first = self.given(&session());
        for _ in 0..ROUNDS {
            assert_eq!(self.given(&session()), first);
        }
        first
    }
}

fn on_fake() -> (Arc<ManualClock>, CachedStore) {
    let clock = crate::contract::clock();
    let store = over(Arc::new(FakeStore::new(clock.clone())), clock.clone());
    (clock, store)
}

#[tokio::test]
async fn it_is_given_again_and_again_and_the_session_knows() {
    let (_, store) = on_fake();
    let ready = Ready::new(store, None).await;
    for consistency in [Consistency::Session, Consistency::Bounded, Consistency::Any] {
        let session = Session::new(consistency, Token::default());
        for _ in 0..ROUNDS {
            assert_eq!(ready.given(&session), Some(1));
            assert_eq!(session.token().floor(&key("a")), Some(2));
            assert_eq!(session.origin(), Some(Origin::L1));
            assert!(session.age().is_some());
        }
    }
    let strong = Session::new(Consistency::Strong, Token::default());
    assert_eq!(ready.given(&strong), None, "K1");
    assert!(strong.token().is_empty());
    assert!(
        ready
            .manager
            .window_ready(&key("a"), &WindowRequest::default())
            .is_none()
    );
}

// G4, Q3
#[tokio::test]
async fn it_is_not_given_below_a_floor_or_to_who_may_have_seen_more() {
    let (_, store) = on_fake();
    let ready = Ready::new(store, None).await;
    assert_eq!(ready.always(), Some(1));
    for (version, given) in [(1, Some(1)), (2, Some(1)), (3, None)] {
        let session = Session::new(Consistency::Session, Token::default());
        session.saw(&key("a"), version);
        assert_eq!(ready.given(&session), given, "{version}");
    }
    let session = Session::new(Consistency::Session, Token::default());
    session.saw_unplaced();
    assert_eq!(ready.given(&session), None);
    session.saw(&key("a"), 2);
    assert_eq!(ready.given(&session), Some(1));
}

#[tokio::test]
async fn a_large_one_is_kept_whatever_the_number_of_cores() {
    let clock = crate::contract::clock();
    let limits = HeldLimits {
        contexts: 10_000,
        bytes: 4 << 20,
        context_bytes: 1 << 20,
        cold_percent: 30,
    };
    let cache = Cache::builder(CACHE_NAME).build().unwrap();
    let fake = Arc::new(FakeStore::new(clock.clone()));
    let ready = Ready::new(CachedStore::new(fake, cache, Some(limits), clock), None).await;
    let large = said(&"x".repeat(900 << 10));
    ready.store.append(&key("a"), large).await.unwrap();
    let request = WindowRequest {
        max_tokens: Some(1 << 20),
        ..WindowRequest::default()
    };
    let key = key("a");
    let window = ready.manager.window(&key, request);
    let (_, session) = in_session(Consistency::Session, window).await;
    let given = session.sync_scope(|| ready.manager.window_ready(&key, &request));
    assert_eq!(given.map(|given| given.value.items.len()), Some(2));
}

// K2: told before its answer, so that not even the next read is given what was before.
#[tokio::test]
async fn it_is_not_given_after_a_change() {
    let (_, store) = on_fake();
    let ready = Ready::new(store, None).await;
    for items in 2..6 {
        assert_eq!(ready.always(), Some(items - 1));
        ready.store.append(&key("a"), said("more")).await.unwrap();
        assert_eq!(ready.always(), None);
        ready.keep().await;
    }
    ready.store.delete(&key("a"), None).await.unwrap();
    assert_eq!(ready.always(), None);
}

// A change of which the end that is held was told nothing, as one of another process: its head alone takes its place.
#[tokio::test]
async fn it_is_not_given_after_its_head_was_replaced_or_forgotten() {
    let (_, store) = on_fake();
    let ready = Ready::new(store, None).await;
    let inner = &ready.store.0;
    let name = Name::new(0, &key("a"));
    assert_eq!(ready.always(), Some(1));
    let put = contextkeep_cache::Put::invalidation(name.as_str(), 3.into());
    inner.heads.cache().put(put).await.unwrap();
    assert_eq!(ready.always(), None);

    let ready = Ready::new(on_fake().1, None).await;
    assert_eq!(ready.always(), Some(1));
    ready.store.cache().clear();
    assert_eq!(ready.always(), None);
    ready.look_up().await;
    assert_eq!(ready.always(), Some(1), "D2: and again with a head that is there");
}

// D2. Of the same version, and told apart by its stream: a context that was forgotten and made anew.
#[tokio::test]
async fn it_is_not_given_for_another_stream() {
    let (clock, store) = on_fake();
    let ready = Ready::new(store, None).await;
    ready.store.delete(&key("a"), None).await.unwrap();
    clock.advance(Duration::from_secs(10));
    let retention = Retention {
        tombstones_before: clock.now(),
        keys_before: clock.now(),
        batch: 100,
    };
    ready.store.purge(retention).await.unwrap();
    // Another process has made it, and told this one nothing.
    ready.store.0.store.create(&tenant(), new("a")).await.unwrap();
    let again = ready.store.0.store.append(&key("a"), said("other")).await;
    assert_eq!(again.unwrap().version, 2, "as before");
    ready.store.cache().clear();
    ready.look_up().await;
    assert_eq!(ready.always(), None);
}

/// A clock that goes ahead by seconds of which the runtime knows nothing, as after a suspended process whose timers have
/// not fired yet.
#[derive(Debug, Default)]
struct Ahead(AtomicU64);

impl contextkeep_cache::Clock for Ahead {
    fn now(&self) -> contextkeep_cache::Nanos {
        let ahead = Duration::from_secs(self.0.load(Ordering::Relaxed));
        contextkeep_cache::TokioClock.now().after(ahead)
    }
}

/// A store whose changes others tell, or nobody, with a cache whose clock can go ahead of its runtime's.
async fn suspended(told: Option<Arc<nodes::Told>>) -> (Arc<Ahead>, Ready) {
    let ahead = Arc::new(Ahead::default());
    let clock = crate::contract::clock();
    let fake = Arc::new(FakeStore::new(clock.clone()));
    let mut cache = Cache::builder(CACHE_NAME)
        .clock(ahead.clone())
        .bound(Duration::from_secs(10));
    if let Some(told) = &told {
        let feed = FeedBackplane::new(told.clone(), fake.clone());
        cache = cache
            .partitions(FeedBackplane::PARTITIONS)
            .backplane(Arc::new(feed));
    }
    let store = CachedStore::new(fake, cache.build().unwrap(), Some(LIMITS), clock);
    if told.is_some() {
        nodes::settled(&store).await;
    }
    (ahead, Ready::new(store, None).await)
}

// G7. The fault run saw an age of zero a moment after a server that had been stopped for two seconds went on.
#[tokio::test(start_paused = true)]
async fn what_is_given_after_a_suspension_says_its_whole_age() {
    let (ahead, ready) = suspended(Some(Arc::default())).await;
    assert_eq!(ready.always(), Some(1));
    // From here on nothing is awaited: the cache's own clock stays where it is.
    ahead.0.fetch_add(1, Ordering::Relaxed);
    let session = Session::new(Consistency::Any, Token::default());
    for _ in 0..ROUNDS {
        assert_eq!(ready.given(&session), Some(1));
        assert!(session.age().unwrap() >= Duration::from_secs(1));
    }
    let (key, session) = (key("a"), Session::new(Consistency::Any, Token::default()));
    let head = session.scope(ready.store.head(&key)).now_or_never();
    assert_eq!(head.expect("it is held").unwrap().version, 2);
    assert!(session.age().unwrap() >= Duration::from_secs(1));
    // G5
    ahead.0.fetch_add(3600, Ordering::Relaxed);
    assert_eq!(ready.always(), None);
}

// Where nobody else changes anything, what is in memory is the newest, whatever the time.
#[tokio::test(start_paused = true)]
async fn what_nobody_else_changes_is_given_after_a_suspension() {
    let (ahead, ready) = suspended(None).await;
    ahead.0.fetch_add(3600, Ordering::Relaxed);
    assert_eq!(ready.always(), Some(1));
}

// K5
#[tokio::test]
async fn it_is_not_given_after_its_time() {
    let (clock, store) = on_fake();
    let soon = clock.now().saturating_add(Duration::from_secs(10));
    let ready = Ready::new(store, Some(soon)).await;
    assert_eq!(ready.always(), Some(1));
    clock.advance(Duration::from_secs(11));
    assert_eq!(ready.always(), None);
}

// H3
#[tokio::test]
async fn it_is_not_given_in_another_history() {
    let clock = crate::contract::clock();
    let promoted = Arc::new(seated::Promoted::new(clock.clone()));
    let ready = Ready::new(over(promoted.clone(), clock), None).await;
    assert_eq!(ready.always(), Some(1));
    promoted.promote().await;
    assert_eq!(ready.always(), None);
    promoted.append(&key("a"), said("other")).await.unwrap();
    ready.look_up().await;
    assert_eq!(ready.always(), None, "nor by a head of the same version");
}
