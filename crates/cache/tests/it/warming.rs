//! Warming, what is popular, and snapshots.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_cache::snapshot::{self, Warning};
use contextkeep_cache::{
    Cache, Event, Key, Loaded, Observer, Origin, Policy, Put, Read, Wanted, Warming, loader,
};

use crate::source::{Source, cache, ms, v};

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|number| Key::from(format!("k{number}"))).collect()
}

#[derive(Debug, Default)]
struct Progress(Mutex<Vec<(usize, usize)>>);

impl Observer for Progress {
    fn event(&self, event: &Event) {
        if let Event::Warmed { done, of } = event {
            self.0.lock().unwrap().push((*done, *of));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn warming_loads_what_is_missing_in_batches_and_tells_how_far_it_is() {
    let progress = Arc::new(Progress::default());
    let observer = Arc::<Progress>::clone(&progress);
    let cache = Cache::builder("test").observer(observer).build().unwrap();
    let source = Source::new();
    for key in keys(100) {
        source.set(&key, 1, "warm");
    }
    cache.put(Put::value("k3", v(1), "held")).await.unwrap();
    let warmed = cache
        .warm(keys(100), &Read::new(), &source.loader(), &Warming::default())
        .await;
    assert_eq!(
        (warmed.held, warmed.loaded, warmed.failed, warmed.left),
        (1, 99, 0, 0)
    );
    assert_eq!((source.loads(), source.calls.load(Ordering::Relaxed)), (99, 4));
    assert_eq!(cache.get("k99", &Read::new()).unwrap().origin(), Origin::L1);
    let told = progress.0.lock().unwrap().clone();
    assert_eq!(told.last(), Some(&(100, 100)));
    assert!(told.is_sorted() && told.len() == 4, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn warming_keeps_to_its_limits_and_rests_as_long_as_it_works() {
    let cache = cache(Policy::default());
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, peak) = (Arc::clone(&now), Arc::clone(&most));
    let slow = loader::many(move |wanted: Vec<Wanted>| {
        let (inside, peak) = (Arc::clone(&inside), Arc::clone(&peak));
        async move {
            peak.fetch_max(inside.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(ms(100)).await;
            inside.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(wanted.iter().map(|_| Loaded::value(v(1), "x")).collect())
        }
    });
    let mut warming = Warming::default();
    (warming.batch, warming.concurrency, warming.most) = (10, 3, 90);
    let began = cache.now();
    let warmed = cache.warm(keys(200), &Read::new(), &slow, &warming).await;
    assert_eq!((warmed.loaded, warmed.left), (90, 110));
    assert_eq!(most.load(Ordering::Relaxed), 3);
    // Three batches each, and a rest as long after each. The clock is the paused one.
    assert!(cache.now().since(began) >= ms(600));
}

#[tokio::test(start_paused = true)]
async fn warming_gives_up_where_nothing_works() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.fail(true);
    let mut warming = Warming::default();
    (warming.batch, warming.concurrency) = (10, 1);
    let warmed = cache
        .warm(keys(1000), &Read::new(), &source.loader(), &warming)
        .await;
    assert_eq!((warmed.failed, warmed.left), (30, 970));
}

#[tokio::test(start_paused = true)]
async fn what_is_read_often_is_popular_and_what_was_read_last_is_recent() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    let loader = source.loader();
    let read = async |key: &str| drop(cache.get_or_load(key, &Read::new(), &loader).await.unwrap());
    for key in ["often", "sometimes", "once", "never again"] {
        source.set(key, 1, "x");
        read(key).await;
    }
    for round in 0..50_u32 {
        tokio::time::advance(ms(20)).await;
        read("often").await;
        if round % 10 == 0 {
            read("sometimes").await;
        }
        if round == 30 {
            read("once").await;
        }
    }
    let names = |keys: Vec<Key>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(cache.popular(2)), ["often", "sometimes"]);
    assert_eq!(names(cache.popular(10)), ["often", "sometimes", "once"]);
    assert_eq!(names(cache.recent(3)), ["often", "sometimes", "once"]);
    // An invalidation does not make it unpopular.
    cache.put(Put::invalidation("often", v(2))).await.unwrap();
    assert_eq!(names(cache.popular(1)), ["often"]);
}

async fn written(count: usize) -> Vec<u8> {
    let (cache, source) = (cache(Policy::default()), Source::new());
    let loader = source.loader();
    for key in keys(count) {
        source.set(&key, 1, "secret");
        for _ in 0..2 {
            cache.get_or_load(&key, &Read::new(), &loader).await.unwrap();
        }
    }
    let mut file = Vec::new();
    assert_eq!(snapshot::write(&cache, &mut file, 1000).unwrap(), count);
    file
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_brings_keys_to_be_warmed_and_no_values() {
    let file = written(20).await;
    assert!(!file.windows(6).any(|bytes| bytes == b"secret"));
    let restored = snapshot::read(&file[..], 1000);
    assert!(restored.warning.is_none());
    assert_eq!(restored.keys.len(), 20);

    // The next process: what changed meanwhile is what it serves.
    let (cache, source) = (cache(Policy::default()), Source::new());
    for key in keys(20) {
        source.set(&key, 2, "newer");
    }
    assert!(cache.get("k7", &Read::new()).is_none());
    let warmed = cache
        .warm(restored.keys, &Read::new(), &source.loader(), &Warming::default())
        .await;
    assert_eq!(warmed.loaded, 20);
    let answer = cache.get("k7", &Read::new()).unwrap();
    assert_eq!(
        (answer.version(), answer.value().unwrap().as_ref()),
        (v(2), &b"newer"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_a_warning_and_no_keys() {
    let file = written(3).await;
    for length in 0..file.len() {
        let restored = snapshot::read(&file[..length], 1000);
        assert!(restored.keys.is_empty(), "{length}");
        assert!(
            matches!(restored.warning, Some(Warning::Corrupt)),
            "{length}: {restored:?}"
        );
    }
    for place in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[place] ^= 1 << bit;
            let restored = snapshot::read(&damaged[..], 1000);
            assert!(
                restored.keys.is_empty() && restored.warning.is_some(),
                "{place}.{bit}"
            );
        }
    }
    assert!(matches!(
        snapshot::read(&file[..], 2).warning,
        Some(Warning::TooLarge(3))
    ));
    let mut other = file;
    other[6] = 2;
    assert!(matches!(
        snapshot::read(&other[..], 1000).warning,
        Some(Warning::Format(2))
    ));
    let unreadable = snapshot::read(Failing, 1000);
    assert!(matches!(unreadable.warning, Some(Warning::Unreadable(_))));
    assert!(unreadable.warning.unwrap().to_string().contains("out of order"));
}

struct Failing;

impl std::io::Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("out of order"))
    }
}

#[tokio::test(start_paused = true)]
async fn warming_that_is_dropped_ends() {
    let (cache, source) = (cache(Policy::default()), Source::new());
    source.delay(ms(50));
    let all = keys(1000);
    let loader = source.loader();
    let mut warming = Warming::default();
    warming.batch = 10;
    let (read, loads) = (Read::new(), || source.loads());
    let work = cache.warm(all, &read, &loader, &warming);
    assert!(tokio::time::timeout(ms(120), work).await.is_err());
    let so_far = loads();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(loads(), so_far);
    assert!(so_far < 100);
}
