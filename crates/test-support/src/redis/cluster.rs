//! A Redis Cluster: how its nodes are joined, and what a test may ask it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::node::RedisNode;
use super::resp::Value;
use crate::folder::{Folder, Lifetime};
use crate::process::Started;
use crate::wait::{self, Look};
use crate::{Error, Result, locate, ports};

/// Hash slots of every Redis Cluster.
const SLOTS: usize = 16384;
/// How long the nodes get to agree.
const JOIN_TIMEOUT: Duration = Duration::from_mins(1);
/// How often to start over when another process took one of our ports meanwhile.
const PORT_ATTEMPTS: usize = 3;
/// A node is suspected after this long without an answer, in milliseconds: short, so failovers are too.
const NODE_TIMEOUT_MS: &str = "2000";

/// A cluster to be started.
#[derive(Debug, Clone)]
#[must_use = "nothing runs before `start`"]
pub struct RedisClusterBuilder {
    primaries: usize,
    replicas: usize,
}

/// Some primaries that share the slots evenly, each with its replicas. Dropping the value that started it ends it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RedisCluster {
    nodes: Vec<RedisNode>,
}

impl RedisCluster {
    /// Starts describing a cluster: three primaries without replicas.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder {
            primaries: 3,
            replicas: 0,
        }
    }

    /// All nodes, in the order they were made: the first primaries, then the replicas (the first of each primary,
    /// then the second, …).
    pub fn nodes(&self) -> &[RedisNode] {
        &self.nodes
    }

    /// The nodes' URLs, in the same order.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisNode::url).collect()
    }

    /// The node with this name.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is none.
    pub fn node(&self, name: &str) -> Result<&RedisNode> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.ok_or_else(|| Error::State(format!("no Redis node is called {name}")))
    }

    /// The node that serves a key now, as seen by the first node that answers.
    ///
    /// # Errors
    ///
    /// When no running node answers, or the key's slot is served by none of ours.
    pub fn primary_of(&self, key: &str) -> Result<&RedisNode> {
        let running = || self.nodes.iter().filter(|node| node.is_running());
        let slot = running().find_map(|node| match node.command(&["CLUSTER", "KEYSLOT", key]) {
            Ok(Value::Int(slot)) => Some(slot),
            _ => None,
        });
        let slots = running().find_map(|node| node.command(&["CLUSTER", "SLOTS"]).ok());
        let port = slot
            .zip(slots)
            .and_then(|(slot, slots)| port_of_slot(&slots, slot));
        let found = port.and_then(|port| self.nodes.iter().find(|node| i64::from(node.port) == port));
        found.ok_or_else(|| Error::State(format!("nobody serves the slot of `{key}`")))
    }

    /// Waits until every running node finds all slots served and knows all nodes.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] with the first node's view that is not yet so.
    pub fn wait_ok(&self, timeout: Duration) -> Result<()> {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            wait::until(
                &format!("{} to find the cluster whole", node.name()),
                timeout,
                || {
                    let info = node.command(&["CLUSTER", "INFO"])?;
                    let info = info.as_text().unwrap_or_default();
                    let has = |wanted: &str| info.lines().any(|line| line == wanted);
                    let whole = has("cluster_state:ok") && has("cluster_slots_ok:16384") && has(&known);
                    Ok(if whole {
                        Look::Done(())
                    } else {
                        Look::NotYet(info.lines().take(8).collect::<Vec<_>>().join(" "))
                    })
                },
            )?;
        }
        Ok(())
    }
}

/// The port of the primary that serves the slot, out of an answer to `CLUSTER SLOTS`.
fn port_of_slot(slots: &Value, slot: i64) -> Option<i64> {
    let Value::Array(ranges) = slots else { return None };
    ranges.iter().find_map(|range| {
        let Value::Array(range) = range else { return None };
        match range.as_slice() {
            [Value::Int(first), Value::Int(last), Value::Array(primary), ..]
                if (*first..=*last).contains(&slot) =>
            {
                match primary.get(1) {
                    Some(Value::Int(port)) => Some(*port),
                    _ => None,
                }
            }
            _ => None,
        }
    })
}

impl RedisClusterBuilder {
    /// How many nodes share the slots; at least 1. With fewer than 3 nothing fails over.
    pub fn primaries(mut self, count: usize) -> Self {
        self.primaries = count.max(1);
        self
    }

    /// How many replicas each primary has.
    pub fn replicas(mut self, each: usize) -> Self {
        self.replicas = each;
        self
    }

    /// Starts the cluster in a folder of its own, which goes away with the returned value.
    ///
    /// # Errors
    ///
    /// When Redis is not installed or a node does not come up; the error carries the end of its log.
    pub fn start(self) -> Result<RedisCluster> {
        self.start_in(&Arc::new(Folder::create(Lifetime::Owner)?))
    }

    /// Starts the cluster in a folder that it shares with other servers. One cluster fits into a folder.
    ///
    /// # Errors
    ///
    /// As of [`start`](Self::start).
    pub fn start_in(self, folder: &Arc<Folder>) -> Result<RedisCluster> {
        let mut nodes = self.nodes(folder, &locate::redis()?)?;
        for _ in 1..PORT_ATTEMPTS {
            assign_ports(&mut nodes)?;
            match self.bring_up(&nodes) {
                Err(error) if error.is_port_taken() => nodes.iter().try_for_each(RedisNode::kill)?,
                other => return other.map(|()| RedisCluster { nodes }),
            }
        }
        assign_ports(&mut nodes)?;
        self.bring_up(&nodes).map(|()| RedisCluster { nodes })
    }

    fn nodes(&self, folder: &Arc<Folder>, program: &Path) -> Result<Vec<RedisNode>> {
        let count = self.primaries * (1 + self.replicas);
        (1..=count)
            .map(|n| RedisNode::new(folder, &format!("redis-cluster-{n}"), program))
            .collect()
    }

    fn bring_up(&self, nodes: &[RedisNode]) -> Result<()> {
        let started = nodes
            .iter()
            .map(RedisNode::spawn)
            .collect::<Result<Vec<Started>>>()?;
        nodes
            .iter()
            .zip(&started)
            .try_for_each(|(node, started)| node.wait_ready(started))?;
        let (primaries, replicas) = nodes.split_at(self.primaries);
        for (index, node) in primaries.iter().enumerate() {
            let (first, last) = (
                SLOTS * index / self.primaries,
                SLOTS * (index + 1) / self.primaries - 1,
            );
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        }
        meet(nodes)?;
        for (index, replica) in replicas.iter().enumerate() {
            let primary = &primaries[index % self.primaries];
            replicate(replica, primary)?;
        }
        // A view that owns nothing more than its clones do.
        RedisCluster {
            nodes: nodes.to_vec(),
        }
        .wait_ok(JOIN_TIMEOUT)
    }
}

fn assign_ports(nodes: &mut [RedisNode]) -> Result<()> {
    let ports = ports::free(nodes.len() * 2)?;
    for (node, pair) in nodes.iter_mut().zip(ports.chunks_exact(2)) {
        let &[port, bus] = pair else { continue };
        let bus = bus.to_string();
        let cluster = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            NODE_TIMEOUT_MS,
        ];
        // By default a primary waits five seconds for more replicas before it sends its data to the first.
        node.assign_port(
            port,
            &[&cluster[..], &["--repl-diskless-sync-delay", "0"]].concat(),
        );
    }
    Ok(())
}

/// Introduces all nodes to the first one; gossip does the rest.
fn meet(nodes: &[RedisNode]) -> Result<()> {
    let [first, others @ ..] = nodes else {
        return Ok(());
    };
    let mut connection = first.connect()?;
    for other in others {
        let bus = other
            .daemon
            .args
            .iter()
            .skip_while(|word| *word != "--cluster-port")
            .nth(1);
        let bus = bus.ok_or_else(|| Error::State(format!("{} has no bus port", other.name())))?;
        connection.command(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus])?;
    }
    Ok(())
}

/// Makes one node a replica of another, once gossip has told it of that one, and waits until it is in sync.
fn replicate(replica: &RedisNode, primary: &RedisNode) -> Result<()> {
    let id = primary.command(&["CLUSTER", "MYID"])?;
    let id = id
        .as_text()
        .ok_or_else(|| Error::State(format!("{} has no id", primary.name())))?;
    wait::until(
        &format!("{} to know {}", replica.name(), primary.name()),
        JOIN_TIMEOUT,
        || {
            Ok(match replica.command(&["CLUSTER", "REPLICATE", id]) {
                Ok(_) => Look::Done(()),
                Err(Error::Refused { message, .. }) => Look::NotYet(message),
                Err(error) => return Err(error),
            })
        },
    )?;
    wait::until(&format!("{} to be in sync", replica.name()), JOIN_TIMEOUT, || {
        let info = replica.command(&["INFO", "replication"])?;
        let up = info
            .as_text()
            .is_some_and(|info| info.lines().any(|line| line == "master_link_status:up"));
        Ok(Look::when(up))
    })
}

#[cfg(test)]
mod tests;
