//! Bad days of a server, one at a time: each costs time or entries, none a wrong read, and each ends by itself.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_test_support::redis::Value;
use contextkeep_test_support::{Error, RedisCluster, RedisNode, Stop, eventually_async};
use tokio::task::JoinSet;

use super::{Counts, SOON, Truth, cache, connected, described, hammer, options, settings, trusts_all, two};
use crate::loader::Loader;
use crate::version::Version;
use crate::{Cache, Event, Origin, Put, Read, Receipt};

/// Both nodes agree again, and changes get through in both directions.
pub(super) async fn agree(a: &Cache, b: &Cache, truth: &Arc<Truth>, key: &str) {
    let loader = truth.loader();
    for (writer, reader) in [(a, b), (b, a)] {
        let (version, mark) = truth.commit(key);
        let put = || Put::invalidation(key, version).mark(mark);
        eventually_async("a change to be taken", SOON, async || {
            (writer.put(put()).await.unwrap() == Receipt::Acknowledged).then_some(())
        })
        .await;
        eventually_async("the other node to hear", SOON, async || {
            let answer = reader.get_or_load(key, &Read::new(), &loader).await.unwrap();
            (answer.version() == version).then_some(())
        })
        .await;
    }
    for cache in [a, b] {
        trusts_all(cache).await;
        eventually_async("deferred changes to be brought home", SOON, async || {
            (cache.stats().deferred == 0).then_some(())
        })
        .await;
    }
}

/// Two nodes, and what the first one observes.
pub(super) async fn two_counted(node: &RedisNode) -> (Cache, Cache, Arc<Counts>) {
    let options = options();
    let (_, first) = connected(&settings(vec![node.url()]), options.clone()).await;
    let (_, second) = connected(&settings(vec![node.url()]), options).await;
    let counts = Arc::new(Counts::default());
    let a = described(&first, 16)
        .observer(Arc::<Counts>::clone(&counts))
        .build()
        .unwrap();
    let b = cache(&second, 16);
    for cache in [&a, &b] {
        trusts_all(cache).await;
    }
    (a, b, counts)
}

/// A truth that both nodes have read: version 1 of `k`.
pub(super) async fn warm(a: &Cache, b: &Cache) -> (Arc<Truth>, Arc<dyn Loader>) {
    let truth = Arc::new(Truth::default());
    let loader = truth.loader();
    truth.commit("k");
    for cache in [a, b] {
        let answer = cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
        assert_eq!(answer.version(), Version::new(1));
    }
    (truth, loader)
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_that_is_loading_its_data_costs_no_read() {
    let node = RedisNode::start_alone().unwrap();
    let (a, b) = two(&settings(vec![node.url()])).await;
    let (truth, loader) = warm(&a, &b).await;
    for words in [
        &["DEBUG", "POPULATE", "2000"][..],
        &["CONFIG", "SET", "loading-process-events-interval-bytes", "1024"],
        // Microseconds a key: about two seconds in all.
        &["CONFIG", "SET", "key-load-delay", "1000"],
    ] {
        node.command(words).unwrap();
    }
    let reloading = node.clone();
    let reload = tokio::task::spawn_blocking(move || reloading.command(&["DEBUG", "RELOAD"]));
    let is_loading =
        || matches!(node.command(&["GET", "x"]), Err(Error::Refused { code, .. }) if code == "LOADING");
    eventually_async("the server to load", SOON, async || is_loading().then_some(())).await;
    let mut reads = 0;
    while is_loading() {
        let key = format!("k{reads}");
        let (version, _) = truth.commit(&key);
        let floor = Read::new().floor(version);
        let answer = a.get_or_load(&key, &floor, &loader).await.unwrap();
        assert_eq!(answer.version(), version);
        reads += 1;
    }
    assert!(reads > 0);
    reload.await.unwrap().unwrap();
    agree(&a, &b, &truth, "k").await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_that_evicts_whatever_it_likes_costs_no_wrong_read() {
    // F5: under `allkeys-*` markers, leases and logs go as well.
    for policy in ["allkeys-lru", "allkeys-random"] {
        let node = RedisNode::start_alone().unwrap();
        let (a, b, counts) = two_counted(&node).await;
        let truth = Arc::new(Truth::default());
        let reads = hammer([&a, &b], &truth, 40, |round| {
            if round == 5 {
                let used = info(&node, "memory", "used_memory") + (512 << 10);
                node.command(&["CONFIG", "SET", "maxmemory-policy", policy])
                    .unwrap();
                node.command(&["CONFIG", "SET", "maxmemory", &used.to_string()])
                    .unwrap();
            }
            if (5..30).contains(&round) {
                // Refused when nothing is left to evict, which is a bad day as well.
                drop(node.command(&["DEBUG", "POPULATE", "30", &format!("junk{round}"), "10240"]));
            }
            if round == 30 {
                node.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
            }
        })
        .await;
        assert!(reads > 500);
        assert!(info(&node, "stats", "evicted_keys") > 0, "nothing was evicted");
        assert!(counts.of(&Event::Diverged) > 0, "{policy} spared every log");
        agree(&a, &b, &truth, "k1").await;
    }
}

/// A number of `INFO`.
fn info(node: &RedisNode, section: &str, name: &str) -> u64 {
    let info = node.command(&["INFO", section]).unwrap();
    let line = info.as_text().unwrap().lines();
    let value = line
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key == name).then_some(value));
    value.unwrap().trim().parse().unwrap()
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn flushed_scripts_are_taught_again() {
    let node = RedisNode::start_alone().unwrap();
    let (a, b) = two(&settings(vec![node.url()])).await;
    let (truth, loader) = warm(&a, &b).await;
    node.command(&["SCRIPT", "FLUSH", "SYNC"]).unwrap();
    let (version, mark) = truth.commit("k");
    let receipt = a.put(Put::value("k", version, "2").mark(mark)).await.unwrap();
    assert_eq!(receipt, Receipt::Acknowledged);
    node.command(&["SCRIPT", "FLUSH", "SYNC"]).unwrap();
    truth.commit("new");
    let answer = b.get_or_load("new", &Read::new(), &loader).await.unwrap();
    assert_eq!((answer.version().get(), answer.origin()), (1, Origin::Primary));
    agree(&a, &b, &truth, "k").await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn listeners_that_were_killed_listen_again() {
    let node = RedisNode::start_alone().unwrap();
    let (a, b) = two(&settings(vec![node.url()])).await;
    let (truth, _) = warm(&a, &b).await;
    let listeners = || match node.command(&["CLIENT", "KILL", "TYPE", "pubsub"]) {
        Ok(Value::Int(killed)) => killed,
        other => panic!("{other:?}"),
    };
    assert!(listeners() >= 2);
    agree(&a, &b, &truth, "k").await;
    // They are back, so that changes are heard at once and not only by the next poll.
    eventually_async("both to listen again", SOON, async || {
        (listeners_of(&node) >= 2).then_some(())
    })
    .await;
}

/// How many listen to the one channel that all partitions of a single node's caches share.
fn listeners_of(node: &RedisNode) -> i64 {
    let Ok(Value::Array(channels)) = node.command(&["PUBSUB", "CHANNELS"]) else {
        return 0;
    };
    let counted = channels.iter().filter_map(Value::as_text).map(|channel| {
        match node.command(&["PUBSUB", "NUMSUB", channel]) {
            Ok(Value::Array(pair)) => match pair.last() {
                Some(Value::Int(count)) => *count,
                _ => 0,
            },
            _ => 0,
        }
    });
    counted.sum()
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_that_lost_everything_is_another_history() {
    for restart in [false, true] {
        let node = RedisNode::start_alone().unwrap();
        let (a, b, counts) = two_counted(&node).await;
        let (truth, _) = warm(&a, &b).await;
        if restart {
            node.restart(Stop::Graceful).unwrap();
        } else {
            node.command(&["FLUSHALL"]).unwrap();
        }
        eventually_async("it to be noticed", SOON, async || {
            (counts.of(&Event::Diverged) > 0).then_some(())
        })
        .await;
        agree(&a, &b, &truth, "k").await;
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_that_sleeps_is_not_waited_for() {
    let node = RedisNode::start_alone().unwrap();
    let (a, b) = two(&settings(vec![node.url()])).await;
    let (truth, loader) = warm(&a, &b).await;
    let sleeping = node.clone();
    let sleep = tokio::task::spawn_blocking(move || sleeping.command(&["DEBUG", "SLEEP", "2"]));
    let mut number = 0;
    eventually_async("it to sleep", SOON, async || {
        number += 1;
        let key = format!("k{number}");
        let (version, mark) = truth.commit(&key);
        let put = Put::invalidation(key.as_str(), version).mark(mark);
        matches!(a.put(put).await.unwrap(), Receipt::Deferred(_)).then_some(())
    })
    .await;
    for cache in [&a, &b] {
        let floor = Read::new().floor(Version::new(1));
        let answer = cache
            .get_or_load(&format!("k{number}"), &floor, &loader)
            .await
            .unwrap();
        assert_eq!(answer.version().get(), 1);
    }
    sleep.await.unwrap().unwrap();
    agree(&a, &b, &truth, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_cluster_whose_servers_come_back_is_used_again() {
    // F9 without anybody to take their place, while much is asked at once: see R0 and R1 of `cluster`.
    let cluster = RedisCluster::builder().start().unwrap();
    let (a, b) = two(&settings(cluster.urls())).await;
    let (truth, _) = warm(&a, &b).await;
    let mut busy = JoinSet::new();
    for number in 0..32 {
        let (cache, truth) = ([&a, &b][number % 2].clone(), truth.clone());
        busy.spawn(async move {
            for key in (0..8).cycle().map(|other| format!("busy{number}-{other}")) {
                let (version, mark) = truth.commit(&key);
                let put = Put::invalidation(key.as_str(), version).mark(mark);
                cache.put(put).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    for node in &cluster.nodes()[..2] {
        node.kill().unwrap();
        eventually_async("the cluster to be down", SOON, async || {
            let told = cluster.nodes()[2].command(&["CLUSTER", "INFO"]).unwrap();
            told.as_text()
                .unwrap()
                .contains("cluster_state:fail")
                .then_some(())
        })
        .await;
        node.start().unwrap();
        for cache in [&a, &b] {
            eventually_async("deferred changes to be brought home", SOON, async || {
                (cache.stats().deferred == 0).then_some(())
            })
            .await;
        }
    }
    busy.shutdown().await;
    agree(&a, &b, &truth, "k").await;
}
