//! The store with a memory against the store behind it.

mod against;
mod histories;
mod nodes;
mod ready;
mod seated;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::seated::Seated;
use super::*;
use crate::clock::ManualClock;
use crate::fake::FakeStore;
use crate::id::{ContextId, TenantId};
use crate::semantic::VectorStore;
use crate::session::Token;
use crate::store::{
    Append, Appended, ContextPage, Created, ItemPage, ListQuery, Purged, Replaced, Retention, SearchPage,
    SearchQuery, SeqRange, StoreHealth, Tail,
};
use crate::summary::Summary;
use crate::{ContextPatch, NewContext, NewItem, Tokenizer};

const LIMITS: HeldLimits = HeldLimits {
    contexts: 100,
    bytes: 8 << 20,
    context_bytes: 1 << 20,
    cold_percent: 30,
};

fn over(store: Arc<dyn ContextStore>, clock: Arc<dyn Clock>) -> CachedStore {
    let cache = Cache::builder(CACHE_NAME).build().unwrap();
    CachedStore::new(store, cache, Some(LIMITS), clock)
}

fn seated(clock: Arc<ManualClock>) -> std::future::Ready<(Arc<dyn ContextStore>, ())> {
    let store = over(Arc::new(FakeStore::new(clock.clone())), clock);
    std::future::ready((Arc::new(Seated(store)), ()))
}

// Every case of the port's contract, each call in a session of its own.
crate::store_contract!(seated);

/// A session without a past.
async fn in_session<F: Future>(consistency: Consistency, work: F) -> (F::Output, Arc<Session>) {
    let session = Session::new(consistency, Token::default());
    let output = session.scope(work).await;
    (output, session)
}

fn said(text: &str) -> Append {
    let body = format!(r#"{{"role":"user","content":{text:?}}}"#);
    let mut item = NewItem::parse(&body, 1 << 20).unwrap();
    item.count(Tokenizer::Estimate);
    Append {
        items: Arc::from([item]),
        tokenizer: Tokenizer::Estimate,
        expected: None,
        idempotency: None,
    }
}

fn new(id: &str) -> NewContext {
    NewContext {
        tokenizer: Some(Tokenizer::Estimate),
        ..NewContext::of_agent("a").with_id(ContextId::parse(id).unwrap())
    }
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn key(id: &str) -> ContextKey {
    ContextKey::new(tenant(), ContextId::parse(id).unwrap())
}

fn budget(tokens: u64) -> TailQuery {
    TailQuery {
        max_tokens: Some(tokens),
        reserve: 0,
        items_max: 1000,
        bytes_max: 1 << 20,
    }
}

#[tokio::test]
async fn a_second_read_asks_nobody_and_says_so() {
    let clock = crate::contract::clock();
    let counted = Arc::new(seated::Counted::new(FakeStore::new(clock.clone())));
    let store = over(counted.clone(), clock);
    store.create(&tenant(), new("a")).await.unwrap();
    for text in ["1", "2", "3"] {
        store.append(&key("a"), said(text)).await.unwrap();
    }
    let (first, _) = in_session(Consistency::Session, store.tail(&key("a"), budget(1000))).await;
    let asked = counted.reads.load(Ordering::Relaxed);
    let (second, session) = in_session(Consistency::Session, store.tail(&key("a"), budget(1000))).await;
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(counted.reads.load(Ordering::Relaxed), asked);
    assert_eq!(session.origin(), Some(Origin::L1));
    // An append moves what is held forward: still nobody is asked.
    store.append(&key("a"), said("4")).await.unwrap();
    let (third, _) = in_session(Consistency::Session, store.tail(&key("a"), budget(1000))).await;
    assert_eq!(third.unwrap().run.len(), 4);
    assert_eq!(counted.reads.load(Ordering::Relaxed), asked);
    // Who asks for the newest, or is in no session, has the store itself asked.
    let (strong, session) = in_session(Consistency::Strong, store.tail(&key("a"), budget(1000))).await;
    assert_eq!(
        strong.unwrap(),
        store.tail(&key("a"), budget(1000)).await.unwrap()
    );
    assert_eq!(counted.reads.load(Ordering::Relaxed), asked + 2);
    assert_eq!(
        session.origin(),
        None,
        "the fake does not say where it answers from"
    );
}

// G10: what is pinned is never let go of, so that a context with too much of it is not held at all.
#[tokio::test]
async fn pinned_items_alone_do_not_outgrow_what_a_context_may_take() {
    let clock = crate::contract::clock();
    let store = over(Arc::new(FakeStore::new(clock.clone())), clock);
    store.create(&tenant(), new("a")).await.unwrap();
    let text = "x".repeat(300 * 1024);
    for count in 1..=6 {
        let body = format!(r#"{{"role":"user","content":"{text}","pinned":true}}"#);
        let mut item = NewItem::parse(&body, 1 << 20).unwrap();
        item.count(Tokenizer::Estimate);
        let append = Append {
            items: Arc::from([item]),
            ..said("")
        };
        let query = TailQuery {
            bytes_max: 4 << 20,
            ..budget(10)
        };
        let work = async {
            store.append(&key("a"), append).await.unwrap();
            store.tail(&key("a"), query).await.unwrap()
        };
        let (tail, _) = in_session(Consistency::Session, work).await;
        assert_eq!(tail.kept.len(), count);
        let HeldStats { contexts, bytes, .. } = store.held();
        assert!(
            bytes <= LIMITS.context_bytes + 1024,
            "{bytes} bytes of {contexts} contexts"
        );
    }
    assert_eq!(store.held().contexts, 0);
}

#[tokio::test]
async fn a_fork_holds_what_its_parent_holds() {
    let clock = crate::contract::clock();
    let counted = Arc::new(seated::Counted::new(FakeStore::new(clock.clone())));
    let store = over(counted.clone(), clock);
    store.create(&tenant(), new("a")).await.unwrap();
    for text in ["1", "2", "3", "4"] {
        store.append(&key("a"), said(text)).await.unwrap();
    }
    in_session(Consistency::Session, store.tail(&key("a"), budget(1000)))
        .await
        .0
        .unwrap();
    store.fork(&key("a"), 3, new("f")).await.unwrap();
    let asked = counted.reads.load(Ordering::Relaxed);
    let (tail, _) = in_session(Consistency::Session, store.tail(&key("f"), budget(1000))).await;
    let tail = tail.unwrap();
    assert_eq!(counted.reads.load(Ordering::Relaxed), asked);
    assert_eq!(tail, store.tail(&key("f"), budget(1000)).await.unwrap());
}

#[tokio::test]
async fn a_hundred_that_miss_together_ask_once() {
    let clock = crate::contract::clock();
    let counted = Arc::new(seated::Counted::new(FakeStore::new(clock.clone())));
    counted.create(&tenant(), new("a")).await.unwrap();
    counted.append(&key("a"), said("1")).await.unwrap();
    let store = over(counted.clone(), clock);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        readers.spawn(async move {
            let key = key("a");
            in_session(Consistency::Session, store.tail(&key, budget(1000)))
                .await
                .0
                .unwrap()
        });
    }
    while let Some(tail) = readers.join_next().await {
        assert_eq!(tail.unwrap().run.len(), 1);
    }
    assert_eq!(counted.reads.load(Ordering::Relaxed), 2, "one head, one tail");
}

// K2: the client hung up; the next reader must not see the past for it.
#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_has_gone_is_told() {
    let clock = crate::contract::clock();
    let slow = Arc::new(seated::Slow(FakeStore::new(clock.clone())));
    let store = over(slow, clock);
    store.create(&tenant(), new("a")).await.unwrap();
    in_session(Consistency::Session, store.head(&key("a")))
        .await
        .0
        .unwrap();
    let key = key("a");
    let append = store.append(&key, said("1"));
    // The commit is done, its answer is on its way.
    let gone = tokio::time::timeout(seated::Slow::ANSWER / 2, append).await;
    assert!(gone.is_err());
    tokio::time::sleep(seated::Slow::ANSWER).await;
    let (head, session) = in_session(Consistency::Bounded, store.head(&key)).await;
    assert_eq!((head.unwrap().version, session.origin()), (2, Some(Origin::L1)));
}

// K5
#[tokio::test]
async fn what_expires_is_gone_for_the_cache_as_well() {
    let clock = crate::contract::clock();
    let store = over(Arc::new(FakeStore::new(clock.clone())), clock.clone());
    let expiring = NewContext {
        expires_at: Some(clock.now().saturating_add(Duration::from_secs(10))),
        ..new("a")
    };
    store.create(&tenant(), expiring).await.unwrap();
    assert!(
        in_session(Consistency::Session, store.head(&key("a")))
            .await
            .0
            .is_ok()
    );
    clock.advance(Duration::from_secs(11));
    for consistency in [Consistency::Session, Consistency::Any] {
        let (head, _) = in_session(consistency, store.head(&key("a"))).await;
        assert!(matches!(head, Err(Error::NotFound)));
        let (tail, _) = in_session(consistency, store.tail(&key("a"), budget(1))).await;
        assert!(matches!(tail, Err(Error::NotFound)));
    }
}

// G7
// Servers of two versions share a cache while one replaces the other.
#[tokio::test]
async fn a_head_of_another_format_is_asked_of_the_store() {
    let clock = crate::contract::clock();
    let behind = Arc::new(FakeStore::new(clock.clone()));
    let store = over(behind.clone(), clock);
    store.create(&tenant(), new("a")).await.unwrap();
    let name = key::Name::new(behind.history(), &key("a"));
    // Written and told by a server that writes heads otherwise.
    behind.append(&key("a"), said("1")).await.unwrap();
    let told = contextkeep_cache::Put::value(name.as_str(), 2.into(), &b"\xffwhatever"[..]);
    store.cache().put(told).await.unwrap();
    let ids = [key("a").id];
    let (head, session) = in_session(Consistency::Session, store.head(&key("a"))).await;
    assert_eq!(head.unwrap(), behind.head(&key("a")).await.unwrap());
    assert_eq!(session.origin(), None, "the cache has answered");
    let (heads, _) = in_session(Consistency::Session, store.heads(&tenant(), &ids)).await;
    assert_eq!(heads.unwrap(), behind.heads(&tenant(), &ids).await.unwrap());
    let (tail, _) = in_session(Consistency::Session, store.tail(&key("a"), budget(1000))).await;
    assert_eq!(tail.unwrap(), behind.tail(&key("a"), budget(1000)).await.unwrap());
    // What this server then writes, it reads.
    store.append(&key("a"), said("2")).await.unwrap();
    in_session(Consistency::Session, store.head(&key("a")))
        .await
        .0
        .unwrap();
    let (head, session) = in_session(Consistency::Session, store.head(&key("a"))).await;
    assert_eq!((head.unwrap().version, session.origin()), (3, Some(Origin::L1)));
}

#[tokio::test]
async fn a_store_that_fails_is_replaced_by_the_past_only_for_who_takes_it() {
    let clock = crate::contract::clock();
    let counted = Arc::new(seated::Counted::new(FakeStore::new(clock.clone())));
    let store = over(counted.clone(), clock);
    store.create(&tenant(), new("a")).await.unwrap();
    in_session(Consistency::Session, store.tail(&key("a"), budget(1000)))
        .await
        .0
        .unwrap();
    // Another process appends; this one hears only that something was changed.
    counted.append(&key("a"), said("1")).await.unwrap();
    store
        .0
        .heads
        .tell(vec![(&key("a"), heads::Change::Unknown(2))])
        .await;
    counted.failing.store(true, Ordering::Relaxed);
    let (tail, _) = in_session(Consistency::Session, store.tail(&key("a"), budget(1000))).await;
    assert!(matches!(tail, Err(Error::Unavailable { .. })), "{tail:?}");
    counted.failing.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (tail, _) = in_session(Consistency::Session, store.tail(&key("a"), budget(1000))).await;
    assert_eq!(tail.unwrap().run.len(), 1);
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let clock = crate::contract::clock();
    let fake = Arc::new(FakeStore::new(clock.clone()));
    let limits = HeldLimits {
        contexts: 20,
        bytes: 64 << 10,
        context_bytes: 8 << 10,
        cold_percent: 30,
    };
    let cache = Cache::builder(CACHE_NAME).build().unwrap();
    let store = CachedStore::new(fake, cache, Some(limits), clock);
    let large = "x".repeat(1000);
    let reads = AtomicU64::new(0);
    for context in 0..60 {
        let id = format!("c{context}");
        store.create(&tenant(), new(&id)).await.unwrap();
        for _ in 0..12 {
            store.append(&key(&id), said(&large)).await.unwrap();
            let (tail, _) = in_session(Consistency::Session, store.tail(&key(&id), budget(100_000))).await;
            reads.fetch_add(tail.unwrap().run.len() as u64, Ordering::Relaxed);
            let HeldStats { contexts, bytes, .. } = store.held();
            assert!(
                contexts <= 20 && bytes <= 64 << 10,
                "{contexts} contexts of {bytes} bytes"
            );
        }
    }
    assert_eq!(reads.into_inner(), 60 * 78, "and every answer is whole");
}

/// Questions to the store of a second round of windows, of contexts that memory has no room for as they are.
async fn asked_again(cold_percent: u8) -> u64 {
    let clock = crate::contract::clock();
    let counted = Arc::new(seated::Counted::new(FakeStore::new(clock.clone())));
    let limits = HeldLimits {
        contexts: 1000,
        bytes: 128 << 10,
        context_bytes: 8 << 10,
        cold_percent,
    };
    let cache = Cache::builder(CACHE_NAME).build().unwrap();
    let store = CachedStore::new(counted.clone(), cache, Some(limits), clock);
    let ids: Vec<String> = (0..40).map(|context| format!("c{context}")).collect();
    let mut windows = Vec::new();
    for id in &ids {
        store.create(&tenant(), new(id)).await.unwrap();
        for number in 0..10 {
            store
                .append(&key(id), said(&format!("{number} of {id}")))
                .await
                .unwrap();
        }
        for _ in 0..3 {
            let (tail, _) = in_session(Consistency::Session, store.tail(&key(id), budget(1000))).await;
            windows.push(tail.unwrap());
        }
    }
    let before = counted.reads.load(Ordering::Relaxed);
    for (id, window) in ids.iter().zip(windows.iter().step_by(3)) {
        let (tail, _) = in_session(Consistency::Session, store.tail(&key(id), budget(1000))).await;
        assert_eq!(tail.unwrap(), *window);
    }
    let HeldStats {
        bytes, cold_contexts, ..
    } = store.held();
    assert!(bytes <= 128 << 10, "{bytes} bytes are held");
    assert_eq!(cold_contexts > 0, cold_percent > 0);
    store.clear();
    assert_eq!(store.held(), HeldStats::default());
    counted.reads.load(Ordering::Relaxed) - before
}

#[tokio::test]
async fn what_was_pushed_out_comes_back_without_a_question() {
    let (without, with) = (asked_again(0).await, asked_again(30).await);
    assert!(without > 10 && with == 0, "{without} and {with} questions");
}
