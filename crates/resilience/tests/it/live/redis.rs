//! A Redis that is busy with one command: it accepts connections and answers nobody.

use std::io;
use std::sync::{Arc, Mutex};

use contextkeep_resilience::classify::redis;
use contextkeep_resilience::{Outcome, Profile};
use contextkeep_test_support::RedisNode;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Dependency, endure};

struct Redis {
    node: RedisNode,
    asleep: Mutex<Option<JoinHandle<io::Result<String>>>>,
}

/// One command on a connection of its own, and the line that answers it.
async fn command(node: &RedisNode, line: &'static str) -> io::Result<String> {
    let mut socket = BufReader::new(TcpStream::connect(node.addr()).await?);
    socket.write_all(line.as_bytes()).await?;
    let mut reply = String::new();
    socket.read_line(&mut reply).await?;
    Ok(reply)
}

impl Dependency for Arc<Redis> {
    async fn call(&self) -> Result<(), Outcome> {
        match command(&self.node, "PING\r\n").await {
            Ok(reply) if reply.starts_with('+') => Ok(()),
            Ok(reply) => Err(redis::reply(&reply)),
            Err(_) => Err(redis::connection(true)),
        }
    }

    fn fail(&self) {
        let this = Self::clone(self);
        // Long enough for two rounds of probes at the profile's open times.
        let sleep = async move { command(&this.node, "DEBUG SLEEP 3\r\n").await };
        *self.asleep.lock().unwrap() = Some(tokio::spawn(sleep));
    }

    async fn heal(&self) {
        let asleep = self.asleep.lock().unwrap().take().unwrap();
        assert_eq!(asleep.await.unwrap().unwrap(), "+OK\r\n", "it slept to the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_sleeping_redis_is_left_alone_until_it_wakes() {
    let node = RedisNode::start_alone().unwrap();
    let redis = Arc::new(Redis {
        node,
        asleep: Mutex::new(None),
    });
    let profile = Profile::RedisCache;
    let breaker = profile.breaker("redis").build().unwrap();
    let probes = u32::from(profile.half_open().probes);
    endure(
        "Redis, DEBUG SLEEP 3",
        redis,
        breaker,
        profile.attempt_timeout(),
        probes,
    )
    .await;
}
