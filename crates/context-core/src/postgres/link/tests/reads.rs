//! Shared connections: pipelined reads.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn reads_share_a_few_connections() {
    let cluster = PgCluster::builder().start().unwrap();
    let endpoint = endpoint(cluster.primary(), &settings());
    let read = |n: usize| {
        let endpoint = endpoint.clone();
        // Spawned: the futures have to be `Send`.
        tokio::spawn(async move {
            let text = n.to_string();
            let rows = endpoint.query(&ECHO, &[&text]).await?;
            assert_eq!(rows[0].get::<_, &str>(0), text);
            let call = Call {
                statement: &ECHO,
                params: &[&text],
            };
            let (first, second) = endpoint
                .pair(
                    Call {
                        statement: &BACKEND,
                        params: &[],
                    },
                    call,
                )
                .await?;
            assert_eq!((first.len(), second[0].get::<_, &str>(0)), (1, &*text));
            Ok::<(), Fault>(())
        })
    };
    for done in futures_util::future::join_all((0..100).map(read)).await {
        done.unwrap().unwrap();
    }
    let status = endpoint.status();
    assert!((1..=2).contains(&status.shared), "{status:?}");
    assert_eq!((status.open, status.shared_in_flight), (0, 0), "{status:?}");
    assert!(!status.behind_pooler);
    assert!(seen(cluster.primary()).0 <= 3);
    endpoint.close().await;
    at_rest(cluster.primary(), 0).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_transaction_is_one_round_trip_and_all_or_nothing() {
    static PUT: Statement = Statement {
        name: "put",
        sql: "INSERT INTO t VALUES ($1) RETURNING n",
        types: &[Type::INT4],
    };
    static ALL: Statement = Statement {
        name: "all",
        sql: "SELECT n FROM t ORDER BY n",
        types: &[],
    };
    let cluster = PgCluster::builder().start().unwrap();
    cluster
        .primary()
        .sql("create table t (n int primary key)")
        .unwrap();
    let endpoint = endpoint(cluster.primary(), &settings());
    let mut session = endpoint.session().await.unwrap();
    let (one, two) = (1_i32, 2_i32);
    let put = |n| Call {
        statement: &PUT,
        params: n,
    };
    let both = [
        Call {
            statement: &PUT,
            params: &[&one],
        },
        Call {
            statement: &PUT,
            params: &[&two],
        },
    ];
    let rows = session.transact(&both).await.unwrap();
    assert_eq!((rows.len(), rows[1][0].get::<_, i32>(0)), (2, 2));

    let three = 3_i32;
    let fault = session
        .transact(&[put(&[&three]), put(&[&one])])
        .await
        .unwrap_err();
    assert_eq!(fault.sqlstate(), Some("23505"));
    assert!(fault.is_not_applied());
    // The session goes on, and nothing of the failed one is there.
    assert_eq!(session.query(&ALL, &[]).await.unwrap().len(), 2);

    // Without a transaction each is one of its own, in one round trip.
    let rows = session
        .batch(&[
            Call {
                statement: &ALL,
                params: &[],
            },
            Call {
                statement: &ONE,
                params: &[],
            },
        ])
        .await
        .unwrap();
    assert_eq!((rows[0].len(), rows[1].len()), (2, 1));

    drop(session);
    at_rest(cluster.primary(), 5).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_transaction_ends_as_it_is_told_and_rolled_back_when_dropped() {
    static PUT: Statement = Statement {
        name: "put",
        sql: "INSERT INTO t VALUES (1)",
        types: &[],
    };
    static COUNT: Statement = Statement {
        name: "count",
        sql: "SELECT count(*) FROM t",
        types: &[],
    };
    let cluster = PgCluster::builder().start().unwrap();
    cluster.primary().sql("create table t (n int)").unwrap();
    // One pooled connection: what one session leaves behind, the next one meets.
    let settings = DatabaseSettings {
        max_open_conns: 4,
        ..settings()
    };
    let endpoint = endpoint(cluster.primary(), &settings);
    for (end, rows) in [("drop", 0_i64), ("rollback", 0), ("commit", 1), ("drop", 1)] {
        let mut session = endpoint.session().await.unwrap();
        session.begin().await.unwrap();
        assert_eq!(session.execute(&PUT, &[]).await.unwrap(), 1);
        match end {
            "commit" => session.commit().await.unwrap(),
            "rollback" => session.rollback().await.unwrap(),
            _ => drop(session),
        }
        let session = endpoint.session().await.unwrap();
        let seen: i64 = session.query(&COUNT, &[]).await.unwrap()[0].get(0);
        assert_eq!(seen, rows, "after {end}");
    }
    assert_eq!(endpoint.status().closed, [0; Closed::ALL.len()]);
    assert_eq!(endpoint.status().open, 1);
}

#[derive(Debug, Default)]
struct Heard(std::sync::Mutex<Vec<(&'static str, bool)>>);

impl Watch for Heard {
    fn ran(&self, statement: &'static Statement, took: Duration, failed: bool) {
        assert!(took > Duration::ZERO);
        self.0.lock().unwrap().push((statement.name, failed));
    }
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn each_statement_is_heard_of_by_name() {
    static WRONG: Statement = Statement {
        name: "wrong",
        sql: "SELECT 1 FROM absent",
        types: &[],
    };
    let cluster = PgCluster::builder().start().unwrap();
    let heard = Arc::new(Heard::default());
    let settings = settings();
    let address = address_with(&cluster.primary().dsn(), &settings).unwrap();
    let endpoint = Endpoint::new("test", address, LinkSettings::from(&settings), heard.clone()).unwrap();
    endpoint.query(&ONE, &[]).await.unwrap();
    let fault = endpoint.query(&WRONG, &[]).await.unwrap_err();
    assert_eq!((fault.kind(), fault.is_suspect()), (Kind::NoSchema, false));
    assert!(fault.to_string().contains("contextkeep migrate"), "{fault}");
    let call = Call {
        statement: &BACKEND,
        params: &[],
    };
    endpoint.pair(call, call).await.unwrap();
    endpoint.session().await.unwrap().transact(&[call]).await.unwrap();
    let expected = [
        ("one", false),
        ("wrong", true),
        ("backend", false),
        ("backend", false),
        ("backend", false),
    ];
    assert_eq!(*heard.0.lock().unwrap(), expected);
}
