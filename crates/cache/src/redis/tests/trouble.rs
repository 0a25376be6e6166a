//! Bad days, one at a time: each costs time or entries, none a wrong read, and each ends by itself.

use std::sync::Arc;

use contextkeep_test_support::redis::Value;
use contextkeep_test_support::{Error, RedisCluster, RedisNode, Stop, eventually_async};

use super::{
    Counts, Options, SOON, Truth, cache, connected, described, hammer, options, settings, trusts_all, two,
};
use crate::loader::Loader;
use crate::partition::partition_of;
use crate::version::Version;
use crate::{Cache, Event, Origin, Put, Read, Receipt};

/// Both nodes agree again, and changes get through in both directions.
async fn agree(a: &Cache, b: &Cache, truth: &Arc<Truth>, key: &str) {
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
async fn two_counted(node: &RedisNode) -> (Cache, Cache, Arc<Counts>) {
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
async fn warm(a: &Cache, b: &Cache) -> (Arc<Truth>, Arc<dyn Loader>) {
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
async fn a_foreign_del_costs_a_load_or_the_partition() {
    let node = RedisNode::start_alone().unwrap();
    let options = options();
    let (_, first) = connected(&settings(vec![node.url()]), options.clone()).await;
    let (_, second) = connected(&settings(vec![node.url()]), options.clone()).await;
    let (a, b) = (cache(&first, 16), cache(&second, 16));
    for cache in [&a, &b] {
        trusts_all(cache).await;
    }
    let (truth, _) = warm(&a, &b).await;
    let partition = partition_of("k", options.partitions);
    for what in ["e:k", "l", "t", "m", "L:k"] {
        node.command(&["DEL", &format!("{{{}.{partition}}}{what}", options.name)])
            .unwrap();
        agree(&a, &b, &truth, "k").await;
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn damaged_and_foreign_entries_are_replaced_by_the_next_load() {
    // F20: what can't be read counts as evicted.
    let node = RedisNode::start_alone().unwrap();
    let options = options();
    let (_, redis) = connected(&settings(vec![node.url()]), options.clone()).await;
    // Without a first level every read shows what the second has.
    let cache = described(&redis, 16).without_memory().build().unwrap();
    trusts_all(&cache).await;
    let truth = Arc::new(Truth::default());
    let loader = truth.loader();
    truth.commit("k");
    let partition = partition_of("k", options.partitions);
    let entry = format!("{{{}.{partition}}}e:k", options.name);
    let later = format!("2v1{:020}{:013}a tail of a later release", 9, 0);
    let damages: [&[&str]; 6] = [
        &["SETRANGE", &entry, "45", "X"],
        &["SETRANGE", &entry, "5", "zzz"],
        &["SET", &entry, "somebody else's"],
        &["SET", &entry, &later],
        &["SET", &entry, ""],
        &["RPUSH", &entry, "a list"],
    ];
    let read = async || cache.get_or_load("k", &Read::new(), &loader).await.unwrap();
    // A load lands before what it loaded is filled.
    let kept = async |damage: &[&str]| {
        eventually_async(&format!("{damage:?} to be replaced"), SOON, async || {
            let answer = read().await;
            assert_eq!(answer.version().get(), truth.version("k"), "{damage:?}");
            (answer.origin() == Origin::L2).then_some(())
        })
        .await;
    };
    for damage in damages {
        let hurt = || {
            if damage.first() == Some(&"RPUSH") {
                node.command(&["DEL", &entry]).unwrap();
            }
            node.command(damage).unwrap();
        };
        read().await;
        kept(damage).await;
        hurt();
        let answer = read().await;
        assert_eq!(
            (answer.origin(), answer.version().get()),
            (Origin::Primary, truth.version("k")),
            "{damage:?}"
        );
        kept(damage).await;
        // A change does as well as a load.
        hurt();
        let (version, mark) = truth.commit("k");
        let put = Put::value("k", version, version.to_string()).mark(mark);
        assert_eq!(cache.put(put).await.unwrap(), Receipt::Acknowledged, "{damage:?}");
        assert_eq!(read().await.origin(), Origin::L2, "{damage:?}");
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_log_whose_place_was_taken_begins_anew() {
    let node = RedisNode::start_alone().unwrap();
    let options = options();
    let (_, first) = connected(&settings(vec![node.url()]), options.clone()).await;
    let (_, second) = connected(&settings(vec![node.url()]), options.clone()).await;
    let (a, b) = (cache(&first, 16), cache(&second, 16));
    for cache in [&a, &b] {
        trusts_all(cache).await;
    }
    let (truth, _) = warm(&a, &b).await;
    let meta = format!("{{{}.{}}}m", options.name, partition_of("k", options.partitions));
    node.command(&["SET", &meta, "somebody else's"]).unwrap();
    agree(&a, &b, &truth, "k").await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_value_over_the_limit_is_a_change_like_any_other() {
    // F19.
    let node = RedisNode::start_alone().unwrap();
    let options = Options {
        max_value: 100,
        ..options()
    };
    let (_, first) = connected(&settings(vec![node.url()]), options.clone()).await;
    let (_, second) = connected(&settings(vec![node.url()]), options).await;
    let (a, b) = (cache(&first, 16), cache(&second, 16));
    for cache in [&a, &b] {
        trusts_all(cache).await;
    }
    let (truth, loader) = warm(&a, &b).await;
    let (version, mark) = truth.commit("k");
    let put = Put::value("k", version, vec![b'x'; 101]).mark(mark);
    assert_eq!(a.put(put).await.unwrap(), Receipt::Acknowledged);
    let answer = eventually_async("the other node to hear", SOON, async || {
        let answer = b.get_or_load("k", &Read::new(), &loader).await.unwrap();
        (answer.version() == version).then_some(answer)
    })
    .await;
    assert_eq!(
        answer.value().unwrap(),
        "2",
        "the source's, not the one that was too large"
    );
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

#[tokio::test]
#[ignore = "needs server binaries"]
async fn caches_of_different_names_share_nothing() {
    // F21.
    let node = RedisNode::start_alone().unwrap();
    let (a, _) = two(&settings(vec![node.url()])).await;
    let (other, _) = two(&settings(vec![node.url()])).await;
    let put = Put::value("k", Version::new(9), "ours");
    assert_eq!(a.put(put).await.unwrap(), Receipt::Acknowledged);
    let truth = Arc::new(Truth::default());
    truth.commit("k");
    let answer = other
        .get_or_load("k", &Read::new(), &truth.loader())
        .await
        .unwrap();
    assert_eq!(
        (answer.version().get(), answer.value().unwrap().as_ref()),
        (1, &b"1"[..])
    );
    assert_eq!(a.get("k", &Read::new()).unwrap().value().unwrap(), "ours");
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_herd_after_a_tag_was_raised_loads_each_key_once() {
    // F18.
    let node = RedisNode::start_alone().unwrap();
    let (a, b) = two(&settings(vec![node.url()])).await;
    let (truth, loader) = warm(&a, &b).await;
    let read = Read::new().tags(["all"]);
    truth.commit("t");
    for cache in [&a, &b] {
        cache.get_or_load("t", &read, &loader).await.unwrap();
    }
    a.invalidate_tag("all").await.unwrap();
    eventually_async("the tag to be heard of", SOON, async || {
        b.get("t", &read).is_none().then_some(())
    })
    .await;
    let before = truth.loads();
    let mut herd = Vec::new();
    for cache in [&a, &b] {
        for _ in 0..50 {
            let (cache, loader, read) = (cache.clone(), Arc::clone(&loader), read.clone());
            herd.push(tokio::spawn(async move {
                cache.get_or_load("t", &read, &loader).await.unwrap()
            }));
        }
    }
    for one in herd {
        assert_eq!(one.await.unwrap().version().get(), 1);
    }
    assert_eq!(truth.loads() - before, 1);
}

/// A slot on its way from one node to another.
struct Moving<'a> {
    slot: String,
    from: &'a RedisNode,
    to: &'a RedisNode,
    all: &'a [RedisNode],
}

impl<'a> Moving<'a> {
    fn begin(cluster: &'a RedisCluster, key: &str) -> Self {
        let from = cluster.primary_of(key).unwrap();
        let to = cluster
            .nodes()
            .iter()
            .find(|node| node.addr() != from.addr())
            .unwrap();
        let Ok(Value::Int(slot)) = from.command(&["CLUSTER", "KEYSLOT", key]) else {
            panic!("no slot");
        };
        let slot = slot.to_string();
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)])
            .unwrap();
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)])
            .unwrap();
        let moving = Self {
            slot,
            from,
            to,
            all: cluster.nodes(),
        };
        moving.carry(1);
        moving
    }

    /// Moves up to so many keys; false when none was left.
    fn carry(&self, most: u32) -> bool {
        let words = ["CLUSTER", "GETKEYSINSLOT", &self.slot, &most.to_string()];
        let Ok(Value::Array(keys)) = self.from.command(&words) else {
            panic!("no keys");
        };
        let port = self.to.addr().port().to_string();
        for key in keys.iter().filter_map(Value::as_text) {
            // Gone meanwhile (`NOKEY`) is fine: some have short lives.
            self.from
                .command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000", "REPLACE"])
                .unwrap();
        }
        !keys.is_empty()
    }

    fn finish(&self) {
        while self.carry(100) {}
        let owner = id(self.to);
        for node in [self.to, self.from].into_iter().chain(self.all) {
            node.command(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &owner])
                .unwrap();
        }
    }
}

fn id(node: &RedisNode) -> String {
    node.command(&["CLUSTER", "MYID"])
        .unwrap()
        .as_text()
        .unwrap()
        .to_owned()
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_cluster_that_moves_slots_under_load_costs_no_wrong_read() {
    // F10: half moved slots answer ASK and TRYAGAIN, moved ones MOVED, and end their channels' subscriptions.
    let cluster = RedisCluster::builder().start().unwrap();
    let options = options();
    let (_, first) = connected(&settings(cluster.urls()), options.clone()).await;
    let (_, second) = connected(&settings(cluster.urls()), options.clone()).await;
    let (a, b) = (cache(&first, 16), cache(&second, 16));
    for cache in [&a, &b] {
        trusts_all(cache).await;
    }
    let truth = Arc::new(Truth::default());
    let tag = |key: &str| format!("{{{}.{}}}", options.name, partition_of(key, options.partitions));
    let (mut one, mut other) = (None, None);
    let reads = hammer([&a, &b], &truth, 60, |round| match round {
        15 => one = Some(Moving::begin(&cluster, &tag("k1"))),
        20 => other = Some(Moving::begin(&cluster, &tag("k2"))),
        30 => one.take().unwrap().finish(),
        40 => other.take().unwrap().finish(),
        _ => {}
    })
    .await;
    assert!(reads > 800);
    for key in ["k1", "k2"] {
        agree(&a, &b, &truth, key).await;
    }
}
