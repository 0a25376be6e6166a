//! Changes, tombstones and tags.

use contextkeep_cache::{Error, Mark, Policy, Put, Read, Receipt};

use crate::source::{Source, cache, v};

#[tokio::test]
async fn a_put_is_served_and_an_older_one_changes_nothing() {
    let cache = cache(Policy::default());
    cache.put(Put::value("k", v(2), "two")).await.unwrap();
    let receipt = cache.put(Put::value("k", v(1), "one")).await.unwrap();
    assert_eq!(receipt, Receipt::Superseded(v(2)));
    let answer = cache.get("k", &Read::new()).unwrap();
    assert_eq!(answer.value().unwrap(), "two");
    assert_eq!(answer.origin().as_str(), "l1");
}

#[tokio::test]
async fn a_tombstone_is_a_negative_entry_with_a_version() {
    // F24.
    let (cache, source) = (cache(Policy::default()), Source::new());
    cache.put(Put::tombstone("k", v(3))).await.unwrap();
    assert!(cache.get("k", &Read::new()).unwrap().value().is_none());
    assert!(cache.get("k", &Read::new().floor(v(4))).is_none());
    source.set("k", 4, "back");
    let read = Read::new().floor(v(4));
    let answer = cache.get_or_load("k", &read, &source.loader()).await.unwrap();
    assert_eq!(answer.value().unwrap(), "back");
}

#[tokio::test]
async fn an_invalidation_leaves_a_floor_and_no_value() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    let loader = source.loader();
    cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    cache.put(Put::invalidation("k", v(2))).await.unwrap();
    assert!(cache.get("k", &Read::new()).is_none());
    let error = cache.get_or_load("k", &Read::new(), &loader).await.unwrap_err();
    assert!(
        matches!(error, Error::BelowFloor { .. }),
        "a source that lags is not believed"
    );
}

#[tokio::test]
async fn a_late_put_is_not_kept_when_something_newer_may_have_been_evicted() {
    let cache = cache(Policy::default());
    cache
        .put(Put::value("k", v(2), "two").mark(Mark::new(20)))
        .await
        .unwrap();
    cache.clear();
    cache
        .put(Put::value("k", v(1), "one").mark(Mark::new(10)))
        .await
        .unwrap();
    assert!(cache.get("k", &Read::new()).is_none());
}

#[tokio::test]
async fn a_tag_drops_its_entries_and_no_others() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    let loader = source.loader();
    for (key, tag) in [("a", "red"), ("b", "red"), ("c", "blue")] {
        source.set(key, 1, key);
        let read = Read::new().tags([tag]);
        cache.get_or_load(key, &read, &loader).await.unwrap();
    }
    cache
        .put(Put::value("d", v(1), "d").tags(["red", "blue"]))
        .await
        .unwrap();
    assert_eq!(cache.invalidate_tag("red").await.unwrap(), Receipt::Acknowledged);
    let held = ["a", "b", "c", "d"].map(|key| cache.get(key, &Read::new()).is_some());
    assert_eq!(held, [false, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_tag_raised_during_a_load_drops_what_it_loads() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.set("k", 1, "one");
    source.delay(std::time::Duration::from_millis(50));
    let loader = source.loader();
    let read = Read::new().tags(["red"]);
    let load = cache.get_or_load("k", &read, &loader);
    let raise = async {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        cache.invalidate_tag("red").await.unwrap();
    };
    let (answer, ()) = tokio::join!(load, raise);
    answer.unwrap();
    assert!(cache.get("k", &Read::new()).is_none());
}

#[tokio::test]
async fn clear_drops_floors_as_well() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    cache.put(Put::value("k", v(9), "nine")).await.unwrap();
    cache.clear();
    source.set("k", 1, "one");
    let answer = cache
        .get_or_load("k", &Read::new(), &source.loader())
        .await
        .unwrap();
    assert_eq!(answer.version(), v(1));
}

#[tokio::test]
async fn a_key_that_is_too_long_is_refused() {
    let cache = cache(Policy::default());
    let key = "k".repeat(5000);
    let error = cache.put(Put::value(key.as_str(), v(1), "x")).await.unwrap_err();
    assert!(matches!(error, Error::KeyTooLong(5000)) && !error.is_retryable());
}
