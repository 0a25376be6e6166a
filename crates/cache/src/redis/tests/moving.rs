//! Slots that move while they are read and written.

use std::sync::Arc;

use contextkeep_test_support::redis::Value;
use contextkeep_test_support::{RedisCluster, RedisNode};

use super::trouble::agree;
use super::{Truth, cache, connected, hammer, options, settings, trusts_all};
use crate::partition::partition_of;

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
