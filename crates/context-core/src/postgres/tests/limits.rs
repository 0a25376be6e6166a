//! Bad days on which the server answers, and says that something is used up or taken.

use contextkeep_test_support::{PgCluster, eventually_async};
use tokio_postgres::{Client, NoTls};

use super::history::{Dice, History, Naming, append_of, create, key};
use super::*;
use crate::store::ContextStore;

const SOON: Duration = Duration::from_secs(30);

/// A connection of somebody else's, for as long as the value is kept.
async fn taken(dsn: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A disk that is full for data is what Postgres says it is: an error of the statement. (Full for its log, Postgres
/// stops, which is the immediate stop that the faults have.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_full_disk_refuses_writes_and_reads_go_on() {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(Arc::new(crate::SystemClock)).await;
    create(store.as_ref(), 1).await;
    let named = append_of("named", Naming::Key, 2);
    store.append(&key(0), named.clone()).await.unwrap();
    let before = store.head(&key(0)).await.unwrap();

    let client = taken(&with_database(&scratch.server, &scratch.name))
        .await
        .unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'could not extend file \"base/1/2\": No space left on device' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT ON contextkeep.items FOR EACH ROW EXECUTE FUNCTION full_disk()",
        )
        .await
        .unwrap();
    for naming in [Naming::None, Naming::Key, Naming::ClientId] {
        let refused = store.append(&key(0), append_of("refused", naming, 1)).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::StorageFull { .. }), "{error:?}");
        let words = error.to_string();
        assert!(words.contains("the disk of Postgres is full"), "{words}");
    }
    assert_eq!(store.head(&key(0)).await.unwrap(), before);
    // What was stored before is still known by its key, and needs no room.
    let again = store.append(&key(0), named).await.unwrap();
    assert!(again.replayed && again.version == before.version, "{again:?}");

    client
        .batch_execute("DROP TRIGGER full_disk ON contextkeep.items")
        .await
        .unwrap();
    let appended = store
        .append(&key(0), append_of("refused", Naming::Key, 1))
        .await
        .unwrap();
    assert_eq!((appended.replayed, appended.first_seq), (false, before.next_seq));
}

/// Under an isolation that refuses to go on from what another transaction has changed, every meeting of two servers is a
/// serialization failure. Nobody would set that for us, but a database may have it as its default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn serialization_failures_are_done_again() {
    let scratch = Scratch::create(&shared()).await;
    let alter = format!(
        "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'",
        scratch.name
    );
    run(&scratch.server, &alter).await;
    let clock = Arc::new(crate::SystemClock);
    let stores = [scratch.open(clock.clone()).await, scratch.open(clock).await];
    create(stores[0].as_ref(), 2).await;
    let history = Arc::new(History::default());
    let appenders: Vec<_> = (0..16u64)
        .map(|appender| {
            let (store, history) = (stores[usize::from(appender % 2 == 0)].clone(), history.clone());
            tokio::spawn(async move {
                let mut dice = Dice::new(appender + 1);
                for n in 0..25 {
                    let name = format!("{appender}.{n}");
                    history
                        .append(store.as_ref(), dice.roll(2), &name, &mut dice)
                        .await;
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    for context in 0..2 {
        history.check(stores[0].as_ref(), context).await;
    }
    // Those with names were repeated until they were answered.
    assert!(history.acknowledged() > 16 * 25 / 2);
    // And there were such failures.
    let client = taken(&with_database(&scratch.server, &scratch.name))
        .await
        .unwrap();
    eventually_async("the server to have counted rollbacks", SOON, async || {
        let sql = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
        let rows = client.query(sql, &[]).await.unwrap();
        (rows[0].get::<_, i64>(0) > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_server_without_a_free_connection_is_named_and_used_again() {
    let cluster = PgCluster::builder()
        .setting("max_connections", "12")
        .setting("superuser_reserved_connections", "0")
        .start()
        .unwrap();
    let dsn = cluster.primary().dsn();
    let settings = DatabaseSettings {
        dsn: Some(SecretString::from(dsn.clone())),
        max_open_conns: 4,
        pool_timeout: Duration::from_secs(2),
        ..DatabaseSettings::default()
    };
    let store = PgContextStore::new(&settings.into(), Arc::new(crate::SystemClock)).unwrap();
    prepared(&store).await;
    create(&store, 1).await;
    let mut stored = 0;

    // Others take every connection, and then those of the store as well.
    let mut others = Vec::new();
    let refused = eventually_async("a refusal that names the reason", SOON, async || {
        while let Ok(client) = taken(&dsn).await {
            others.push(client);
        }
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE backend_type = 'client backend' AND application_name = 'contextkeep'";
        others.first()?.batch_execute(sql).await.unwrap();
        while let Ok(client) = taken(&dsn).await {
            others.push(client);
        }
        match store.append(&key(0), append_of("name", Naming::Key, 1)).await {
            Ok(appended) => {
                stored += u64::from(!appended.replayed);
                None
            }
            Err(error) => Some(error.to_string()).filter(|words| words.contains("max_connections")),
        }
    })
    .await;
    assert!(refused.contains("has no connection left"), "{refused}");

    drop(others);
    let appended = eventually_async("an append when there is room again", SOON, async || {
        store
            .append(&key(0), append_of("name", Naming::Key, 1))
            .await
            .ok()
    })
    .await;
    stored += u64::from(!appended.replayed);
    assert_eq!((stored, store.head(&key(0)).await.unwrap().item_count), (1, 1));
    store.close().await;
}
