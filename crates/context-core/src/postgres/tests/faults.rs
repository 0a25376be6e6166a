//! Bad days: servers that stop, freeze, and stand in the way.

use contextkeep_test_support::{PgCluster, Proxy, Stop, eventually_async};

use super::super::replicas::State;
use super::history::{Dice, History, Naming, append_of, create, key};
use super::insight::searching;
use super::*;
use crate::settings::RoutingSettings;
use crate::store::ContextStore;

const SOON: Duration = Duration::from_secs(30);

fn settings(dsn: String) -> DatabaseSettings {
    DatabaseSettings {
        dsn: Some(SecretString::from(dsn)),
        max_open_conns: 12,
        pool_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_secs(5),
        ..DatabaseSettings::default()
    }
}

async fn open(settings: &DatabaseSettings) -> Arc<PgContextStore> {
    let store = PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap();
    prepared(&store).await;
    Arc::new(store)
}

/// Appends from several tasks while `trouble` goes on, then checks that nothing was lost or doubled.
pub(super) async fn under_load(store: &Arc<PgContextStore>, trouble: impl Future<Output = ()>) -> usize {
    const CONTEXTS: u64 = 5;
    create(store.as_ref(), CONTEXTS).await;
    let history = Arc::new(History::default());
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let appenders: Vec<_> = (0..16u64)
        .map(|appender| {
            let (store, history, over) = (store.clone(), history.clone(), over.clone());
            tokio::spawn(async move {
                let mut dice = Dice::new(appender + 1);
                let mut n = 0;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    n += 1;
                    let name = format!("{appender}.{n}");
                    history
                        .append(store.as_ref(), dice.roll(CONTEXTS), &name, &mut dice)
                        .await;
                }
            })
        })
        .collect();
    trouble.await;
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    for appender in appenders {
        appender.await.unwrap();
    }
    for context in 0..CONTEXTS {
        history.check(store.as_ref(), context).await;
    }
    history.acknowledged()
}

/// Waits until so many more appends were acknowledged, as the store itself counts them.
pub(super) async fn progress(store: &PgContextStore) {
    let count = async || {
        let mut items = 0;
        for context in 0..5 {
            items += store.head(&key(context)).await.map_or(0, |head| head.item_count);
        }
        items
    };
    let before = count().await;
    eventually_async("appends go on", SOON, async || {
        (count().await > before + 20).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_primary_that_restarts_under_load_loses_nothing() {
    let cluster = PgCluster::builder().start().unwrap();
    let store = open(&settings(cluster.primary().dsn())).await;
    let acknowledged = under_load(&store, async {
        for how in [Stop::Graceful, Stop::Immediate] {
            progress(&store).await;
            cluster.primary().restart(how).unwrap();
            progress(&store).await;
        }
    })
    .await;
    assert!(acknowledged > 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn connections_that_are_killed_and_cut_under_load_lose_nothing() {
    let cluster = PgCluster::builder().start().unwrap();
    let proxy = Proxy::start(cluster.primary().addr()).unwrap();
    let dsn = cluster.primary().dsn_at(proxy.addr(), "postgres");
    let store = open(&settings(dsn)).await;
    under_load(&store, async {
        for round in 0..4 {
            progress(&store).await;
            if round % 2 == 0 {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
                cluster.primary().sql(sql).unwrap();
            } else {
                proxy.cut();
                proxy.heal();
            }
        }
        progress(&store).await;
    })
    .await;
    let open: i64 = cluster
        .primary()
        .sql_value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'contextkeep'")
        .unwrap()
        .parse()
        .unwrap();
    assert!(open <= 12, "{open} connections are open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn what_is_under_way_when_the_primary_falls_silent_does_not_wait_for_its_time_limit() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        statement_timeout: Duration::from_mins(10),
        ..settings(cluster.primary().dsn())
    };
    let store = open(&settings).await;
    create(store.as_ref(), 1).await;
    cluster.primary().freeze().unwrap();
    let append = append_of("frozen", Naming::Key, 1);
    let (key, patch) = (key(0), ContextPatch::default());
    let all = futures_util::future::join3(
        store.append(&key, append.clone()),
        store.update(&key, patch, None),
        store.head(&key),
    );
    // The limit of the statements is ten minutes.
    let (appended, updated, read) = tokio::time::timeout(SOON, all).await.unwrap();
    for error in [appended.unwrap_err(), updated.unwrap_err(), read.unwrap_err()] {
        assert_eq!(error.code(), "unavailable", "{error}");
    }
    cluster.primary().thaw().unwrap();
    let appended = eventually_async("the store recovers", SOON, async || {
        store.append(&key, append.clone()).await.ok()
    })
    .await;
    assert_eq!(
        (appended.first_seq, appended.last_seq),
        (1, 1),
        "once, whatever became of the first try"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_frozen_primary_fails_fast_and_is_used_again() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = DatabaseSettings {
        statement_timeout: Duration::from_secs(1),
        ..settings(cluster.primary().dsn())
    };
    let store = open(&settings).await;
    create(store.as_ref(), 1).await;
    cluster.primary().freeze().unwrap();
    let begun = tokio::time::Instant::now();
    let append = append_of("frozen", Naming::Key, 1);
    let error = store.append(&key(0), append.clone()).await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
    assert!(error.retry_after().is_some());
    let error = store.head(&key(0)).await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
    // Its looks fail as well by now, so that nobody has to find out for himself.
    eventually_async("its gate refuses", SOON, async || {
        drop(store.head(&key(0)).await);
        let gate = store.insight().servers.remove(0).member.gate;
        (gate.refused > 0).then_some(())
    })
    .await;
    // Far from what a hang would be, and not a measurement.
    assert!(begun.elapsed() < SOON);
    cluster.primary().thaw().unwrap();
    let appended = eventually_async("the store recovers", SOON, async || {
        store.append(&key(0), append.clone()).await.ok()
    })
    .await;
    assert_eq!(appended.first_seq, 1);
    assert_eq!(store.head(&key(0)).await.unwrap().item_count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn searches_are_back_as_soon_as_the_primary_is() {
    let cluster = PgCluster::builder().start().unwrap();
    let store = open(&settings(cluster.primary().dsn())).await;
    create(store.as_ref(), 1).await;
    let search = async || store.search(&key(0).tenant, searching()).await;
    search().await.unwrap();
    for how in [Stop::Immediate, Stop::Graceful] {
        cluster.primary().stop(how).unwrap();
        // More than what opens the breaker of searches, were they what fails.
        for _ in 0..300 {
            assert_eq!(search().await.unwrap_err().code(), "unavailable");
        }
        cluster.primary().start().unwrap();
        eventually_async("the primary answers", SOON, async || {
            store.head(&key(0)).await.ok()
        })
        .await;
        search().await.expect("nothing else keeps searches out");
    }
}

// The server is looked at only when somebody asks here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_server_that_is_back_is_ready_when_writes_are_let_in_and_not_before() {
    let cluster = PgCluster::builder().start().unwrap();
    let settings = PostgresSettings {
        routing: RoutingSettings {
            probe_interval: Duration::from_mins(5),
            ..RoutingSettings::default()
        },
        ..settings(cluster.primary().dsn()).into()
    };
    let store = Arc::new(PgContextStore::new(&settings, Arc::new(crate::SystemClock)).unwrap());
    prepared(&store).await;
    create(store.as_ref(), 1).await;
    assert!(store.check().await.is_ok());
    cluster.primary().stop(Stop::Immediate).unwrap();
    eventually_async("the server is known to be down", SOON, async || {
        drop(store.check().await);
        (store.insight().servers[0].member.state == State::Down).then_some(())
    })
    .await;
    let refused = store.check().await.unwrap_err();
    assert_eq!(refused.code(), "unavailable");
    assert!(refused.retry_after().is_some());
    cluster.primary().start().unwrap();
    eventually_async("the server is ready", SOON, async || store.check().await.ok()).await;
    let append = append_of("back", Naming::Key, 1);
    assert_eq!(store.append(&key(0), append).await.unwrap().first_seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn deadlocks_are_done_again() {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(Arc::new(crate::SystemClock)).await;
    let dsn = with_database(&scratch.server, &scratch.name);
    under_load(&store, async {
        // Locks heads against the order that everybody else keeps, so that somebody has to be thrown out.
        let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        client
            .batch_execute("SET deadlock_timeout = '10ms'; SET application_name = 'rogue'")
            .await
            .unwrap();
        let mut deadlocks = 0;
        for _ in 0..200 {
            let rogue = "BEGIN; SELECT 1 FROM contextkeep.heads WHERE ctx_no = 5 FOR UPDATE;
                         SELECT 1 FROM contextkeep.heads WHERE ctx_no = 1 FOR UPDATE; COMMIT";
            if client.batch_execute(rogue).await.is_err() {
                deadlocks += 1;
                client.batch_execute("ROLLBACK").await.unwrap();
            }
        }
        let rows = client
            .query(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
                &[],
            )
            .await
            .unwrap();
        let counted: i64 = rows[0].get(0);
        tracing::debug!(deadlocks, counted, "provoked");
        drop(client);
        connection.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_store_whose_database_comes_later_becomes_ready() {
    let cluster = PgCluster::builder().start().unwrap();
    cluster.primary().stop(Stop::Graceful).unwrap();
    let settings = settings(cluster.primary().dsn());
    let store =
        Arc::new(PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap());
    let error = store.prepare().await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
    store.prepare_in_background();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
    cluster.primary().start().unwrap();
    eventually_async("the store is ready", SOON, async || store.check().await.ok()).await;
    create(store.as_ref(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_standby_is_not_taken_for_a_primary() {
    let cluster = PgCluster::builder().replicas(1).start().unwrap();
    let replica = cluster.replicas().next().unwrap();
    let store = PgContextStore::new(&settings(replica.dsn()).into(), Arc::new(crate::SystemClock)).unwrap();
    let error = store.prepare().await.unwrap_err();
    assert!(error.to_string().contains("is a standby"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn replicated_durability_waits_for_a_standby_and_needs_one() {
    let cluster = PgCluster::builder().replicas(1).start().unwrap();
    let settings = DatabaseSettings {
        durability: Durability::Replicated,
        statement_timeout: Duration::from_secs(1),
        ..settings(cluster.primary().dsn())
    };
    let store =
        Arc::new(PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap());
    let error = store.prepare().await.unwrap_err();
    assert!(error.to_string().contains("synchronous_standby_names"), "{error}");
    let primary = cluster.primary();
    primary
        .sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        .unwrap();
    primary.sql("SELECT pg_reload_conf()").unwrap();
    eventually_async("the setting is seen", SOON, async || store.prepare().await.ok()).await;
    create(store.as_ref(), 1).await;
    store
        .append(&key(0), append_of("both", Naming::Key, 1))
        .await
        .unwrap();
    cluster.replicas().next().unwrap().freeze().unwrap();
    let append = append_of("waits", Naming::Key, 1);
    let error = store.append(&key(0), append.clone()).await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
    cluster.replicas().next().unwrap().thaw().unwrap();
    let appended = eventually_async("the standby is back", SOON, async || {
        store.append(&key(0), append.clone()).await.ok()
    })
    .await;
    assert_eq!(appended.first_seq, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_there_is_named() {
    let settings = settings("postgres://u:hush-hush@127.0.0.1:1/d".to_owned());
    let store = PgContextStore::new(&settings.clone().into(), Arc::new(crate::SystemClock)).unwrap();
    let error = store.prepare().await.unwrap_err();
    assert_eq!(error.code(), "unavailable");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(!error.to_string().contains("hush"), "{error}");
}
