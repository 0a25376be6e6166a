//! One load for all, whatever becomes of those who wait.

use std::sync::Arc;

use contextkeep_cache::{Cache, Error, Loader, Policy, Put, Read, Wanted, loader};

use crate::source::{Source, cache, ms, v};

async fn herd(cache: &Cache, loader: &Arc<dyn Loader>, waiters: usize) -> Vec<Result<u64, Error>> {
    let mut tasks = Vec::new();
    for _ in 0..waiters {
        let (cache, loader) = (cache.clone(), Arc::clone(loader));
        tasks.push(tokio::spawn(async move {
            let answer = cache.get_or_load("k", &Read::new(), &loader).await;
            answer.map(|answer| answer.version().get())
        }));
    }
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test(start_paused = true)]
async fn a_hundred_waiters_share_one_load() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    source.delay(ms(20));
    let results = herd(&cache, &source.loader(), 100).await;
    assert!(results.iter().all(|result| *result.as_ref().unwrap() == 1));
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_waiters_share_one_failure() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.delay(ms(20));
    source.fail(true);
    let start = tokio::time::Instant::now();
    let results = herd(&cache, &source.loader(), 100).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::Load(_)))));
    assert_eq!(source.loads(), 1);
    // N8: as long as one load, not a hundred.
    assert!(start.elapsed() <= ms(22), "{:?}", start.elapsed());
    // F16: the failure stays the answer for a moment, then the source is asked again.
    let loader = source.loader();
    cache.get_or_load("k", &Read::new(), &loader).await.unwrap_err();
    assert_eq!(source.loads(), 1);
    source.fail(false);
    source.set("k", 1, "one");
    tokio::time::sleep(ms(50)).await;
    cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    assert_eq!(source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_end_the_load() {
    // F15.
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    source.delay(ms(50));
    let loader = source.loader();
    let read = Read::new();
    for _ in 0..2 {
        let read = cache.get_or_load("k", &read, &loader);
        tokio::time::timeout(ms(20), Box::pin(read)).await.unwrap_err();
    }
    tokio::time::sleep(ms(20)).await;
    assert_eq!(source.loads(), 1);
    assert_eq!(cache.get("k", &Read::new()).unwrap().version(), v(1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_a_newer_floor_does_not_join_an_older_load() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    source.delay(ms(50));
    let loader = source.loader();
    let early = {
        let (cache, loader) = (cache.clone(), Arc::clone(&loader));
        tokio::spawn(async move { cache.get_or_load("k", &Read::new(), &loader).await })
    };
    tokio::time::sleep(ms(10)).await;
    source.set("k", 2, "two");
    let late = cache
        .get_or_load("k", &Read::new().floor(v(2)), &loader)
        .await
        .unwrap();
    assert_eq!(late.version(), v(2));
    assert_eq!(early.await.unwrap().unwrap().version(), v(1));
    assert_eq!(source.loads(), 2);
    let kept = cache.get("k", &Read::new()).unwrap();
    assert_eq!(kept.version(), v(2), "F2: the superseded flight stores nothing");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_began_before_a_change_is_not_stored_after_it() {
    // F1, G6: the source's row is read before the change, and its answer comes after.
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    source.delay(ms(50));
    let loader = source.loader();
    let slow = {
        let (cache, loader) = (cache.clone(), Arc::clone(&loader));
        tokio::spawn(async move { cache.get_or_load("k", &Read::new(), &loader).await })
    };
    tokio::time::sleep(ms(10)).await;
    source.set("k", 2, "two");
    cache.put(Put::invalidation("k", v(2))).await.unwrap();
    // It is loaded again rather than answered with what is known to be old.
    assert_eq!(slow.await.unwrap().unwrap().version(), v(2));
    assert_eq!(cache.get("k", &Read::new()).unwrap().version(), v(2));
}

#[tokio::test(start_paused = true)]
async fn a_delete_during_a_load_is_not_undone_by_it() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    source.delay(ms(50));
    let loader = source.loader();
    let slow = {
        let (cache, loader) = (cache.clone(), Arc::clone(&loader));
        tokio::spawn(async move { cache.get_or_load("k", &Read::new(), &loader).await })
    };
    tokio::time::sleep(ms(10)).await;
    cache.put(Put::tombstone("k", v(2))).await.unwrap();
    // The source still has the old row, so there is nothing good to answer with; but nothing old is kept.
    let answer = slow.await.unwrap();
    assert!(matches!(answer, Err(Error::BelowFloor { .. })), "{answer:?}");
    let kept = cache.get("k", &Read::new()).unwrap();
    assert!(kept.value().is_none() && kept.version() == v(2));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stays_behind_the_floor_is_an_error() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    let read = Read::new().floor(v(5));
    let error = cache.get_or_load("k", &read, &source.loader()).await.unwrap_err();
    assert!(matches!(error, Error::BelowFloor { floor, found } if floor == v(5) && found == v(1)));
    let wanted = source.wanted.lock().unwrap();
    assert_eq!(wanted.last().unwrap().source, contextkeep_cache::Source::Newest);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_panics_or_answers_nothing_ends_for_all() {
    let cache = cache(Policy::default());
    let none = loader::many(|_| async { Ok::<_, Error>(Vec::new()) });
    let results = herd(&cache, &none, 3).await;
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Err(Error::Abandoned)))
    );
    tokio::time::sleep(ms(50)).await;
    let panics = loader::one(|wanted: Wanted| async move {
        assert!(wanted.key.is_empty(), "a bug of the loader");
        Err::<contextkeep_cache::Loaded, _>(Error::Abandoned)
    });
    let results = herd(&cache, &panics, 3).await;
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Err(Error::Abandoned)))
    );
    assert_eq!(cache.stats().loads, 0);
}

#[tokio::test(start_paused = true)]
async fn loads_and_waits_are_bounded() {
    let mut policy = Policy::default();
    policy.max_loads = 1;
    policy.hard_timeout = ms(100);
    policy.load_timeout = ms(500);
    let (cache, source) = (cache(policy), Source::new());
    source.delay(ms(10_000));
    let loader = source.loader();
    let first = cache.get_or_load("a", &Read::new(), &loader).await.unwrap_err();
    assert!(matches!(first, Error::TimedOut(after) if after == ms(100)));
    let second = cache.get_or_load("b", &Read::new(), &loader).await.unwrap_err();
    assert!(matches!(second, Error::Overloaded) && second.is_retryable());
    tokio::time::sleep(ms(500)).await;
    assert_eq!(cache.stats().loads, 0, "the load has its own end");
}

#[tokio::test(start_paused = true)]
async fn many_keys_are_loaded_in_one_call() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    for key in ["a", "b", "c"] {
        source.set(key, 1, key);
    }
    let loader = source.loader();
    cache.get_or_load("b", &Read::new(), &loader).await.unwrap();
    let keys = ["a", "b", "c", "gone", "a"];
    let answers = cache.get_many(&keys, &Read::new(), &loader).await;
    let values: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap().value().cloned())
        .collect();
    let expected = [Some("a"), Some("b"), Some("c"), None, Some("a")].map(|v| v.map(bytes::Bytes::from));
    assert_eq!(values, expected);
    assert_eq!(source.calls.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert_eq!(source.loads(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_changes_faster_than_the_source_answers_is_still_answered() {
    // G9; the simulation's seed 6859.
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    source.delay(ms(100));
    let loader = source.loader();
    let writing = {
        let (cache, source) = (cache.clone(), Arc::clone(&source));
        tokio::spawn(async move {
            for version in 2..40 {
                tokio::time::sleep(ms(30)).await;
                source.set("k", version, "more");
                cache.put(Put::invalidation("k", v(version))).await.unwrap();
            }
        })
    };
    let answer = cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    assert!(answer.version() >= v(2), "{answer:?}");
    assert!(cache.get("k", &Read::new()).is_none(), "G6: it is not kept");
    writing.abort();
}
