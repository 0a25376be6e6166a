//! Contexts that were forgotten and made anew, and stores whose history is another one.

use super::*;
use crate::store::Retention;

async fn run(store: &CachedStore, id: &str) -> Vec<String> {
    let (tail, _) = in_session(Consistency::Session, store.tail(&key(id), budget(1000))).await;
    let run = tail.unwrap().run;
    run.iter().map(|item| item.body.to_string()).collect()
}

fn body(append: &Append) -> Vec<String> {
    append.items.iter().map(|item| item.body.to_string()).collect()
}

// G6: whoever deleted it was another process, and its tombstone is gone, so that versions begin again below what is held.
#[tokio::test]
async fn a_context_made_anew_is_not_answered_with_the_one_before() {
    let clock = crate::contract::clock();
    let fake = Arc::new(FakeStore::new(clock.clone()));
    let store = over(fake.clone(), clock.clone());
    store.create(&tenant(), new("a")).await.unwrap();
    for text in ["1", "2", "3"] {
        store.append(&key("a"), said(text)).await.unwrap();
    }
    assert_eq!(run(&store, "a").await.len(), 3);
    fake.delete(&key("a"), None).await.unwrap();
    clock.advance(Duration::from_hours(1));
    let forget = Retention {
        tombstones_before: clock.now(),
        keys_before: clock.now(),
        batch: 100,
    };
    fake.purge(forget).await.unwrap();
    // The head is not what this is about: it has gone out of its cache long ago.
    store.cache().clear();
    let anew = fake.create(&tenant(), new("a")).await.unwrap().context;
    assert_eq!(anew.version, 1);
    let other = said("anew");
    fake.append(&key("a"), other.clone()).await.unwrap();
    assert_eq!(run(&store, "a").await, body(&other));
    assert_eq!(
        run(&store, "a").await,
        body(&other),
        "and that is what is held from now on"
    );
}

// A promoted standby had not received everything: other items have the same version, stream and seq.
#[tokio::test]
async fn what_is_held_of_another_history_is_not_answered() {
    let clock = crate::contract::clock();
    let store = Arc::new(seated::Promoted::new(clock.clone()));
    let cached = over(store.clone(), clock);
    cached.create(&tenant(), new("a")).await.unwrap();
    let lost = said("lost");
    cached.append(&key("a"), lost.clone()).await.unwrap();
    assert_eq!(run(&cached, "a").await, body(&lost));
    store.promote().await;
    let kept = said("kept");
    store.append(&key("a"), kept.clone()).await.unwrap();
    assert_eq!(run(&cached, "a").await, body(&kept));
}
