//! How each fault is done to the real processes, and undone.

use std::time::Duration;

use contextkeep_test_support::Stop;
use contextkeep_test_support::postgres::{PgMember, Slowness};

use super::client::Nodes;
use super::schedule::Fault;
use super::stage::Stage;

/// A disk that takes so long for each flush, so that a commit holds everybody else's up, and for each page that is read or
/// written.
pub(super) const SLOW: Slowness = Slowness {
    flush: Duration::from_millis(100),
    transfer: Duration::from_millis(5),
};

/// A fault that is on, and what its end has to know.
#[derive(Debug)]
pub(super) struct Ongoing {
    fault: Fault,
    /// The member it was done to: roles move while it lasts.
    member: Option<String>,
}

/// Breaks something.
pub(super) fn begin(fault: Fault, stage: &Stage) -> Ongoing {
    let mut member = None;
    let mut on = |chosen: &PgMember| member = Some(chosen.name().to_owned());
    let postgres = &stage.postgres;
    match fault {
        Fault::ServerKill(node) => stage.nodes[node].kill(),
        Fault::ServerFreeze(node) => stage.nodes[node].freeze(),
        Fault::RedisKill(node) => stage.redis.nodes()[node].kill().unwrap(),
        Fault::RedisFreeze(node) => stage.redis.nodes()[node].freeze().unwrap(),
        Fault::RedisFreezeAll => {
            stage.redis.nodes().iter().for_each(|node| node.freeze().unwrap());
        }
        Fault::RedisFlush => {
            for node in stage.redis.nodes() {
                node.command(&["FLUSHALL"]).unwrap();
            }
        }
        Fault::ReplicaPause(n) => {
            on(stage.replica(n));
            stage.replica(n).sql("SELECT pg_wal_replay_pause()").unwrap();
        }
        Fault::ReplicaKill(n) => {
            on(stage.replica(n));
            stage.replica(n).kill().unwrap();
        }
        Fault::ReplicaFreeze(n) => {
            on(stage.replica(n));
            stage.replica(n).freeze().unwrap();
        }
        Fault::PrimaryCrash => {
            on(postgres.primary());
            postgres.primary().stop(Stop::Immediate).unwrap();
        }
        Fault::PrimaryFreeze => {
            on(postgres.primary());
            postgres.primary().freeze().unwrap();
        }
        Fault::PrimaryLoss => {
            on(postgres.primary());
            lose_primary(stage);
        }
        Fault::Resets(0) => {
            on(postgres.primary());
            stage.proxy_of(postgres.primary()).cut();
        }
        Fault::Resets(n) => {
            on(stage.replica(n - 1));
            stage.proxy_of(stage.replica(n - 1)).cut();
        }
        Fault::SlowDisk => {
            on(postgres.primary());
            postgres.primary().slow_disk(SLOW).unwrap();
        }
    }
    Ongoing { fault, member }
}

/// Mends it. What was killed runs again when this returns.
pub(super) fn end(ongoing: &Ongoing, stage: &Stage, nodes: &Nodes) {
    let member = || stage.postgres.member(ongoing.member.as_deref().unwrap()).unwrap();
    match ongoing.fault {
        Fault::ServerKill(node) => {
            stage.nodes[node].revive();
            nodes.moved(node, stage.nodes[node].address());
        }
        Fault::ServerFreeze(node) => stage.nodes[node].thaw(),
        Fault::RedisKill(node) => stage.redis.nodes()[node].start().unwrap(),
        Fault::RedisFreeze(node) => stage.redis.nodes()[node].thaw().unwrap(),
        Fault::RedisFreezeAll => stage.redis.nodes().iter().for_each(|node| node.thaw().unwrap()),
        Fault::RedisFlush => {}
        Fault::ReplicaPause(_) => drop(member().sql("SELECT pg_wal_replay_resume()").unwrap()),
        Fault::ReplicaKill(_) | Fault::PrimaryCrash => member().start().unwrap(),
        Fault::ReplicaFreeze(_) | Fault::PrimaryFreeze => member().thaw().unwrap(),
        Fault::PrimaryLoss => stage.postgres.rebuild(member().name()).unwrap(),
        Fault::Resets(_) => stage.proxy_of(member()).heal(),
        Fault::SlowDisk => member().slow_disk(Slowness::default()).unwrap(),
    }
}

/// The primary is gone for good. The replica that has most takes over: it has whatever was acknowledged, because
/// `replicated` waits for one of them.
fn lose_primary(stage: &Stage) {
    let postgres = &stage.postgres;
    postgres.primary().kill().unwrap();
    let received = |member: &&PgMember| -> u64 {
        let sql = "SELECT pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::bigint";
        member.sql_value(sql).unwrap().parse().unwrap()
    };
    let most = postgres
        .replicas()
        .max_by_key(received)
        .unwrap()
        .name()
        .to_owned();
    postgres.promote(&most).unwrap();
}
