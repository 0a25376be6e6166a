//! What else is in the server, or asks it: damage, foreign writers, other caches, herds.

use std::sync::Arc;

use contextkeep_test_support::{RedisNode, eventually_async};

use super::trouble::{agree, warm};
use super::{Options, SOON, Truth, cache, connected, described, options, settings, trusts_all, two};
use crate::partition::partition_of;
use crate::version::Version;
use crate::{Origin, Put, Read, Receipt};

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
