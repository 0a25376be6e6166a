//! Replicas that are behind, frozen or gone.

use tokio::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_lagging_replica_is_left_out_and_comes_back() {
    let routing = RoutingSettings {
        lag_bytes_max: bytesize::ByteSize::kib(64),
        lag_time_max: Duration::from_millis(200),
        ..routing()
    };
    let bench = Bench::start(&database(), routing).await;
    for replica in bench.cluster.replicas() {
        replica.sql("select pg_wal_replay_pause()").unwrap();
    }
    bench
        .cluster
        .primary()
        .sql("insert into t select generate_series(1, 20000)")
        .unwrap();
    bench.until_state("pg-replica-1", State::Lagging).await;
    bench.until_state("pg-replica-2", State::Lagging).await;
    let status = bench.replicas.status();
    assert!(status[1].lag_bytes.unwrap() > 64 << 10, "{status:?}");
    assert!(status[1].lag.unwrap() > Duration::from_millis(200), "{status:?}");
    let roles: Vec<_> = status
        .iter()
        .map(|member| (member.is_primary, member.in_recovery))
        .collect();
    assert_eq!(
        roles,
        [(true, Some(false)), (false, Some(true)), (false, Some(true))]
    );

    let served = bench.version(Demand::default(), 0).await.unwrap();
    assert_eq!((served.value, served.from), (20_000, ServedBy::Primary));
    // Who takes anything gets it from there, told what it is.
    let served = bench.version(asking(Consistency::Any), 0).await.unwrap();
    assert_eq!((served.value, served.from), (0, ServedBy::LaggingReplica));

    bench
        .cluster
        .member("pg-replica-2")
        .unwrap()
        .sql("select pg_wal_replay_resume()")
        .unwrap();
    bench.until_state("pg-replica-2", State::Healthy).await;
    for _ in 0..20 {
        let served = bench.version(Demand::default(), 0).await.unwrap();
        assert_eq!((served.value, &**served.by.name()), (20_000, "pg-replica-2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_frozen_replica_slows_no_read_beyond_the_limit_and_comes_back() {
    let routing = RoutingSettings {
        probe_timeout: Duration::from_millis(500),
        ..routing()
    };
    let bench = Bench::start(&database(), routing).await;
    // Enough for hedging to have learnt.
    for _ in 0..300 {
        bench.version(Demand::default(), 0).await.unwrap();
    }
    let frozen = bench.cluster.member("pg-replica-1").unwrap();
    frozen.freeze().unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..300 {
        let started = Instant::now();
        bench.version(Demand::default(), 0).await.unwrap();
        slowest = slowest.max(started.elapsed());
    }
    // One try of 500 ms and the primary; the rest is for a busy machine.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    bench.until_state("pg-replica-1", State::Down).await;
    let before = bench.replicas.tallies();
    for _ in 0..50 {
        let served = bench.version(Demand::default(), 0).await.unwrap();
        assert_eq!(&**served.by.name(), "pg-replica-2");
    }
    assert_eq!(bench.replicas.tallies().failed, before.failed);

    frozen.thaw().unwrap();
    bench.until_state("pg-replica-1", State::Healthy).await;
    bench
        .until("nothing to be under way, and no breaker to be open", |status| {
            let calm = |member: &MemberStatus| {
                member.in_flight == 0 && member.breaker == contextkeep_resilience::breaker::State::Closed
            };
            status.iter().all(calm)
        })
        .await;
    eventually_async("it to serve again", SOON, async || {
        let served = bench.version(Demand::default(), 0).await.unwrap();
        (&**served.by.name() == "pg-replica-1").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn without_replicas_the_primary_serves_up_to_its_share_and_sheds_beyond() {
    static SLOW: Statement = Statement {
        name: "slow",
        sql: "SELECT 1 FROM pg_sleep($1)",
        types: &[Type::FLOAT8],
    };
    let routing = RoutingSettings {
        primary_spill_max: 0.2,
        ..routing()
    };
    let bench = Bench::start(&database(), routing).await;
    for replica in bench.cluster.replicas() {
        replica.stop(Stop::Immediate).unwrap();
    }
    for name in ["pg-replica-1", "pg-replica-2"] {
        bench.until_state(name, State::Down).await;
    }
    let served = bench.version(Demand::default(), 0).await.unwrap();
    assert_eq!(served.from, ServedBy::Primary);

    // A fifth of ten: two at a time.
    let read = || async {
        let slow = async |endpoint: Arc<Endpoint>| {
            let nap = 1.0_f64;
            endpoint.session().await?.query(&SLOW, &[&nap]).await.map(drop)
        };
        bench.replicas.read(&Demand::default(), slow, |()| true).await
    };
    let results = futures_util::future::join_all((0..6).map(|_| read())).await;
    let (served, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), refused.len()), (2, 4));
    for refused in refused {
        let fault = refused.unwrap_err();
        assert_eq!(fault.kind(), Kind::Spill);
        let error = Error::from(fault);
        assert_eq!(error.code(), "overloaded");
        assert!(error.retry_after().is_some());
    }
    // What has to come from the primary is not spilled and not refused.
    assert!(bench.version(asking(Consistency::Strong), 0).await.is_ok());
    assert_eq!(bench.replicas.tallies().shed, 4);

    bench.cluster.member("pg-replica-2").unwrap().start().unwrap();
    bench.until_state("pg-replica-2", State::Healthy).await;
    let served = bench.version(Demand::default(), 0).await.unwrap();
    assert_eq!(served.from, ServedBy::Replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_late_read_is_sent_to_a_second_replica() {
    let bench = Bench::start(&database(), routing()).await;
    // Enough for hedging to have learnt.
    for _ in 0..200 {
        bench.version(Demand::default(), 0).await.unwrap();
    }
    let before = bench.replicas.tallies();
    let asked = Mutex::new(Vec::new());
    let read = |endpoint: Arc<Endpoint>| {
        let first = {
            let mut asked = asked.lock().unwrap();
            asked.push(endpoint.name().clone());
            asked.len() == 1
        };
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            read_version(endpoint).await
        }
    };
    let served = bench
        .replicas
        .read(&Demand::default(), read, |_| true)
        .await
        .unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!((asked.len(), &asked[1]), (2, served.by.name()));
    assert_ne!(asked[0], asked[1]);
    let tallies = bench.replicas.tallies();
    assert_eq!(tallies.hedged - before.hedged, 1);
    assert_eq!(tallies.hedge_won - before.hedge_won, 1);
}
