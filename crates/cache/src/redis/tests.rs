//! Against real servers.

mod configured;
mod moving;
mod neighbours;
mod reads;
mod tls;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use contextkeep_test_support::services::unique_name;
use contextkeep_test_support::{Proxy, RedisCluster, RedisNode, Stop, eventually_async};

use super::{Options, RedisLevel};
use crate::contract::{Level, change};
use crate::entry::Body;
use crate::loader::{self, Loaded, Loader, Wanted};
use crate::remote::{Applied, Leased, SecondLevel};
use crate::settings::RedisSettings;
use crate::version::{Key, Mark, Version};
use crate::{Builder, Cache, Event, Observer, Origin, Policy, Put, Read, Receipt, RemoteError};

const SOON: Duration = Duration::from_secs(20);

fn settings(endpoints: Vec<String>) -> RedisSettings {
    RedisSettings {
        enabled: true,
        endpoints,
        dial_timeout: Duration::from_secs(1),
        read_timeout: Duration::from_millis(500),
        write_timeout: Duration::from_millis(500),
        pool_size: 4,
        min_idle_conns: 0,
        ..RedisSettings::default()
    }
}

fn options() -> Options {
    Options {
        partitions: 16,
        ..Options::named(unique_name("cache"))
    }
}

async fn connected(settings: &RedisSettings, options: Options) -> (Level, RedisLevel) {
    let partitions = options.partitions;
    let redis = RedisLevel::connect(settings, options).unwrap();
    let waiting = redis.clone();
    eventually_async("Redis to be reached", SOON, async || {
        waiting.get(vec!["x".into()]).await.remove(0).ok()
    })
    .await;
    let level = Level {
        tier: Arc::new(redis.clone()),
        backplane: Arc::new(redis.clone()),
        partitions,
    };
    (level, redis)
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_single_node_keeps_the_contract() {
    let node = RedisNode::start_alone().unwrap();
    let (level, _) = connected(&settings(vec![node.url()]), options()).await;
    level.keeps_the_contract("c").await;
    level.tells("c").await;
    // F20: scripts may be flushed at any time.
    node.command(&["SCRIPT", "FLUSH"]).unwrap();
    let (level, _) = connected(&settings(vec![node.url()]), options()).await;
    level.keeps_the_contract("c").await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_cluster_keeps_the_contract() {
    let cluster = RedisCluster::builder().start().unwrap();
    let (level, _) = connected(&settings(cluster.urls()), options()).await;
    level.keeps_the_contract("c").await;
    level.tells("c").await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn large_values_come_back_and_values_over_the_limit_leave_a_marker() {
    // F19.
    let node = RedisNode::start_alone().unwrap();
    let options = Options {
        max_value: 2 << 20,
        ..options()
    };
    let (level, _) = connected(&settings(vec![node.url()]), options).await;
    let random = crate::random::Random::seeded(7);
    let noise: bytes::Bytes = (0..1 << 17).flat_map(|_| random.bits().to_be_bytes()).collect();
    let large = Body::Value(noise);
    let key = Key::from("large");
    let done = level.apply(change(&key, 1, 0, large.clone())).await;
    assert!(matches!(done, Applied::Done { kept: true, .. }));
    assert_eq!(level.get(&key).await.0.unwrap().body, large);
    let over = Body::Value(vec![b'x'; (2 << 20) + 1].into());
    let done = level.apply(change(&key, 2, 0, over)).await;
    assert!(matches!(done, Applied::Done { kept: false, .. }), "{done:?}");
    let record = level.get(&key).await.0.unwrap();
    assert_eq!((record.version.get(), record.body), (2, Body::Unknown));
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn corrupt_foreign_and_old_entries_are_errors_of_their_own_kind() {
    // F20.
    let node = RedisNode::start_alone().unwrap();
    let options = options();
    let (level, redis) = connected(&settings(vec![node.url()]), options.clone()).await;
    let key = Key::from("k");
    level.apply(change(&key, 1, 0, Body::Value("one".into()))).await;
    let partition = crate::partition::partition_of(&key, options.partitions);
    let place = format!("{{{}.{partition}}}e:k", options.name);
    node.command(&["SETRANGE", &place, "45", "X"]).unwrap();
    let got = redis.get(vec![key.clone()]).await.remove(0);
    assert!(matches!(got, Err(RemoteError::Corrupt(_))), "{got:?}");
    node.command(&["SET", &place, "somebody else's"]).unwrap();
    let got = redis.get(vec![key.clone()]).await.remove(0);
    assert!(matches!(got, Err(RemoteError::Corrupt(_))), "{got:?}");
    // A foreign DEL.
    node.command(&["DEL", &place]).unwrap();
    assert_eq!(level.get(&key).await.0, None);
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_password_a_user_and_a_database_are_used() {
    let node = RedisNode::start_alone().unwrap();
    node.command(&["ACL", "SETUSER", "keeper", "on", ">secret", "~*", "&*", "+@all"])
        .unwrap();
    let url = node.url().replace("redis://", "redis://keeper@");
    let settings = RedisSettings {
        password: Some("secret".into()),
        db: 3,
        ..settings(vec![url])
    };
    let (level, _) = connected(&settings, options()).await;
    level.apply(change(&Key::from("k"), 1, 0, Body::Absent)).await;
    let keyspace = node.command(&["INFO", "keyspace"]).unwrap();
    assert!(keyspace.as_text().unwrap().contains("db3:"));
    let users = node.command(&["CLIENT", "LIST"]).unwrap();
    assert!(users.as_text().unwrap().contains("user=keeper"));
    assert!(users.as_text().unwrap().contains("resp=3"));
}

/// A source of truth that counts its loads.
#[derive(Debug, Default)]
struct Truth {
    rows: std::sync::Mutex<std::collections::HashMap<String, u64>>,
    loads: std::sync::atomic::AtomicU64,
}

impl Truth {
    fn commit(&self, key: &str) -> (Version, Mark) {
        let mut rows = self.rows.lock().unwrap();
        let version = rows.entry(key.to_owned()).or_default();
        *version += 1;
        let version = *version;
        (Version::new(version), Mark::new(rows.values().sum()))
    }

    fn version(&self, key: &str) -> u64 {
        self.rows.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn loads(&self) -> u64 {
        self.loads.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn loader(self: &Arc<Self>) -> Arc<dyn Loader> {
        let truth = Arc::clone(self);
        loader::one(move |wanted: Wanted| {
            let truth = Arc::clone(&truth);
            async move {
                truth.loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let version = truth.version(&wanted.key);
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok::<_, RemoteError>(if version == 0 {
                    Loaded::absent(Version::ZERO)
                } else {
                    Loaded::value(Version::new(version), version.to_string())
                })
            }
        })
    }
}

/// What happened.
#[derive(Debug, Default)]
struct Counts(std::sync::Mutex<Vec<Event>>);

impl Counts {
    fn of(&self, wanted: &Event) -> usize {
        let same = |event: &&Event| std::mem::discriminant(*event) == std::mem::discriminant(wanted);
        self.0.lock().unwrap().iter().filter(same).count()
    }
}

impl Observer for Counts {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

fn cache(redis: &RedisLevel, partitions: u16) -> Cache {
    described(redis, partitions).build().unwrap()
}

fn described(redis: &RedisLevel, partitions: u16) -> Builder {
    let policy = Policy {
        lease_wait: Duration::from_secs(2),
        ..Policy::default()
    };
    Cache::builder("live")
        .partitions(partitions)
        .policy(policy)
        .second_level(Arc::new(redis.clone()))
        .backplane(Arc::new(redis.clone()))
}

/// Two nodes of a cache with connections of their own.
async fn two(settings: &RedisSettings) -> (Cache, Cache) {
    let options = options();
    let (_, a) = connected(settings, options.clone()).await;
    let (_, b) = connected(settings, options).await;
    let (a, b) = (cache(&a, 16), cache(&b, 16));
    for cache in [&a, &b] {
        trusts_all(cache).await;
    }
    (a, b)
}

async fn trusts_all(cache: &Cache) {
    eventually_async("all partitions to be trusted", SOON, async || {
        (cache.stats().trusted_partitions == 16).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn two_nodes_are_coherent_and_load_once() {
    let node = RedisNode::start_alone().unwrap();
    let (a, b) = two(&settings(vec![node.url()])).await;
    let truth = Arc::new(Truth::default());
    let loader = truth.loader();
    truth.commit("k");
    // N7: they miss together.
    let mut herd = Vec::new();
    for cache in [&a, &b] {
        for _ in 0..50 {
            let (cache, loader) = (cache.clone(), Arc::clone(&loader));
            herd.push(tokio::spawn(async move {
                cache
                    .get_or_load("k", &Read::new(), &loader)
                    .await
                    .unwrap()
                    .version()
            }));
        }
    }
    for one in herd {
        assert_eq!(one.await.unwrap().get(), 1);
    }
    assert_eq!(truth.loads(), 1);
    assert_eq!(b.get("k", &Read::new()).unwrap().origin(), Origin::L1);

    let (version, mark) = truth.commit("k");
    let put = Put::value("k", version, "2").mark(mark);
    assert_eq!(a.put(put).await.unwrap(), Receipt::Acknowledged);
    assert_eq!(a.get("k", &Read::new()).unwrap().version(), version);
    eventually_async("the other node to hear", SOON, async || {
        let answer = b.get_or_load("k", &Read::new(), &loader).await.unwrap();
        (answer.version() == version).then_some(())
    })
    .await;
    assert_eq!(truth.loads(), 1, "the value came through Redis");

    let tagged = Read::new().tags(["red"]);
    for cache in [&a, &b] {
        cache.get_or_load("t", &tagged, &loader).await.unwrap();
    }
    a.invalidate_tag("red").await.unwrap();
    eventually_async("the tag to be heard of", SOON, async || {
        b.get("t", &Read::new()).is_none().then_some(())
    })
    .await;
}

/// Reads from both while changes go on, and holds each answer against what was acknowledged longer ago than the bound.
/// Returns how many reads there were.
async fn hammer(caches: [&Cache; 2], truth: &Arc<Truth>, rounds: u64, mut meanwhile: impl FnMut(u64)) -> u64 {
    let loader = truth.loader();
    let bound = caches[0].bound();
    let mut acknowledged: Vec<(tokio::time::Instant, usize, u64)> = Vec::new();
    let mut reads = 0;
    for round in 0..rounds {
        meanwhile(round);
        let number = usize::try_from(round % 8).unwrap();
        let key = format!("k{number}");
        let (version, mark) = truth.commit(&key);
        let put = Put::invalidation(key.as_str(), version).mark(mark);
        let writer = caches[usize::from(round % 2 == 0)];
        if writer.put(put).await.unwrap() == Receipt::Acknowledged {
            acknowledged.push((tokio::time::Instant::now(), number, version.get()));
        }
        for cache in caches {
            for (number, key) in (0..8).map(|number| (number, format!("k{number}"))) {
                let began = tokio::time::Instant::now();
                let floor = if number == 0 { truth.version(&key) } else { 0 };
                let read = Read::new().floor(Version::new(floor)).at(cache.now());
                let answer = cache.get_or_load(&key, &read, &loader).await;
                let answer = answer.unwrap_or_else(|error| panic!("G9: {key}: {error}"));
                reads += 1;
                let got = answer.version().get();
                assert!(got >= floor, "G4: {key}: {got} below {floor}");
                let must = acknowledged
                    .iter()
                    .filter(|(at, of, _)| *of == number && *at + bound <= began)
                    .map(|(_, _, version)| *version)
                    .max();
                assert!(
                    got >= must.unwrap_or(0),
                    "G5: {key}: {got} instead of {must:?}: {answer:?}"
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    reads
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_that_is_killed_frozen_flushed_and_cut_off_costs_no_wrong_read() {
    // F7, F8, F12, F14, and a Redis that comes back empty.
    let node = RedisNode::start_alone().unwrap();
    let proxy = Proxy::start(node.addr()).unwrap();
    let options = options();
    let (_, direct) = connected(&settings(vec![node.url()]), options.clone()).await;
    let (_, behind) = connected(&settings(vec![node.url_at(proxy.addr())]), options).await;
    let (a, b) = (cache(&direct, 16), cache(&behind, 16));
    let truth = Arc::new(Truth::default());
    let reads = hammer([&a, &b], &truth, 120, |round| match round {
        10 => node.kill().unwrap(),
        25 => node.start().unwrap(),
        40 => proxy.cut(),
        45 => proxy.blackhole(),
        55 => proxy.heal(),
        65 => drop(node.command(&["FLUSHALL"])),
        75 => node.freeze().unwrap(),
        85 => node.thaw().unwrap(),
        95 => drop(node.command(&["CLIENT", "KILL", "TYPE", "pubsub"])),
        100 => node.restart(Stop::Graceful).unwrap(),
        _ => {}
    })
    .await;
    assert!(reads > 1000);
    for cache in [&a, &b] {
        trusts_all(cache).await;
        eventually_async("deferred changes to be brought home", SOON, async || {
            (cache.stats().deferred == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_cluster_that_loses_a_primary_under_load_costs_no_wrong_read() {
    // F9, F10.
    let cluster = RedisCluster::builder().replicas(1).start().unwrap();
    let (a, b) = two(&settings(cluster.urls())).await;
    let truth = Arc::new(Truth::default());
    let victim = &cluster.nodes()[0];
    let reads = hammer([&a, &b], &truth, 100, |round| match round {
        15 => victim.kill().unwrap(),
        70 => victim.start().unwrap(),
        _ => {}
    })
    .await;
    assert!(reads > 1000);
    for cache in [&a, &b] {
        trusts_all(cache).await;
    }
}

#[tokio::test]
async fn without_a_server_reads_are_answered_by_the_source() {
    // G9: Redis absent at start.
    let redis = RedisLevel::connect(&settings(vec!["127.0.0.1:1".to_owned()]), options()).unwrap();
    let cache = cache(&redis, 16);
    let truth = Arc::new(Truth::default());
    let (version, mark) = truth.commit("k");
    let receipt = cache
        .put(Put::invalidation("k", version).mark(mark))
        .await
        .unwrap();
    assert!(matches!(receipt, Receipt::Deferred(_)));
    let answer = cache
        .get_or_load("k", &Read::new(), &truth.loader())
        .await
        .unwrap();
    assert_eq!((answer.version(), answer.origin()), (version, Origin::Primary));
    assert_eq!(cache.stats().deferred, 1);
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_lease_ends_with_its_holder() {
    // F6.
    let node = RedisNode::start_alone().unwrap();
    let options = Options {
        lease: Duration::from_millis(100),
        ..options()
    };
    let (_, redis) = connected(&settings(vec![node.url()]), options).await;
    let lease = || async { redis.lease(vec!["k".into()]).await.remove(0).unwrap() };
    assert!(matches!(lease().await, Leased::Granted(_)));
    assert!(matches!(lease().await, Leased::Held));
    eventually_async("the lease to end", SOON, async || {
        matches!(lease().await, Leased::Granted(_)).then_some(())
    })
    .await;
}
