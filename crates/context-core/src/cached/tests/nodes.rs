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
