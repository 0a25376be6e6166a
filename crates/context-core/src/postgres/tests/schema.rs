//! The schema: made by many at once, refused when it is newer.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn ten_servers_that_start_together_migrate_once() {
    let scratch = Scratch::create(&shared()).await;
    let settings = DatabaseSettings {
        max_open_conns: 7,
        ..scratch.settings()
    };
    let starts: Vec<_> = (0..10)
        .map(|_| {
            let store = PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap();
            tokio::spawn(async move {
                prepared(&store).await;
                store
            })
        })
        .collect();
    for start in starts {
        start.await.unwrap().check().await.unwrap();
    }
    let dsn = with_database(&scratch.server, &scratch.name);
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let rows = client
        .query(
            "SELECT count(*), max(version)::bigint FROM contextkeep.schema_history",
            &[],
        )
        .await
        .unwrap();
    let applied: (i64, i64) = (rows[0].get(0), rows[0].get(1));
    assert_eq!(applied, (migrate::version(), migrate::version()));
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_newer_schema_is_refused() {
    let scratch = Scratch::create(&shared()).await;
    scratch.open(Arc::new(crate::SystemClock)).await.close().await;
    let dsn = with_database(&scratch.server, &scratch.name);
    run(
        &dsn,
        "INSERT INTO contextkeep.schema_history SELECT 1000, 'from the future', applied_on, '0'
         FROM contextkeep.schema_history LIMIT 1",
    )
    .await;
    for migrate in [true, false] {
        let settings = DatabaseSettings {
            migrate,
            ..scratch.settings()
        };
        let store = PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap();
        let error = store.prepare().await.unwrap_err();
        assert!(error.to_string().contains("version 1000"), "{error}");
        let error = store.check().await.unwrap_err();
        assert!(error.to_string().contains("newer program"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_database_without_our_schema_says_what_to_do() {
    let scratch = Scratch::create(&shared()).await;
    let settings = DatabaseSettings {
        migrate: false,
        ..scratch.settings()
    };
    let store = PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap();
    let error = store.prepare().await.unwrap_err();
    assert!(error.to_string().contains("contextkeep migrate"), "{error}");
    store.migrate().await.unwrap();
    prepared(&store).await;
}
