//! No answer below a floor: the protocol, and the two shortcuts that look right and are not.

use super::*;

/// The newest version, the check inside the reading statement: wrong. The pause stands for the time that any
/// statement takes between its snapshot and the check.
static CHECK_INSIDE: Statement = Statement {
    name: "check_inside",
    sql: "SELECT (SELECT COALESCE(max(v), 0) FROM t), \
          (SELECT pg_last_wal_replay_lsn() >= $1 FROM pg_sleep(1.5))",
    types: &[Type::PG_LSN],
};
/// The newest version, read as slowly.
static VERSION_SLOWLY: Statement = Statement {
    name: "version_slowly",
    sql: "SELECT (SELECT COALESCE(max(v), 0) FROM t) FROM pg_sleep(1.5)",
    types: &[],
};
/// The position taken inside the writing statement: wrong.
static PUT_AND_TELL: Statement = Statement {
    name: "put_and_tell",
    sql: "INSERT INTO t VALUES ($1) RETURNING pg_current_wal_insert_lsn()",
    types: &[Type::INT8],
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_replica_that_stands_still_never_answers_below_a_floor() {
    let bench = Bench::start(&database(), routing()).await;
    let standing: Vec<_> = bench.cluster.replicas().collect();
    for replica in &standing {
        replica.sql("select pg_wal_replay_pause()").unwrap();
    }
    eventually_async("replay to stand still", SOON, async || {
        let paused = |replica: &&&_| {
            let member: &contextkeep_test_support::postgres::PgMember = replica;
            member
                .sql_value("select pg_get_wal_replay_pause_state()")
                .unwrap()
                == "paused"
        };
        standing.iter().all(|replica| paused(&replica)).then_some(())
    })
    .await;
    for version in 1..=20 {
        let floor = bench.put(version).await;
        // By the row's version, as for one context.
        let served = bench.version(Demand::default(), version).await.unwrap();
        assert_eq!((served.value, served.from), (version, ServedBy::Primary));
        // By position, as for a list.
        let demand = Demand {
            floor: Some(floor),
            ..Demand::default()
        };
        let served = bench.version_at(demand).await.unwrap();
        assert_eq!((served.value, served.from), (Some(version), ServedBy::Primary));
        // Who has no floor may get the old one.
        let served = bench.version(Demand::default(), 0).await.unwrap();
        assert_eq!((served.value, served.from), (0, ServedBy::Replica));
    }
    assert_eq!(bench.replicas.tallies().unmet, 40);

    for replica in &standing {
        replica.sql("select pg_wal_replay_resume()").unwrap();
    }
    let floor = bench.put(21).await;
    let demand = Demand {
        floor: Some(floor),
        ..Demand::default()
    };
    eventually_async("replicas to reach the floor", SOON, async || {
        let served = bench.version_at(demand).await.unwrap();
        assert_eq!(served.value, Some(21));
        (served.from == ServedBy::Replica).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_position_from_inside_the_writing_statement_lets_old_reads_through() {
    // Commits are applied late, everything before them at once.
    let builder = PgCluster::builder()
        .replicas(1)
        .setting("recovery_min_apply_delay", "2s");
    let bench = Bench::start_with(builder, &database(), routing()).await;
    let primary = bench.replicas.primary();
    let mut session = primary.session().await.unwrap();
    let one = 1_i64;
    let rows = session
        .transact(&[Call {
            statement: &PUT_AND_TELL,
            params: &[&one],
        }])
        .await
        .unwrap();
    drop(session);
    let inside = written(&rows[0]).unwrap();
    let after = written(&primary.query(&WRITTEN, &[]).await.unwrap()).unwrap();
    assert!(inside < after);

    let replica = bench.replicas.member(1).endpoint.clone();
    let visible_at = async |floor| {
        let read = Call {
            statement: &VERSION,
            params: &[],
        };
        eventually_async("the replica to reach a position", SOON, async || {
            Some(guarded(&replica, floor, read).await.unwrap()?[0].get::<_, i64>(0))
        })
        .await
    };
    // The planted fault: this floor is reached, and what it stands for is not there.
    assert_eq!(
        visible_at(inside).await,
        0,
        "the trap is gone: this test shows nothing any more"
    );
    assert_eq!(visible_at(after).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_check_inside_the_reading_statement_lets_old_reads_through() {
    let bench = Bench::start_with(PgCluster::builder().replicas(1), &database(), routing()).await;
    let member = bench.cluster.member("pg-replica-1").unwrap();
    member.sql("select pg_wal_replay_pause()").unwrap();
    eventually_async("replay to stand still", SOON, async || {
        (member
            .sql_value("select pg_get_wal_replay_pause_state()")
            .unwrap()
            == "paused")
            .then_some(())
    })
    .await;
    let floor = bench.put(1).await;
    let replica = bench.replicas.member(1).endpoint.clone();

    let session = replica.session().await.unwrap();
    let lsn = floor.lsn.to_sql();
    let params: super::super::super::link::Params<'_> = &[&lsn];
    // Replay goes on while both reads have their snapshots and sleep.
    let resume = async {
        eventually_async("the reads to have their snapshots", SOON, async || {
            let sql = "select count(*) from pg_stat_activity where application_name = 'contextkeep' \
                       and wait_event = 'PgSleep'";
            (member.sql_value(sql).unwrap() == "2").then_some(())
        })
        .await;
        member.sql("select pg_wal_replay_resume()").unwrap();
    };
    let slowly = Call {
        statement: &VERSION_SLOWLY,
        params: &[],
    };
    let guarded_read = guarded(&replica, floor.lsn, slowly);
    let (rows, right, ()) = tokio::join!(session.query(&CHECK_INSIDE, params), guarded_read, resume);
    // As it is done: the check was over before the read began.
    assert!(right.unwrap().is_none());
    // The planted fault.
    let rows = rows.unwrap();
    let (version, reached): (i64, bool) = (rows[0].get(0), rows[0].get(1));
    assert_eq!(
        (version, reached),
        (0, true),
        "the trap is gone: this test shows nothing any more"
    );
    let read = Call {
        statement: &VERSION,
        params: &[],
    };
    eventually_async("the guarded read", SOON, async || {
        let rows = guarded(&replica, floor.lsn, read).await.unwrap()?;
        assert_eq!(rows[0].get::<_, i64>(0), 1);
        Some(())
    })
    .await;
}
