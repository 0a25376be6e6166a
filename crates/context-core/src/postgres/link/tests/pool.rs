//! Each key of the pool does what it says.

use super::*;

async fn backend(session: &Session) -> i32 {
    session.query(&BACKEND, &[]).await.unwrap()[0].get(0)
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn max_open_conns_is_the_most_and_pool_timeout_the_longest_wait() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        pool_timeout: Duration::from_millis(200),
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(endpoint.session().await.unwrap());
    }
    // Both shared ones: the second is opened while the first is busy.
    endpoint.query(&ONE, &[]).await.unwrap();
    let half = 0.5_f64;
    let params: Params<'_> = &[&half];
    let (one, two) = tokio::join!(endpoint.query(&SLEEP, params), endpoint.query(&SLEEP, params));
    assert_eq!((one.unwrap().len(), two.unwrap().len()), (1, 1));
    assert_eq!(seen(cluster.primary()).0, 6);

    let fault = endpoint.session().await.unwrap_err();
    assert_eq!(fault.kind(), Kind::PoolTimeout);
    assert!(fault.to_string().contains("pool_timeout"), "{fault}");
    assert_eq!((endpoint.status().shed, endpoint.status().open), (1, 3));

    // One that waits gets the one that comes free.
    let freed = backend(&sessions[0]).await;
    let waiting = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.session().await }
    });
    eventually_async("the wait to show", SOON, async || {
        (endpoint.status().waiting == 1).then_some(())
    })
    .await;
    drop(sessions.remove(0));
    let session = waiting.await.unwrap().unwrap();
    assert_eq!(backend(&session).await, freed);
    assert_eq!(seen(cluster.primary()).0, 6);
    drop((session, sessions));
    endpoint.close().await;
    at_rest(cluster.primary(), 0).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn beyond_max_idle_conns_those_unused_longest_are_closed() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        max_idle_conns: 1,
        health_check_interval: Duration::from_millis(200),
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(endpoint.session().await.unwrap());
    }
    let last = backend(&sessions[2]).await;
    sessions.into_iter().for_each(drop);
    eventually_async("the surplus to be closed", SOON, async || {
        (endpoint.status().idle == 1).then_some(())
    })
    .await;
    assert_eq!(endpoint.status().closed_for(Closed::Surplus), 2);
    assert_eq!(backend(&endpoint.session().await.unwrap()).await, last);
    // The health check's is the other one.
    at_rest(cluster.primary(), 2).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn conn_max_lifetime_replaces_connections() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        conn_max_lifetime: Duration::from_millis(300),
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    let first = backend(&endpoint.session().await.unwrap()).await;
    let shared: i32 = endpoint.query(&BACKEND, &[]).await.unwrap()[0].get(0);
    eventually_async("another backend", SOON, async || {
        (backend(&endpoint.session().await.unwrap()).await != first).then_some(())
    })
    .await;
    eventually_async("another shared backend", SOON, async || {
        let now: i32 = endpoint.query(&BACKEND, &[]).await.unwrap()[0].get(0);
        (now != shared).then_some(())
    })
    .await;
    assert!(endpoint.status().closed_for(Closed::Lifetime) >= 2);
    assert_eq!(endpoint.status().closed_for(Closed::Lost), 0);
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn conn_max_idle_time_closes_what_nobody_uses() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        conn_max_idle_time: Duration::from_millis(200),
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    let session = endpoint.session().await.unwrap();
    drop(endpoint.session().await.unwrap());
    endpoint.query(&ONE, &[]).await.unwrap();
    eventually_async("idle connections to be closed", SOON, async || {
        let status: PoolStatus = endpoint.status();
        (status.open == 1 && status.idle == 0 && status.shared == 0).then_some(())
    })
    .await;
    assert_eq!(endpoint.status().closed_for(Closed::IdleTime), 2);
    // One that was in use all the while is not idle: it counts from when it is given back.
    let first = backend(&session).await;
    drop(session);
    assert_eq!(backend(&endpoint.session().await.unwrap()).await, first);
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn health_checks_wait_behind_no_traffic() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        health_check_interval: Duration::from_millis(100),
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(endpoint.session().await.unwrap());
    }
    let probe = endpoint.check(SOON).await.unwrap();
    assert!(!probe.in_recovery && probe.lsn.is_some() && !probe.has_synchronous_standbys);
    assert_eq!(probe.epoch.timeline, 1);
    // Maintenance checks by itself, on one connection.
    let sql = "select extract(epoch from max(query_start)) from pg_stat_activity \
               where application_name = 'contextkeep' and query like '%pg_control_system%'";
    let first = cluster.primary().sql_value(sql).unwrap();
    eventually_async("another health check", SOON, async || {
        (cluster.primary().sql_value(sql).unwrap() != first).then_some(())
    })
    .await;
    assert_eq!(seen(cluster.primary()).0, 4);
    drop(sessions);
    drop(endpoint);
    at_rest(cluster.primary(), 0).await;
}
