//! A new primary, and what becomes of the old one.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_promotion_is_noticed_and_the_old_primary_is_fenced_until_it_follows() {
    let bench = Bench::start(&database(), routing()).await;
    let old_floor = bench.put(1).await;
    bench.cluster.wait_replayed(SOON).unwrap();
    let old = bench.replicas.primary();

    bench.cluster.primary().kill().unwrap();
    bench.until_state("pg-primary", State::Down).await;
    // Reads go on meanwhile, writes fail at once.
    let served = bench.version(Demand::default(), 1).await.unwrap();
    assert_eq!((served.value, served.from), (1, ServedBy::Replica));
    assert!(bench.version(asking(Consistency::Strong), 0).await.is_err());

    bench.cluster.promote("pg-replica-1").unwrap();
    eventually_async("the new primary to be known", SOON, async || {
        (&**bench.replicas.primary().name() == "pg-replica-1").then_some(())
    })
    .await;
    let epoch = bench.replicas.epoch().unwrap();
    assert_eq!(
        (epoch.system_identifier, epoch.timeline),
        (old_floor.epoch.system_identifier, 2)
    );
    assert_eq!(bench.replicas.tallies().promotions, 1);

    // A floor of the old log says nothing about the new one: the primary answers.
    let demand = Demand {
        floor: Some(old_floor),
        ..Demand::default()
    };
    eventually_async("the other replica to follow", SOON, async || {
        let served = bench.version_at(demand).await.unwrap();
        assert_eq!(served.value, Some(1));
        (served.from == ServedBy::Primary).then_some(())
    })
    .await;
    // One of the new log is served by the other replica as soon as that has it.
    let floor = bench.put(2).await;
    let demand = Demand {
        floor: Some(floor),
        ..Demand::default()
    };
    eventually_async("the other replica to have it", SOON, async || {
        let served = bench.version_at(demand).await.unwrap();
        assert_eq!(served.value, Some(2));
        (&**served.by.name() == "pg-replica-2").then_some(())
    })
    .await;

    // The old one comes back and believes itself to be the primary.
    bench.cluster.member("pg-primary").unwrap().start().unwrap();
    eventually_async("the old primary to be fenced", SOON, async || {
        bench.replicas.member(0).seen().fenced.then_some(())
    })
    .await;
    assert_eq!(&**bench.replicas.primary().name(), "pg-replica-1");
    for _ in 0..50 {
        let served = bench.version(asking(Consistency::Any), 0).await.unwrap();
        assert_ne!(served.by.name(), old.name());
    }
    // Made a replica, it serves again.
    bench.cluster.rebuild("pg-primary").unwrap();
    bench.until_state("pg-primary", State::Healthy).await;
    eventually_async("it to serve as a replica", SOON, async || {
        let served = bench.version(Demand::default(), 2).await.unwrap();
        (served.by.name() == old.name() && served.from == ServedBy::Replica).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_write_that_meets_a_standby_has_the_primary_found() {
    let cluster = PgCluster::builder().replicas(1).start().unwrap();
    cluster
        .primary()
        .sql("create table t (v bigint primary key)")
        .unwrap();
    cluster.wait_replayed(SOON).unwrap();
    // Configured the wrong way round.
    let mut endpoints = cluster.members().iter().rev().map(|member| {
        let address = Address::parse("dsn", &member.dsn().into(), None, SOON).unwrap();
        Endpoint::new(
            member.name(),
            address,
            LinkSettings::from(&database()),
            Arc::new(NoWatch),
        )
        .unwrap()
    });
    let first = endpoints.next().unwrap();
    let breaker = BreakerSettings::default();
    let replicas = Replicas::new(first, endpoints, &database(), routing(), &breaker).unwrap();
    let standby = replicas.primary();
    let mut session = standby.session().await.unwrap();
    let one = 1_i64;
    let calls = [Call {
        statement: &PUT,
        params: &[&one],
    }];
    let fault = session.transact(&calls).await.unwrap_err();
    drop(session);
    assert_eq!((fault.kind(), fault.is_not_applied()), (Kind::ReadOnly, true));
    replicas.notice(&standby, &fault);
    eventually_async("the primary to be found", SOON, async || {
        (&**replicas.primary().name() == "pg-primary").then_some(())
    })
    .await;
    replicas
        .primary()
        .session()
        .await
        .unwrap()
        .transact(&calls)
        .await
        .unwrap();
}
