//! Reads that travel together are told apart again.

use std::time::Duration;

use contextkeep_test_support::redis::Value;
use contextkeep_test_support::{Proxy, RedisNode, eventually_async};
use futures_util::future::join_all;

use super::{RedisLevel, SOON, connected, options, settings};
use crate::RemoteError;
use crate::contract::change;
use crate::entry::Body;
use crate::partition::partition_of;
use crate::remote::{Backplane, SecondLevel};
use crate::settings::RedisSettings;
use crate::version::Key;

const KEYS: usize = 200;

fn key(number: usize) -> Key {
    Key::from(format!("k{number}"))
}

/// What a key holds: each third one nothing.
fn body(number: usize) -> Option<Body> {
    (!number.is_multiple_of(3)).then(|| Body::Value(format!("value of {number}").into()))
}

/// How many commands of this name the server was given.
fn calls(node: &RedisNode, name: &str) -> u64 {
    let info = node.command(&["INFO", "commandstats"]).unwrap();
    let line = format!("cmdstat_{name}:calls=");
    let count = info.as_text().unwrap().lines().find_map(|text| {
        let count = text.strip_prefix(&line)?.split(',').next()?;
        count.parse().ok()
    });
    count.unwrap_or(0)
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn reads_that_travel_together_each_get_their_own_answer() {
    let node = RedisNode::start_alone().unwrap();
    let options = options();
    let (level, redis) = connected(&settings(vec![node.url()]), options.clone()).await;
    for number in 0..KEYS {
        if let Some(body) = body(number) {
            level.apply(change(&key(number), 1, 0, body)).await;
        }
    }
    // One that is damaged is trouble for its own reader only; so is one that is no string.
    let place = |number: usize| {
        let partition = partition_of(&key(number), options.partitions);
        format!("{{{}.{partition}}}e:{}", options.name, key(number))
    };
    node.command(&["SETRANGE", &place(1), "45", "X"]).unwrap();
    node.command(&["DEL", &place(2)]).unwrap();
    node.command(&["RPUSH", &place(2), "a list"]).unwrap();

    let before = calls(&node, "mget");
    let one_by_one = join_all((0..KEYS).map(|number| redis.get(vec![key(number)]))).await;
    let commands = calls(&node, "mget") - before;
    assert!(commands <= 8, "{commands} commands for {KEYS} reads");
    let together = redis.get((0..KEYS).map(key).collect()).await;
    let one_by_one = one_by_one.into_iter().flatten();
    for (number, fetched) in one_by_one.enumerate().chain(together.into_iter().enumerate()) {
        if number == 1 {
            assert!(matches!(fetched, Err(RemoteError::Corrupt(_))), "{fetched:?}");
            continue;
        }
        let fetched = fetched.unwrap_or_else(|error| panic!("{number}: {error}"));
        let position = redis_position(
            &node,
            &options.name,
            partition_of(&key(number), options.partitions),
        );
        assert_eq!(fetched.position.map(|at| at.seq), position, "{number}");
        let expected = body(number).filter(|_| number != 2);
        assert_eq!(fetched.record.map(|record| record.body), expected, "{number}");
    }
}

/// The sequence number of a partition's log; `None` if it has not begun.
fn redis_position(node: &RedisNode, name: &str, partition: u16) -> Option<u64> {
    match node
        .command(&["GET", &format!("{{{name}.{partition}}}m")])
        .unwrap()
    {
        Value::Text(meta) => meta.get(..20)?.parse().ok(),
        _ => None,
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_reader_that_goes_away_takes_nobody_with_it() {
    // B1.
    let node = RedisNode::start_alone().unwrap();
    let proxy = Proxy::start(node.addr()).unwrap();
    let (_, redis) = connected(&settings(vec![node.url_at(proxy.addr())]), options()).await;
    proxy.delay(Duration::from_millis(100));
    let mut readers: Vec<_> = (0..40)
        .map(|number| {
            let redis = redis.clone();
            tokio::spawn(async move { redis.get(vec![key(number)]).await.remove(0).map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    // The one that went alone, and the first of those who wait.
    for reader in readers.drain(..2) {
        reader.abort();
    }
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    proxy.heal();

    // Those who are not answered are told so, all of them.
    node.freeze().unwrap();
    let failed = join_all((0..40).map(|number| redis.get(vec![key(number)]))).await;
    for failed in failed.into_iter().flatten() {
        assert!(matches!(failed, Err(RemoteError::TimedOut)), "{failed:?}");
    }
    node.thaw().unwrap();
    eventually_async("it to answer again", SOON, async || {
        redis.get(vec![key(0)]).await.remove(0).ok()
    })
    .await;
}

/// The lanes to a server, by its own list: they alone speak RESP2, and ask for nothing but MGET.
fn lanes(node: &RedisNode) -> Vec<String> {
    let list = node.command(&["CLIENT", "LIST"]).unwrap();
    let lines = list.as_text().unwrap().lines();
    lines
        .filter(|line| line.contains(" resp=2 ") || line.ends_with(" resp=2"))
        .filter(|line| line.contains(" cmd=mget "))
        .map(str::to_owned)
        .collect()
}

/// Reads until a lane carries the question.
async fn on_a_lane(node: &RedisNode, redis: &RedisLevel) -> Vec<String> {
    eventually_async("a lane to be made", SOON, async || {
        redis.get(vec![key(0)]).await.remove(0).unwrap();
        Some(lanes(node)).filter(|lanes| !lanes.is_empty())
    })
    .await
}

fn field<'a>(client: &'a str, name: &str) -> &'a str {
    let of = |word: &'a str| word.strip_prefix(name)?.strip_prefix('=');
    client.split(' ').find_map(of).unwrap()
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_lane_that_ends_costs_no_read_and_is_made_again() {
    let node = RedisNode::start_alone().unwrap();
    let (level, redis) = connected(&settings(vec![node.url()]), options()).await;
    let body = Body::Value("value".into());
    level.apply(change(&key(0), 1, 0, body.clone())).await;
    for _ in 0..3 {
        for lane in on_a_lane(&node, &redis).await {
            node.command(&["CLIENT", "KILL", "ID", field(&lane, "id")])
                .unwrap();
        }
        for _ in 0..4 {
            let got = redis.get(vec![key(0)]).await.remove(0).unwrap();
            assert_eq!(got.record.map(|record| record.body), Some(body.clone()));
        }
    }
    // What the server refuses it refuses on a lane as well, and the lane is none the worse.
    let before = on_a_lane(&node, &redis).await;
    node.command(&["ACL", "SETUSER", "default", "-mget"]).unwrap();
    let refused = redis.get(vec![key(0)]).await.remove(0).unwrap_err();
    assert!(
        matches!(&refused, RemoteError::Unavailable(why) if why.contains("mget")),
        "{refused:?}"
    );
    node.command(&["ACL", "SETUSER", "default", "+mget"]).unwrap();
    redis.get(vec![key(0)]).await.remove(0).unwrap();
    let after = lanes(&node);
    assert_eq!(field(&after[0], "id"), field(&before[0], "id"));
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_lane_logs_in_as_the_other_connections_do() {
    let node = RedisNode::start_alone().unwrap();
    node.command(&["ACL", "SETUSER", "keeper", "on", ">secret", "~*", "&*", "+@all"])
        .unwrap();
    let settings = RedisSettings {
        password: Some("secret".into()),
        db: 3,
        ..settings(vec![node.url().replace("redis://", "redis://keeper@")])
    };
    let (_, redis) = connected(&settings, options()).await;
    let lanes = on_a_lane(&node, &redis).await;
    assert_eq!(
        (field(&lanes[0], "user"), field(&lanes[0], "db")),
        ("keeper", "3")
    );
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_lane_that_leads_to_another_server_is_left() {
    // B3.
    let (old, new) = (
        RedisNode::start_alone().unwrap(),
        RedisNode::start_alone().unwrap(),
    );
    let proxy = Proxy::start(old.addr()).unwrap();
    let options = options();
    let (level, redis) = connected(&settings(vec![old.url_at(proxy.addr())]), options.clone()).await;
    level.apply(change(&key(0), 1, 0, Body::Absent)).await;
    on_a_lane(&old, &redis).await;
    let (other, _) = connected(&settings(vec![new.url()]), options).await;
    for version in 2..6 {
        other.apply(change(&key(0), version, 0, Body::Absent)).await;
    }
    // Only the shared connections find the new server.
    proxy.retarget(new.addr());
    let clients = old.command(&["CLIENT", "LIST"]).unwrap();
    for client in clients.as_text().unwrap().lines() {
        if field(client, "resp") == "3" {
            old.command(&["CLIENT", "KILL", "ID", field(client, "id")])
                .unwrap();
        }
    }
    assert!(!lanes(&old).is_empty());
    eventually_async("the new server's log to be met", SOON, async || {
        let positions = redis.positions().await;
        positions.iter().flatten().any(|at| at.seq >= 4).then_some(())
    })
    .await;
    let got = redis.get(vec![key(0)]).await.remove(0).unwrap();
    assert_eq!(got.record.unwrap().version.get(), 5);
    eventually_async("the old lanes to end", SOON, async || {
        lanes(&old).is_empty().then_some(())
    })
    .await;
}
