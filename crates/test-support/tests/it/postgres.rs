use contextkeep_test_support::postgres::{Connection, PgMember, Slowness, USER};
use contextkeep_test_support::wait::stopwatch;
use contextkeep_test_support::{Error, PgCluster, Stop, eventually};

use crate::SOON;

fn cluster() -> PgCluster {
    let cluster = PgCluster::builder().replicas(2).start().expect("a cluster");
    cluster
        .primary()
        .sql("create table t (id int primary key)")
        .expect("a table");
    cluster
}

fn count(member: &PgMember) -> String {
    member.sql_value("select count(*) from t").expect("a count")
}

#[test]
#[ignore = "needs server binaries"]
fn a_cluster_comes_up_with_two_streaming_replicas_and_goes_away_whole() {
    let cluster = cluster();
    let root = cluster.folder().unwrap().root().to_owned();
    cluster.primary().sql("insert into t values (1), (2)").unwrap();
    cluster.wait_replayed(SOON).unwrap();
    let replicas: Vec<_> = cluster.replicas().collect();
    assert_eq!(
        replicas.iter().map(|replica| count(replica)).collect::<Vec<_>>(),
        ["2", "2"]
    );
    let refused = replicas[0].sql("insert into t values (3)").unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { code, .. } if code == "25006"),
        "{refused}"
    );
    let pids: Vec<_> = cluster
        .members()
        .iter()
        .map(|member| member.daemon().pid().unwrap())
        .collect();
    drop(cluster);
    assert!(!root.exists());
    assert!(
        pids.iter()
            .all(|pid| !contextkeep_test_support::process::is_alive(*pid))
    );
}

#[test]
#[ignore = "needs server binaries"]
fn a_frozen_replica_answers_nothing_and_catches_up_once_thawed() {
    let cluster = cluster();
    cluster.wait_replayed(SOON).unwrap();
    let replica = cluster.member("pg-replica-1").unwrap();
    let mut session = replica.connect("contextkeep").unwrap();
    replica.freeze().unwrap();
    assert!(replica.is_running());
    let short = std::time::Duration::from_millis(300);
    // The kernel still accepts for it, so the connect succeeds; the answer never comes.
    let unanswered = Connection::open(replica.addr(), USER, "contextkeep", short).unwrap_err();
    assert!(matches!(unanswered, Error::Io { .. }), "{unanswered}");
    cluster.primary().sql("insert into t values (1)").unwrap();
    replica.thaw().unwrap();
    cluster.wait_replayed(SOON).unwrap();
    assert_eq!(
        session.query("select count(*) from t").unwrap(),
        [[Some("1".to_owned())]]
    );
}

#[test]
#[ignore = "needs server binaries"]
fn a_killed_primary_keeps_what_it_acknowledged_and_its_replicas_find_it_again() {
    let cluster = PgCluster::builder().replicas(2).durable(true).start().unwrap();
    let primary = cluster.primary();
    primary
        .sql("create table t (id int primary key); insert into t values (1)")
        .unwrap();
    let mut session = primary.connect("contextkeep").unwrap();
    primary.kill().unwrap();
    assert!(session.query("select 1").is_err() && !primary.is_running());
    primary.start().unwrap();
    assert_eq!(count(primary), "1");
    primary.sql("insert into t values (2)").unwrap();
    cluster.wait_replayed(SOON).unwrap();
    assert!(cluster.replicas().all(|replica| count(replica) == "2"));
}

#[test]
#[ignore = "needs server binaries"]
fn a_disk_is_slow_for_as_long_as_it_is_told_to_be() {
    let flush = std::time::Duration::from_millis(150);
    let cluster = PgCluster::builder()
        .slowable(true)
        .setting("fsync", "on")
        .start()
        .unwrap();
    let primary = cluster.primary();
    primary.sql("create table t (id int)").unwrap();
    let slow = Slowness {
        flush,
        ..Slowness::default()
    };
    primary.slow_disk(slow).unwrap();
    let took = stopwatch();
    primary.sql("insert into t values (1)").unwrap();
    assert!(took() >= flush);
    // One that was slower than this test is allowed to be, and is not any more.
    let stuck = Slowness {
        flush: std::time::Duration::from_hours(1),
        transfer: std::time::Duration::from_hours(1),
    };
    primary.stop(Stop::Immediate).unwrap();
    primary.slow_disk(stuck).unwrap();
    primary.slow_disk(Slowness::default()).unwrap();
    primary.start().unwrap();
    primary.sql("insert into t values (2)").unwrap();
    let refused = PgCluster::builder()
        .start()
        .unwrap()
        .primary()
        .slow_disk(slow)
        .unwrap_err();
    assert!(matches!(refused, Error::State(_)), "{refused}");
}

#[test]
#[ignore = "needs server binaries"]
fn a_stopped_member_restarts_on_its_port_in_either_way() {
    let cluster = cluster();
    let replica = cluster.member("pg-replica-2").unwrap();
    for how in [Stop::Graceful, Stop::Immediate] {
        let dsn = replica.dsn();
        replica.stop(how).unwrap();
        assert!(!replica.is_running());
        replica.start().unwrap();
        assert_eq!(replica.dsn(), dsn);
    }
    assert!(replica.start().unwrap_err().to_string().contains("already runs"));
    cluster.wait_replayed(SOON).unwrap();
}

#[test]
#[ignore = "needs server binaries"]
fn writes_go_on_after_a_promotion_and_the_old_primary_comes_back_as_a_replica() {
    let cluster = cluster();
    cluster.primary().sql("insert into t values (1)").unwrap();
    cluster.wait_replayed(SOON).unwrap();
    cluster.primary().kill().unwrap();
    cluster.promote("pg-replica-1").unwrap();
    assert_eq!(cluster.primary().name(), "pg-replica-1");
    cluster.primary().sql("insert into t values (2)").unwrap();
    // The other replica follows the new primary; the dead one is skipped.
    cluster.wait_replayed(SOON).unwrap();
    assert_eq!(count(cluster.member("pg-replica-2").unwrap()), "2");

    cluster.rebuild("pg-primary").unwrap();
    cluster.primary().sql("insert into t values (3)").unwrap();
    cluster.wait_replayed(SOON).unwrap();
    assert!(cluster.replicas().count() == 2 && cluster.replicas().all(|replica| count(replica) == "3"));
    assert!(cluster.rebuild("pg-replica-1").is_err() && cluster.promote("nobody").is_err());
}

#[test]
#[ignore = "needs server binaries"]
fn a_server_that_does_not_start_shows_its_command_and_log() {
    let error = PgCluster::builder()
        .setting("max_connections", "nonsense")
        .start()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("postgres -D") && error.contains("max_connections"),
        "{error}"
    );
}

#[test]
#[ignore = "needs server binaries"]
fn handles_written_to_a_file_work_in_another_place() {
    let cluster = PgCluster::builder().replicas(1).start().unwrap();
    let text = serde_json::to_string(&cluster).unwrap();
    let attached: PgCluster = serde_json::from_str(&text).unwrap();
    attached.member("pg-replica-1").unwrap().kill().unwrap();
    eventually("the owner to see it gone", SOON, || {
        cluster
            .replicas()
            .all(|replica| !replica.is_running())
            .then_some(())
    });
    drop(attached);
    assert!(
        cluster.primary().is_running(),
        "a handle from a file must not end what it describes"
    );
}
