//! How long things are served: time to live, refresh, stale on error, adaptive times.

use contextkeep_cache::{Adaptive, Error, Origin, Policy, Put, Read};

use crate::source::{Source, cache, ms, v};

fn plain() -> Policy {
    let mut policy = Policy::default();
    policy.ttl = ms(1000);
    policy.jitter = 0.0;
    policy.refresh_after = 1.0;
    policy.early = 0.0;
    policy
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_served_for_its_time_and_no_longer() {
    let (cache, source) = (cache(plain()), Source::new());
    source.set("k", 1, "one");
    let loader = source.loader();
    let first = cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    assert_eq!(first.origin(), Origin::Primary);
    tokio::time::sleep(ms(900)).await;
    let hit = cache.get("k", &Read::new()).unwrap();
    assert!(hit.age() >= ms(880) && hit.age() <= ms(920), "{:?}", hit.age());
    tokio::time::sleep(ms(150)).await;
    assert!(cache.get("k", &Read::new()).is_none());
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_the_ends() {
    let mut policy = plain();
    policy.jitter = 0.5;
    let (cache, source) = (cache(policy), Source::new());
    let loader = source.loader();
    let keys: Vec<String> = (0..100).map(|key| format!("k{key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for key in &keys {
        source.set(key, 1, "one");
    }
    cache.get_many(&keys, &Read::new(), &loader).await;
    tokio::time::sleep(ms(750)).await;
    let left = keys
        .iter()
        .filter(|key| cache.get(key, &Read::new()).is_some())
        .count();
    assert!((25..75).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_past_its_soft_end_is_served_and_refreshed_behind_the_reader() {
    let mut policy = plain();
    policy.refresh_after = 0.5;
    let (cache, source) = (cache(policy), Source::new());
    source.set("k", 1, "one");
    let loader = source.loader();
    cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    source.set("k", 2, "two");
    source.delay(ms(30));
    tokio::time::sleep(ms(600)).await;
    for _ in 0..3 {
        let served = cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
        assert_eq!((served.version(), served.origin()), (v(1), Origin::L1));
    }
    tokio::time::sleep(ms(60)).await;
    assert_eq!(cache.get("k", &Read::new()).unwrap().version(), v(2));
    assert_eq!(source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_costly_entry_is_refreshed_early_by_about_one_reader() {
    let mut policy = plain();
    policy.refresh_after = 0.9;
    policy.early = 1.0;
    let (cache, source) = (cache(policy), Source::new());
    source.set("k", 1, "one");
    source.delay(ms(100));
    let loader = source.loader();
    cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    // The load's own time counts: 800 ms are left.
    let mut refreshed_at = None;
    for step in 0..80 {
        tokio::time::sleep(ms(10)).await;
        cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
        if refreshed_at.is_none() && source.loads() == 2 {
            refreshed_at = Some(step);
        }
    }
    assert!(refreshed_at.is_some_and(|step| step < 79), "{refreshed_at:?}");
}

#[tokio::test(start_paused = true)]
async fn stale_answers_are_for_those_who_ask() {
    // G7.
    let (cache, source) = (cache(plain()), Source::new());
    source.set("k", 1, "one");
    let loader = source.loader();
    cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    tokio::time::sleep(ms(1500)).await;
    source.fail(true);
    let error = cache.get_or_load("k", &Read::new(), &loader).await.unwrap_err();
    assert!(matches!(error, Error::Load(_)));
    let takes_stale = Read::new().stale_on_error(ms(60_000));
    let answer = cache.get_or_load("k", &takes_stale, &loader).await.unwrap();
    assert_eq!((answer.origin(), answer.version()), (Origin::Stale, v(1)));
    let too_new = takes_stale.clone().floor(v(2));
    cache.get_or_load("k", &too_new, &loader).await.unwrap_err();
    let too_old = Read::new().stale_on_error(ms(100));
    cache.get_or_load("k", &too_old, &loader).await.unwrap_err();
    // Late is like failed, after the soft timeout; the load goes on.
    source.fail(false);
    source.delay(ms(500));
    tokio::time::sleep(ms(100)).await;
    let start = tokio::time::Instant::now();
    let answer = cache.get_or_load("k", &takes_stale, &loader).await.unwrap();
    assert_eq!(answer.origin(), Origin::Stale);
    assert!(start.elapsed() < ms(60), "{:?}", start.elapsed());
    tokio::time::sleep(ms(500)).await;
    assert_eq!(cache.get("k", &Read::new()).unwrap().origin(), Origin::L1);
}

#[tokio::test(start_paused = true)]
async fn absences_have_a_time_of_their_own() {
    let mut policy = plain();
    policy.negative_ttl = ms(100);
    let (cache, source) = (cache(policy), Source::new());
    let loader = source.loader();
    for _ in 0..2 {
        let answer = cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
        assert!(answer.value().is_none());
    }
    assert_eq!(source.loads(), 1);
    tokio::time::sleep(ms(150)).await;
    assert!(cache.get("k", &Read::new()).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_often_is_kept_longer_and_what_is_not_shorter() {
    let mut policy = plain();
    policy.adaptive = Some(Adaptive::between(ms(250), ms(4000)));
    let (cache, source) = (cache(policy), Source::new());
    let loader = source.loader();
    for key in ["hot", "cold"] {
        source.set(key, 1, "one");
        cache.get_or_load(key, &Read::new(), &loader).await.unwrap();
    }
    for _ in 0..20 {
        tokio::time::sleep(ms(20)).await;
        cache.get("hot", &Read::new()).unwrap();
    }
    let fresh = Read::new().fresh();
    for key in ["hot", "cold"] {
        cache.get_or_load(key, &fresh, &loader).await.unwrap();
    }
    tokio::time::sleep(ms(700)).await;
    assert!(cache.get("cold", &Read::new()).is_none());
    tokio::time::sleep(ms(1000)).await;
    assert!(cache.get("hot", &Read::new()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_large_value_is_answered_and_not_kept() {
    let cache = contextkeep_cache::Cache::builder("small")
        .max_item(10)
        .max_bytes(1 << 20)
        .build()
        .unwrap();
    let source = Source::new();
    source.set("k", 1, "eleven bytes");
    let loader = source.loader();
    let answer = cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    assert_eq!(answer.value().unwrap(), "eleven bytes");
    assert!(cache.get("k", &Read::new()).is_none());
}

#[tokio::test(start_paused = true)]
async fn levels_can_be_passed_by() {
    let (cache, source) = (cache(plain()), Source::new());
    source.set("k", 1, "one");
    let loader = source.loader();
    let version = async |read: Read| cache.get_or_load("k", &read, &loader).await.unwrap().version();
    assert_eq!(version(Read::new()).await, v(1));
    source.set("k", 2, "two");
    assert_eq!(version(Read::new()).await, v(1));
    assert_eq!(version(Read::new().past_second_level()).await, v(1));
    assert!(cache.get("k", &Read::new().past_first_level()).is_none());
    let past = version(Read::new().past_first_level()).await;
    assert_eq!(past, v(2), "the source is asked");
    assert_eq!(
        version(Read::new()).await,
        v(2),
        "and its answer is kept for the others"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_kept_is_recalled_as_long_as_a_lookup_would_find_it() {
    let cache = cache(Policy::default());
    let put = |version, text: &'static str| cache.put(Put::value("k", v(version), text));
    put(2, "two").await.unwrap();
    let any = Read::new();
    let keep = || {
        cache
            .get("k", &any)
            .unwrap()
            .keep()
            .expect("it is the first level's")
    };
    let recall = |kept: &_, floor| cache.recall(kept, floor, cache.now());
    let kept = keep();
    let same = |floor| {
        let recalled = recall(&kept, floor).map(|recalled| recalled.age);
        let found = cache.get("k", &Read::new().floor(floor).at(cache.now()));
        assert_eq!(recalled, found.map(|answer| answer.age()));
        recalled.is_some()
    };
    assert!(same(v(2)) && !same(v(3)), "G4");
    put(1, "one").await.unwrap();
    assert!(same(v(2)), "what is older replaces nothing");
    put(3, "three").await.unwrap();
    assert!(recall(&kept, v(0)).is_none(), "replaced");
    let kept = keep();
    cache.put(Put::tombstone("k", v(4))).await.unwrap();
    assert!(recall(&kept, v(0)).is_none(), "deleted");
    put(5, "five").await.unwrap();
    let kept = keep();
    assert!(recall(&kept, v(0)).is_some());
    // Once for all readers.
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    let look_up = [(); 3].map(|()| recall(&kept, v(0)).unwrap().look_up);
    assert_eq!(look_up, [true, false, false]);
    cache.clear();
    assert!(recall(&kept, v(0)).is_none(), "cleared");
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_kept_at_what_was_told_and_not_at_what_a_reader_asks_for() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    let loader = source.loader();
    let asking = Read::new().floor(v(1000));
    let answer = cache.get_or_load("k", &asking, &loader).await.unwrap();
    assert!(answer.value().is_none());
    cache.put(Put::value("k", v(1), "one")).await.unwrap();
    let answer = cache.get("k", &Read::new()).expect("nothing hides it");
    assert_eq!(answer.version(), v(1));
    // What a change has told is kept.
    cache.put(Put::invalidation("k", v(5))).await.unwrap();
    let mut loads = Vec::new();
    for _ in 0..2 {
        let answer = cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
        assert_eq!((answer.value().is_none(), answer.version()), (true, v(5)));
        loads.push(source.loads());
    }
    assert_eq!(loads[0], loads[1]);
}
