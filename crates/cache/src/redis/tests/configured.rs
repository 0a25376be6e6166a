//! Each key of the `cache.redis` settings has its effect. What a test is not about is so long that it can't be the reason.

use std::time::Duration;

use bytes::Bytes;
use contextkeep_test_support::{Proxy, RedisCluster, RedisNode, eventually_async};

use super::{Options, RedisLevel, SOON, connected, options};
use crate::RemoteError;
use crate::contract::{Level, change};
use crate::entry::Body;
use crate::partition::partition_of;
use crate::remote::{Fill, SecondLevel};
use crate::settings::{RedisMode, RedisSettings};
use crate::version::{Key, Version};

const LONG: Duration = Duration::from_mins(2);
const SHORT: Duration = Duration::from_millis(200);

/// Everything takes as long as it likes.
fn patient(endpoints: Vec<String>) -> RedisSettings {
    RedisSettings {
        enabled: true,
        endpoints,
        dial_timeout: LONG,
        read_timeout: LONG,
        write_timeout: LONG,
        pool_timeout: LONG,
        idle_timeout: LONG,
        pool_size: 4,
        min_idle_conns: 0,
        ..RedisSettings::default()
    }
}

fn large() -> Body {
    Body::Value(Bytes::from(vec![b'x'; 40 << 10]))
}

/// A level on a node with a large entry `k`, which is read over the pool; it does not compress.
async fn with_large(settings: &RedisSettings) -> (Level, RedisLevel) {
    let options = Options {
        lz4_from: usize::MAX,
        zstd_from: usize::MAX,
        ..options()
    };
    let (level, redis) = connected(settings, options).await;
    level.apply(change(&Key::from("k"), 1, 0, large())).await;
    (level, redis)
}

async fn read(redis: &RedisLevel) -> Result<(), RemoteError> {
    redis.get(vec!["k".into()]).await.remove(0).map(drop)
}

/// The failure of a read that would take [`LONG`] if nothing ended it.
async fn failure(redis: &RedisLevel) -> RemoteError {
    let failed = tokio::time::timeout(LONG / 2, read(redis)).await;
    failed
        .expect("something other than the setting ends it")
        .unwrap_err()
}

/// Connections of others to the server.
fn connections(node: &RedisNode) -> usize {
    let list = node.command(&["CLIENT", "LIST"]).unwrap();
    list.as_text().unwrap().lines().count() - 1
}

fn ever_connected(node: &RedisNode) -> u64 {
    let info = node.command(&["INFO", "stats"]).unwrap();
    let line = info.as_text().unwrap().lines().find_map(|line| {
        let count = line.strip_prefix("total_connections_received:")?;
        count.trim().parse().ok()
    });
    line.unwrap()
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn mode_makes_one_endpoint_a_cluster() {
    let cluster = RedisCluster::builder().start().unwrap();
    let settings = RedisSettings {
        mode: RedisMode::Cluster,
        ..patient(cluster.urls().into_iter().take(1).collect())
    };
    let (level, _) = connected(&settings, options()).await;
    for key in 0..50 {
        let key = Key::from(format!("k{key}"));
        level.apply(change(&key, 1, 0, Body::Absent)).await;
    }
    for node in cluster.nodes() {
        let size = node.command(&["DBSIZE"]).unwrap();
        assert_ne!(
            size,
            contextkeep_test_support::redis::Value::Int(0),
            "{}",
            node.name()
        );
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn ttl_is_that_of_entries_and_bodies() {
    let node = RedisNode::start_alone().unwrap();
    let settings = RedisSettings {
        ttl: Duration::from_secs(1000),
        ..patient(vec![node.url()])
    };
    let options = options();
    let (level, _) = connected(&settings, options.clone()).await;
    let key = Key::from("k");
    let random = crate::random::Random::seeded(7);
    let noise: Bytes = (0..8 << 10).flat_map(|_| random.bits().to_be_bytes()).collect();
    level.apply(change(&key, 1, 0, Body::Value(noise))).await;
    let partition = partition_of("k", options.partitions);
    for what in ["e:k".to_owned(), "b:k:1".to_owned()] {
        let name = format!("{{{}.{partition}}}{what}", options.name);
        let left = node.command(&["TTL", &name]).unwrap();
        let contextkeep_test_support::redis::Value::Int(left) = left else {
            panic!("{left:?}");
        };
        assert!((1..=1000).contains(&left), "{what}: {left}");
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn dial_timeout_ends_a_connection_that_is_not_made() {
    let node = RedisNode::start_alone().unwrap();
    let proxy = Proxy::start(node.addr()).unwrap();
    let settings = RedisSettings {
        dial_timeout: SHORT,
        ..patient(vec![node.url_at(proxy.addr())])
    };
    let options = Options {
        lz4_from: usize::MAX,
        zstd_from: usize::MAX,
        ..options()
    };
    let (_, redis) = connected(&settings, options).await;
    // A large body needs a connection of the pool, and none was made yet.
    let fill = async || {
        let fill = Fill {
            key: "k".into(),
            token: 1,
            version: Version::new(1),
            body: large(),
            tags: Vec::new(),
        };
        redis.fill(vec![fill]).await.remove(0)
    };
    proxy.blackhole();
    let failed = tokio::time::timeout(LONG / 2, fill()).await;
    assert!(failed.expect("the setting ends it").is_err());
    proxy.heal();
    eventually_async("the server to be reached", SOON, async || fill().await.ok()).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn the_longer_of_read_and_write_timeout_ends_a_command() {
    let node = RedisNode::start_alone().unwrap();
    let settings = RedisSettings {
        read_timeout: SHORT / 2,
        write_timeout: SHORT,
        ..patient(vec![node.url()])
    };
    let (_, redis) = with_large(&settings).await;
    node.freeze().unwrap();
    let began = tokio::time::Instant::now();
    assert!(matches!(failure(&redis).await, RemoteError::TimedOut));
    assert!(began.elapsed() >= SHORT, "the longer one");
    node.thaw().unwrap();
    eventually_async("it to answer again", SOON, async || read(&redis).await.ok()).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn pool_size_limits_connections_and_pool_timeout_the_wait_for_one() {
    let node = RedisNode::start_alone().unwrap();
    let proxy = Proxy::start(node.addr()).unwrap();
    let settings = RedisSettings {
        pool_size: 2,
        pool_timeout: SHORT,
        ..patient(vec![node.url_at(proxy.addr())])
    };
    let (_, redis) = with_large(&settings).await;
    let all = futures_util::future::join_all((0..20).map(|_| read(&redis))).await;
    assert!(all.iter().any(Result::is_ok));
    // Those of the pool carry large bodies and nothing else.
    let clients = node.command(&["CLIENT", "LIST"]).unwrap();
    let clients = clients.as_text().unwrap().lines();
    let pooled = clients.filter(|client| client.contains(" cmd=get ") || client.contains(" cmd=set "));
    assert!((1..=2).contains(&pooled.count()));
    // Two who are answered late hold both connections; the third gives up waiting.
    proxy.delay(SHORT * 5);
    let all = futures_util::future::join_all((0..3).map(|_| read(&redis))).await;
    let refused = all.iter().filter(|one| one.is_err()).count();
    assert_eq!(refused, 1, "{all:?}");
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn idle_timeout_closes_and_min_idle_conns_keeps() {
    let node = RedisNode::start_alone().unwrap();
    let before = connections(&node);
    let settings = RedisSettings {
        idle_timeout: SHORT,
        min_idle_conns: 2,
        pool_size: 8,
        ..patient(vec![node.url()])
    };
    let (_, redis) = with_large(&settings).await;
    let busy = eventually_async("the pool to be used", SOON, async || {
        for one in futures_util::future::join_all((0..40).map(|_| read(&redis))).await {
            one.unwrap();
        }
        let busy = connections(&node);
        (busy > before + 4).then_some(busy)
    })
    .await;
    // The shared connection and the two.
    eventually_async("idle ones to be closed", SOON, async || {
        (connections(&node) == before + 3).then_some(())
    })
    .await;
    assert!(busy > before + 3);
    tokio::time::sleep(SHORT * 3).await;
    assert_eq!(
        connections(&node),
        before + 3,
        "two are kept however long nobody uses them"
    );
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn max_conn_age_replaces_connections() {
    let node = RedisNode::start_alone().unwrap();
    for (max_conn_age, replaced) in [(Duration::ZERO, false), (Duration::from_millis(1), true)] {
        let settings = RedisSettings {
            max_conn_age,
            ..patient(vec![node.url()])
        };
        let (_, redis) = with_large(&settings).await;
        read(&redis).await.unwrap();
        let before = ever_connected(&node);
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(3)).await;
            read(&redis).await.unwrap();
        }
        // The second look is a connection as well.
        let made = ever_connected(&node) - before - 1;
        assert_eq!(made >= 5, replaced, "{max_conn_age:?}: {made}");
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn without_retries_a_lost_connection_is_still_made_again() {
    // `max_retries` counts attempts of one reconnection; the next use begins another.
    let node = RedisNode::start_alone().unwrap();
    for max_retries in [0, 3] {
        let settings = RedisSettings {
            max_retries,
            ..super::settings(vec![node.url()])
        };
        let (_, redis) = connected(&settings, options()).await;
        node.kill().unwrap();
        assert!(read(&redis).await.is_err());
        node.start().unwrap();
        eventually_async("it to be reached again", SOON, async || read(&redis).await.ok()).await;
    }
}
