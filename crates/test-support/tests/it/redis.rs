use contextkeep_test_support::redis::Value;
use contextkeep_test_support::{RedisCluster, RedisNode, Stop, eventually};

use crate::SOON;

#[test]
#[ignore = "needs server binaries"]
fn a_node_answers_and_forgets_everything_when_killed() {
    let node = RedisNode::start_alone().unwrap();
    node.command(&["SET", "k", "v"]).unwrap();
    node.restart(Stop::Graceful).unwrap();
    assert_eq!(node.command(&["GET", "k"]).unwrap(), Value::Nil);
    node.kill().unwrap();
    assert!(!node.is_running() && node.connect().is_err());
    node.start().unwrap();
    assert_eq!(node.command(&["PING"]).unwrap(), Value::Text("PONG".to_owned()));
}

#[test]
#[ignore = "needs server binaries"]
fn a_frozen_node_holds_a_command_until_it_is_thawed() {
    let node = RedisNode::start_alone().unwrap();
    let mut connection = node.connect().unwrap();
    node.freeze().unwrap();
    let waiting = std::thread::spawn(move || connection.command(&["INCR", "n"]));
    assert!(node.is_running());
    node.thaw().unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), Value::Int(1));
}

#[test]
#[ignore = "needs server binaries"]
fn a_clusters_node_comes_back_after_a_kill_and_the_cluster_is_whole_again() {
    let cluster = RedisCluster::builder().start().unwrap();
    let owner = cluster.primary_of("k").unwrap();
    owner.command(&["SET", "k", "v"]).unwrap();
    let other = cluster
        .nodes()
        .iter()
        .find(|node| node.name() != owner.name())
        .unwrap();
    let moved = other.command(&["GET", "k"]).unwrap_err().to_string();
    assert!(moved.contains("MOVED"), "{moved}");

    owner.kill().unwrap();
    eventually("the others to miss it", SOON, || {
        let info = other.command(&["CLUSTER", "INFO"]).unwrap();
        info.as_text()
            .unwrap()
            .contains("cluster_state:fail")
            .then_some(())
    });
    owner.start().unwrap();
    cluster.wait_ok(SOON).unwrap();
    assert_eq!(cluster.primary_of("k").unwrap().name(), owner.name());
}

#[test]
#[ignore = "needs server binaries"]
fn a_replica_takes_over_from_a_killed_primary() {
    let cluster = RedisCluster::builder().replicas(1).start().unwrap();
    assert_eq!(cluster.nodes().len(), 6);
    let owner = cluster.primary_of("k").unwrap();
    // On one connection: WAIT is about what its own connection wrote.
    let mut connection = owner.connect().unwrap();
    connection.command(&["SET", "k", "v"]).unwrap();
    eventually("the write to be on the replica", SOON, || {
        let replicas = connection.command(&["WAIT", "1", "1000"]).unwrap();
        (replicas == Value::Int(1)).then_some(())
    });
    owner.kill().unwrap();
    let heir = eventually("a replica to take over", SOON, || {
        cluster
            .primary_of("k")
            .ok()
            .filter(|node| node.name() != owner.name())
    });
    assert_eq!(heir.command(&["GET", "k"]).unwrap(), Value::Text("v".to_owned()));
}
