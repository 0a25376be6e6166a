//! Looks into the second level, which those who wait for them fly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contextkeep_cache::remote::{
    Applied, BoxFuture, Change, Each, Fetched, Fill, Filled, Lease, Leased, Logged, Position, Record, Replay,
};
use contextkeep_cache::{
    Backplane, Body, Cache, Error, Key, Mark, Origin, PartitionId, Policy, Read, RemoteError, SecondLevel,
};
use contextkeep_test_support::eventually_async;
use tokio::sync::mpsc;

use crate::source::{Source, ms, v};

const AT: Position = Position { seq: 1, nonce: 1 };

/// Answers late, and has every key or none.
#[derive(Debug)]
struct Late {
    delay: Duration,
    has: bool,
    gets: AtomicU64,
}

/// Another node loads the keys that begin so, and never ends.
const HELD: &str = "held";

impl SecondLevel for Late {
    fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Fetched>> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(self.delay).await;
            let record = self.has.then(|| Record {
                version: v(1),
                body: Body::Value("one".into()),
                tags: Vec::new(),
                age: Duration::ZERO,
            });
            let fetched = Fetched {
                record,
                position: Some(AT),
            };
            vec![Ok(fetched); keys.len()]
        })
    }

    fn lease(&self, keys: Vec<Key>) -> BoxFuture<'_, Each<Leased>> {
        let lease = Lease {
            token: 1,
            floor: v(0),
            mark: Mark::ZERO,
            position: AT,
        };
        let leased = move |key: &Key| {
            if key.as_str().starts_with(HELD) {
                Ok(Leased::Held)
            } else {
                Ok(Leased::Granted(lease.clone()))
            }
        };
        Box::pin(async move { keys.iter().map(leased).collect() })
    }

    fn fill(&self, fills: Vec<Fill>) -> BoxFuture<'_, Each<Filled>> {
        Box::pin(async move { vec![Ok(Filled::Stored); fills.len()] })
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Each<Applied>> {
        let done = Applied::Done {
            logged: None,
            kept: true,
        };
        Box::pin(async move { vec![Ok(done); changes.len()] })
    }

    fn tags(&self, tags: Vec<Key>) -> BoxFuture<'_, Each<u64>> {
        Box::pin(async move { vec![Ok(1); tags.len()] })
    }

    fn bump(&self, _: Key) -> BoxFuture<'_, Result<Logged, RemoteError>> {
        Box::pin(async { Err(RemoteError::TimedOut) })
    }
}

impl Backplane for Late {
    fn positions(&self) -> BoxFuture<'_, Vec<Option<Position>>> {
        Box::pin(async { vec![Some(AT); 4] })
    }

    fn replay(&self, _: PartitionId, _: Position) -> BoxFuture<'_, Result<Replay, RemoteError>> {
        Box::pin(async { Ok(Replay::Changes(Vec::new())) })
    }

    fn listen(&self, _: mpsc::Sender<Logged>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// A cache whose partitions are trusted, and its second level.
async fn cached(delay: Duration, has: bool, policy: Policy) -> (Cache, Arc<Late>) {
    let level = Arc::new(Late {
        delay,
        has,
        gets: AtomicU64::new(0),
    });
    let cache = Cache::builder("test")
        .policy(policy)
        .seed(1)
        .partitions(4)
        .second_level(Arc::clone(&level) as Arc<dyn SecondLevel>)
        .backplane(Arc::clone(&level) as Arc<dyn Backplane>)
        .build()
        .unwrap();
    eventually_async(
        "all partitions to be trusted",
        Duration::from_secs(20),
        async || (cache.stats().trusted_partitions == 4).then_some(()),
    )
    .await;
    (cache, level)
}

#[tokio::test(start_paused = true)]
async fn a_look_into_the_second_level_needs_no_task() {
    let (cache, _) = cached(ms(50), true, Policy::default()).await;
    let (loader, read) = (Source::new().loader(), Read::new());
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let look = cache.get_or_load("k", &read, &loader);
    let watch = async {
        tokio::time::sleep(ms(20)).await;
        (cache.stats().loads, metrics.num_alive_tasks())
    };
    let (answer, (loads, tasks)) = tokio::join!(look, watch);
    assert_eq!((loads, tasks), (1, before));
    assert_eq!(answer.unwrap().origin(), Origin::L2);
}

#[tokio::test(start_paused = true)]
async fn a_look_goes_on_without_those_who_left() {
    // F15.
    let (cache, level) = cached(ms(50), true, Policy::default()).await;
    let (loader, read) = (Source::new().loader(), Read::new());
    let mut readers: Vec<_> = (0..3)
        .map(|_| Box::pin(cache.get_or_load("k", &read, &loader)))
        .collect();
    let all = futures_of(&mut readers);
    tokio::time::timeout(ms(20), all).await.unwrap_err();
    // The first one, which began it, goes first.
    for reader in readers {
        drop(reader);
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(ms(40)).await;
    assert_eq!(cache.get("k", &read).unwrap().version(), v(1));
    assert_eq!(level.gets.load(Ordering::Relaxed), 1);
}

/// Polls all of them until the first is done.
async fn futures_of<F: Future + Unpin>(futures: &mut [F]) -> F::Output {
    std::future::poll_fn(|context| {
        for future in &mut *futures {
            if let std::task::Poll::Ready(done) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(done);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_not_polled_any_more_holds_up_nobody() {
    // The flight table's F5.
    let (cache, level) = cached(ms(50), true, Policy::default()).await;
    let (loader, read) = (Source::new().loader(), Read::new());
    let mut stuck = [Box::pin(cache.get_or_load("k", &read, &loader))];
    tokio::time::timeout(ms(10), futures_of(&mut stuck))
        .await
        .unwrap_err();
    let began = tokio::time::Instant::now();
    let answer = cache.get_or_load("k", &read, &loader).await.unwrap();
    assert_eq!((answer.origin(), answer.version()), (Origin::L2, v(1)));
    assert!(began.elapsed() <= ms(45), "{:?}", began.elapsed());
    assert_eq!(level.gets.load(Ordering::Relaxed), 1, "they share the look");
    let [stuck] = stuck;
    assert_eq!(stuck.await.unwrap().version(), v(1));
}

#[tokio::test(start_paused = true)]
async fn what_the_second_level_does_not_have_is_loaded_whoever_leaves() {
    // F15.
    let (cache, _) = cached(ms(50), false, Policy::default()).await;
    let (source, read) = (Source::new(), Read::new());
    source.set("k", 1, "one");
    source.delay(ms(50));
    let loader = source.loader();
    for wait in [20, 40] {
        let reader = Box::pin(cache.get_or_load("k", &read, &loader));
        tokio::time::timeout(ms(wait), reader).await.unwrap_err();
    }
    eventually_async("the load to end", Duration::from_secs(20), async || {
        cache.get("k", &read)
    })
    .await;
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_another_node_loads_are_waited_for_together_and_hold_up_no_other() {
    let mut policy = Policy::default();
    policy.lease_wait = ms(500);
    let (cache, _) = cached(ms(0), false, policy).await;
    let source = Source::new();
    let keys: Vec<String> = (0..20).map(|n| format!("{HELD}{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).chain(["free"]).collect();
    for key in &keys {
        source.set(key, 1, "one");
    }
    let (loader, read) = (source.loader(), Read::new());
    let began = tokio::time::Instant::now();
    let all = cache.get_many(&keys, &read, &loader);
    let free = async {
        tokio::time::sleep(ms(20)).await;
        cache.get("free", &read).map(|answer| answer.version())
    };
    let (answers, free) = tokio::join!(all, free);
    assert_eq!(free, Some(v(1)), "it was loaded at once");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((source.loads(), source.calls.load(Ordering::Relaxed)), (21, 2));
    let took = began.elapsed();
    assert!(took >= ms(500) && took <= ms(600), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_level_that_hangs_takes_its_part_of_the_time_of_a_load() {
    let mut policy = Policy::default();
    policy.remote_timeout = ms(250);
    policy.load_timeout = ms(400);
    let (cache, _) = cached(ms(10_000), true, policy).await;
    let source = Source::new();
    source.delay(ms(10_000));
    let began = tokio::time::Instant::now();
    let failed = cache.get_or_load("k", &Read::new(), &source.loader()).await;
    assert!(
        matches!(failed, Err(Error::TimedOut(after)) if after == ms(400)),
        "{failed:?}"
    );
    let took = began.elapsed();
    assert!(took >= ms(390) && took <= ms(410), "{took:?}");
    assert_eq!(cache.stats().loads, 0);
}

// No timer is set for the look, which has a limit of its own; what comes after it counts from the reader's beginning.
#[tokio::test(start_paused = true)]
async fn a_reader_waits_no_longer_than_it_may_whatever_it_waits_for() {
    let mut policy = Policy::default();
    policy.remote_timeout = ms(250);
    policy.hard_timeout = ms(400);
    for (look, load, patience, expected) in [
        (10_000, 0, 100, 100),
        (200, 10_000, 400, 400),
        (10_000, 10_000, 400, 400),
        (10_000, 10_000, 250, 250),
    ] {
        let (cache, _) = cached(ms(look), false, policy.clone()).await;
        let source = Source::new();
        source.delay(ms(load));
        let (loader, read) = (source.loader(), Read::new().wait(ms(patience)));
        let began = tokio::time::Instant::now();
        let reading = async || {
            let failed = cache.get_or_load("k", &read, &loader).await;
            assert!(
                matches!(failed, Err(Error::TimedOut(after)) if after == ms(patience)),
                "{failed:?}"
            );
            began.elapsed()
        };
        // The one who begins the flight, one who joins it, and one who joins it when the look is over.
        let late = async {
            tokio::time::sleep(ms(expected / 2)).await;
            reading().await.saturating_sub(ms(expected / 2))
        };
        let (first, second, late) = tokio::join!(reading(), reading(), late);
        for took in [first, second, late] {
            assert!(
                (ms(expected)..ms(expected + 10)).contains(&took),
                "{look} {load} {patience}: {took:?}"
            );
        }
    }
}
