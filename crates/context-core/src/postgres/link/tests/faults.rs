//! Bad days: a clear error within a bound, then recovery, and nothing leaked.

use contextkeep_resilience::{Deadline, TokioClock, deadline};
use contextkeep_test_support::Stop;

use super::*;

/// Reads and opens a session until both work again.
async fn recovers(endpoint: &Arc<Endpoint>) {
    eventually_async("reads to work again", SOON, async || {
        endpoint.query(&ONE, &[]).await.ok()
    })
    .await;
    eventually_async("sessions to work again", SOON, async || {
        endpoint.session().await.ok()?.query(&ONE, &[]).await.ok()
    })
    .await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn connections_killed_by_the_server_are_replaced() {
    let cluster = PgCluster::builder().start().unwrap();
    let endpoint = endpoint(cluster.primary(), &settings());
    recovers(&endpoint).await;
    let kill =
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'contextkeep'";
    assert!(cluster.primary().sql(kill).unwrap().len() >= 2);
    recovers(&endpoint).await;
    assert!(
        endpoint.status().closed_for(Closed::Lost) >= 1,
        "{:?}",
        endpoint.status()
    );
    at_rest(cluster.primary(), 4).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_that_is_down_is_an_error_at_once_and_comes_back() {
    let cluster = PgCluster::builder().start().unwrap();
    let endpoint = endpoint(cluster.primary(), &settings());
    recovers(&endpoint).await;
    cluster.primary().stop(Stop::Immediate).unwrap();
    eventually_async("errors", SOON, async || endpoint.query(&ONE, &[]).await.err()).await;
    let fault = eventually_async("no connection", SOON, async || {
        let fault = endpoint.session().await.err()?;
        (fault.kind() == Kind::Unreachable).then_some(fault)
    })
    .await;
    let text = fault.to_string();
    assert!(text.contains(&cluster.primary().addr().to_string()), "{text}");
    assert_eq!(crate::Error::from(fault).code(), "unavailable");
    // Many callers are no storm: most get the last attempt's error.
    let before = endpoint.status().connect_failures;
    for _ in 0..500 {
        endpoint.query(&ONE, &[]).await.unwrap_err();
    }
    let attempts = endpoint.status().connect_failures - before;
    assert!(attempts < 100, "{attempts} attempts for 500 calls");
    cluster.primary().start().unwrap();
    recovers(&endpoint).await;
    at_rest(cluster.primary(), 4).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_frozen_server_hangs_nobody() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        statement_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(300),
        pool_timeout: Duration::from_millis(300),
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    recovers(&endpoint).await;
    let mut session = endpoint.session().await.unwrap();
    cluster.primary().freeze().unwrap();
    let calls = async {
        let read = endpoint.query(&ONE, &[]).await.map(drop);
        let begun = session.begin().await;
        let again = endpoint.query(&ONE, &[]).await.map(drop);
        let another = endpoint.session().await;
        let another = match another {
            Ok(session) => session.query(&ONE, &[]).await.map(drop),
            Err(fault) => Err(fault),
        };
        let checked = endpoint.check(Duration::from_millis(300)).await.map(drop);
        [read, begun, again, another, checked]
    };
    let results = tokio::time::timeout(SOON, calls).await.expect("nobody hangs");
    for result in results {
        let kind = result.expect_err("a frozen server answers nothing").kind();
        assert!(matches!(kind, Kind::TimedOut | Kind::Unreachable), "{kind:?}");
    }
    cluster.primary().thaw().unwrap();
    drop(session);
    recovers(&endpoint).await;
    at_rest(cluster.primary(), 6).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_short_deadline_cuts_off_nobody_else() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        shared_conns: 1,
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    endpoint.query(&ONE, &[]).await.unwrap();
    let before: i32 = endpoint.query(&BACKEND, &[]).await.unwrap()[0].get(0);
    let nap = 0.3_f64;
    let hurried = Deadline::within(Duration::from_millis(50), &TokioClock);
    let params: Params<'_> = &[&nap];
    let fault = deadline::scope(hurried, endpoint.query(&SLEEP, params))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), Kind::Deadline);
    let after: i32 = endpoint.query(&BACKEND, &[]).await.unwrap()[0].get(0);
    assert_eq!(before, after, "the connection goes on");
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn the_deadline_is_the_server_s_statement_timeout() {
    static TIMEOUT: Statement = Statement {
        name: "timeout",
        sql: "SELECT current_setting('statement_timeout'), current_setting('synchronous_commit')",
        types: &[],
    };
    let cluster = PgCluster::builder().start().unwrap();
    let endpoint = endpoint(cluster.primary(), &settings());
    let mut session = endpoint.session().await.unwrap();
    session.begin().await.unwrap();
    let row = &session.query(&TIMEOUT, &[]).await.unwrap()[0];
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("30s", "local"));
    session.rollback().await.unwrap();

    let deadline = Deadline::within(Duration::from_secs(5), &TokioClock);
    let told = deadline::scope(
        deadline,
        Box::pin(async {
            let mut session = endpoint.session().await.unwrap();
            session.begin().await.unwrap();
            session.query(&TIMEOUT, &[]).await.unwrap()[0].get::<_, String>(0)
        }),
    )
    .await;
    let ms: u64 = told.trim_end_matches("ms").trim_end_matches('s').parse().unwrap();
    assert!(ms <= 5000, "{told}");

    // The server ends it: a code of its own, and the session goes on.
    let short = DatabaseSettings {
        statement_timeout: Duration::from_millis(100),
        ..settings()
    };
    let endpoint = endpoint_at(&cluster.primary().dsn(), &short);
    let mut session = endpoint.session().await.unwrap();
    session.begin().await.unwrap();
    let long = 30.0_f64;
    let fault = session.query(&SLEEP, &[&long]).await.unwrap_err();
    assert_eq!((fault.kind(), fault.sqlstate()), (Kind::Cancelled, Some("57014")));
    assert!(fault.to_string().contains("statement_timeout"), "{fault}");
    session.rollback().await.unwrap();
    assert_eq!(endpoint.status().closed_for(Closed::Abandoned), 0);
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_dropped_call_stops_the_server_s_work() {
    let cluster = PgCluster::builder().start().unwrap();
    let endpoint = endpoint(cluster.primary(), &settings());
    let session = endpoint.session().await.unwrap();
    let long = 60.0_f64;
    let working = "select count(*) from pg_stat_activity where application_name = 'contextkeep' \
                   and state = 'active' and query like '%pg_sleep%'";
    {
        let params: Params<'_> = &[&long];
        let mut call = std::pin::pin!(session.query(&SLEEP, params));
        let started = async {
            eventually_async("the server to work", SOON, async || {
                (cluster.primary().sql_value(working).unwrap() == "1").then_some(())
            })
            .await;
        };
        tokio::select! {
            result = &mut call => panic!("ended: {result:?}"),
            () = started => {}
        }
    }
    eventually_async("the server to stop", SOON, async || {
        (cluster.primary().sql_value(working).unwrap() == "0").then_some(())
    })
    .await;
    // The session is of no use any more, and nobody gets its connection.
    assert_eq!(session.query(&ONE, &[]).await.unwrap_err().kind(), Kind::Lost);
    drop(session);
    assert_eq!(endpoint.status().closed_for(Closed::Abandoned), 1);
    assert_eq!(endpoint.status().open, 0);
    recovers(&endpoint).await;
    at_rest(cluster.primary(), 4).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_without_room_says_so_and_recovers() {
    let cluster = PgCluster::builder()
        .setting("max_connections", "8")
        .setting("max_wal_senders", "0")
        .setting("superuser_reserved_connections", "1")
        .start()
        .unwrap();
    let endpoint = endpoint(cluster.primary(), &settings());
    // Superusers of the harness take all there is.
    let mut others = Vec::new();
    while let Ok(connection) = cluster.primary().connect("postgres") {
        others.push(connection);
    }
    let fault = endpoint.session().await.unwrap_err();
    assert_eq!(fault.kind(), Kind::TooManyConnections, "{fault}");
    assert!(fault.to_string().contains("max_open_conns"), "{fault}");
    assert!(endpoint.query(&ONE, &[]).await.is_err());
    drop(others);
    recovers(&endpoint).await;
    at_rest(cluster.primary(), 4).await;
}
