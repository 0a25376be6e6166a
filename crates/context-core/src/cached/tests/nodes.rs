//! Two processes on one store that tells what changed.

use std::sync::Mutex;

use super::*;
use crate::cached::feed::{ChangeFeed, Changes, FeedBackplane};

/// Tells what it is told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<(ContextKey, Version)>>, std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl ChangeFeed for Told {
    async fn changes(&self) -> Result<Changes> {
        if self.1.swap(false, Ordering::Relaxed) {
            return Ok(Changes::Unknown);
        }
        Ok(Changes::Known(std::mem::take(&mut *self.0.lock().unwrap())))
    }
}

fn node(store: &Arc<FakeStore>, told: &Arc<Told>, clock: &Arc<ManualClock>) -> CachedStore {
    let feed = FeedBackplane::new(told.clone(), store.clone());
    let cache = Cache::builder(CACHE_NAME)
        .partitions(FeedBackplane::PARTITIONS)
        .backplane(Arc::new(feed))
        .build()
        .unwrap();
    CachedStore::new(store.clone(), cache, Some(LIMITS), clock.clone())
}

pub(super) async fn settled(node: &CachedStore) {
    for _ in 0..100 {
        if node.cache().stats().trusted_partitions == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the feed was not followed");
}

// G5, F11: a change that reached no cache is seen by the store's own word.
#[tokio::test(start_paused = true)]
async fn what_another_process_wrote_is_seen_within_the_bound() {
    let clock = crate::contract::clock();
    let (store, told) = (Arc::new(FakeStore::new(clock.clone())), Arc::new(Told::default()));
    let node = node(&store, &told, &clock);
    settled(&node).await;
    node.create(&tenant(), new("a")).await.unwrap();
    let read = |consistency| {
        let (node, key) = (node.clone(), key("a"));
        async move { in_session(consistency, async move { node.tail(&key, budget(1000)).await }).await }
    };
    read(Consistency::Session).await.0.unwrap();
    let (_, session) = read(Consistency::Session).await;
    assert_eq!(
        session.origin(),
        Some(Origin::L1),
        "what is trusted is answered from memory"
    );
    // Elsewhere.
    store.append(&key("a"), said("1")).await.unwrap();
    told.0.lock().unwrap().push((key("a"), 2));
    tokio::time::sleep(node.cache().bound()).await;
    assert_eq!(read(Consistency::Session).await.0.unwrap().run.len(), 1);
    // And where the feed has lost its place, nothing is taken for fresh.
    store.append(&key("a"), said("2")).await.unwrap();
    told.1.store(true, Ordering::Relaxed);
    tokio::time::sleep(node.cache().bound()).await;
    assert_eq!(read(Consistency::Session).await.0.unwrap().run.len(), 2);
}

// G4: the token of another process is a floor here.
#[tokio::test]
async fn a_token_from_another_process_is_honoured_at_once() {
    let clock = crate::contract::clock();
    let (store, told) = (Arc::new(FakeStore::new(clock.clone())), Arc::new(Told::default()));
    let nodes = [node(&store, &told, &clock), node(&store, &told, &clock)];
    nodes[0].create(&tenant(), new("a")).await.unwrap();
    for round in 1..50_u64 {
        let (here, there) = if round.is_multiple_of(2) { (0, 1) } else { (1, 0) };
        let appended = nodes[here].append(&key("a"), said("x")).await.unwrap();
        let mut token = Token::default();
        let session = Session::new(Consistency::Session, std::mem::take(&mut token));
        session.saw(&key("a"), appended.version);
        let tail = session
            .scope(nodes[there].tail(&key("a"), budget(100_000)))
            .await
            .unwrap();
        assert_eq!(tail.context.version, appended.version);
        assert_eq!(tail.run.len() as u64, round);
    }
}

// G4: what a session has seen of a context, on a standby that was ahead or before a failover, says nothing of it to others.
#[tokio::test(start_paused = true)]
async fn an_absence_found_below_a_floor_does_not_outlive_a_create() {
    for floor in [1, 7] {
        let clock = crate::contract::clock();
        let (store, told) = (Arc::new(FakeStore::new(clock.clone())), Arc::new(Told::default()));
        let node = node(&store, &told, &clock);
        settled(&node).await;
        let early = Session::new(Consistency::Session, Token::default());
        early.saw(&key("a"), floor);
        let head = early.scope(node.head(&key("a"))).await;
        assert!(matches!(head, Err(Error::NotFound)), "{head:?}");
        let created = node.create(&tenant(), new("a")).await.unwrap();
        told.0.lock().unwrap().push((key("a"), created.context.version));
        tokio::time::sleep(node.cache().bound() * 2).await;
        let (head, _) = in_session(Consistency::Session, node.head(&key("a"))).await;
        assert_eq!(head.unwrap(), created.context);
    }
}

// G6: what is held here is of a context that another process has deleted and created anew.
#[tokio::test(start_paused = true)]
async fn a_fork_has_nothing_of_what_its_parent_s_id_stood_for_before() {
    let clock = crate::contract::clock();
    let (store, told) = (Arc::new(FakeStore::new(clock.clone())), Arc::new(Told::default()));
    let node = node(&store, &told, &clock);
    settled(&node).await;
    node.create(&tenant(), new("a")).await.unwrap();
    for text in ["old 1", "old 2", "old 3"] {
        node.append(&key("a"), said(text)).await.unwrap();
    }
    let (held, _) = in_session(Consistency::Session, node.tail(&key("a"), budget(1000))).await;
    assert_eq!(held.unwrap().run.len(), 3);
    store.delete(&key("a"), None).await.unwrap();
    store.create(&tenant(), new("a")).await.unwrap();
    let appended = store.append(&key("a"), said("new 1")).await.unwrap();
    told.0.lock().unwrap().push((key("a"), appended.version));
    tokio::time::sleep(node.cache().bound() * 2).await;
    let forked = node.fork(&key("a"), Seq::MAX, new("fork")).await.unwrap();
    assert_eq!(forked.context.item_count, 1);
    let (tail, _) = in_session(Consistency::Session, node.tail(&key("fork"), budget(1000))).await;
    let stored = store.tail(&key("fork"), budget(1000)).await.unwrap();
    assert_eq!(tail.unwrap().run, stored.run);
}
