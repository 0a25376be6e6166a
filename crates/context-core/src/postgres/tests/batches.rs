//! Operations on many contexts: one statement each, one row in the outbox, no circle of locks.

use super::history::{Naming, append_of, create, key, tenant};
use super::*;
use crate::postgres::insight::StatementInsight;
use crate::store::ContextStore;

const CONTEXTS: u64 = 100;

/// How often a statement was run, by name.
fn runs(store: &PgContextStore, name: &str) -> u64 {
    let statements = store.insight().statements;
    statements
        .iter()
        .filter(|statement| statement.name == name)
        .map(StatementInsight::calls)
        .sum()
}

/// Rows in the outbox, and contexts in the one with the most.
async fn changes(scratch: &Scratch) -> (i64, i32) {
    let dsn = with_database(&scratch.server, &scratch.name);
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let sql = "SELECT count(*), max(cardinality(ctx_nos)) FROM contextkeep.changes";
    let row = client.query_one(sql, &[]).await.unwrap();
    let changes = (row.get(0), row.get(1));
    drop(client);
    connection.await.unwrap().unwrap();
    changes
}

/// A store with one lane and a hundred empty contexts.
async fn one_lane() -> (Scratch, Arc<PgContextStore>) {
    let scratch = Scratch::create(&shared()).await;
    let settings = DatabaseSettings {
        write_lanes: 1,
        ..scratch.settings()
    };
    let store = PgContextStore::new(&settings.into(), Arc::new(crate::SystemClock)).unwrap();
    prepared(&store).await;
    create(&store, CONTEXTS).await;
    (scratch, Arc::new(store))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_batch_of_a_hundred_is_one_statement_each_time() {
    let (scratch, store) = one_lane().await;
    let (rows_before, _) = changes(&scratch).await;

    let appends = (0..CONTEXTS)
        .map(|n| (key(n).id, append_of(&n.to_string(), Naming::Key, 1)))
        .collect();
    for outcome in store.append_many(&tenant(), appends).await {
        assert_eq!(outcome.unwrap().version, 2);
    }
    let (rows, largest) = changes(&scratch).await;
    assert_eq!(rows - rows_before, 1, "the appends were not one group");
    assert_eq!(largest, 100);
    assert_eq!(runs(&store, "append_fresh"), 1);

    let ids: Vec<_> = (0..CONTEXTS).map(|n| key(n).id).collect();
    let heads = store.heads(&tenant(), &ids).await.unwrap();
    assert!(
        heads
            .iter()
            .flatten()
            .zip(&ids)
            .all(|(head, id)| head.id == *id && head.item_count == 1)
    );
    assert_eq!(heads.iter().flatten().count(), 100);
    assert_eq!(runs(&store, "heads"), 1);

    let deletes = ids.iter().map(|id| (id.clone(), None)).collect();
    for outcome in store.delete_many(&tenant(), deletes).await {
        assert_eq!(outcome.unwrap(), 3);
    }
    assert_eq!(changes(&scratch).await, (rows + 1, 100));
    assert_eq!(runs(&store, "delete_many"), 1);
    let heads = store.heads(&tenant(), &ids).await.unwrap();
    assert!(heads.iter().all(Option::is_none));
}

// S4, P4: a key that was used before, its item replaced, has its whole group done once more and no append of it twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_group_with_a_client_id_of_before_a_replacement_is_done_with_care() {
    let (_scratch, store) = one_lane().await;
    let late = append_of("late", Naming::ClientId, 2);
    let first = store.append(&key(0), late.clone()).await.unwrap();
    store
        .replace(&key(0), append_of("summary", Naming::None, 1))
        .await
        .unwrap();
    let calls = || (runs(&store, "append_fresh"), runs(&store, "append"));
    let (fresh, careful) = calls();

    let mut appends: Vec<_> = (0..CONTEXTS)
        .map(|n| (key(n).id, append_of(&format!("new{n}"), Naming::ClientId, 1)))
        .collect();
    appends.insert(50, (key(0).id, late));
    let mut outcomes = store.append_many(&tenant(), appends).await;
    let retried = outcomes.remove(50).unwrap();
    assert!(retried.replayed);
    assert_eq!(
        (
            retried.first_seq,
            retried.last_seq,
            retried.tokens,
            retried.version
        ),
        (first.first_seq, first.last_seq, first.tokens, first.version)
    );
    for (n, outcome) in outcomes.into_iter().enumerate() {
        let appended = outcome.unwrap();
        let expected = if n == 0 { (4, 4) } else { (1, 2) };
        assert_eq!((appended.first_seq, appended.version), expected, "context {n}");
        assert!(!appended.replayed);
    }
    assert_eq!(calls(), (fresh + 1, careful + 1));
    let head = store.head(&key(0)).await.unwrap();
    assert_eq!((head.item_count, head.version), (2, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn batches_that_meet_in_every_order_all_end() {
    let (_scratch, store) = one_lane().await;
    let mut tasks = tokio::task::JoinSet::new();
    for turn in 0..8_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            // Forwards, backwards, and from the middle on.
            let order = (0..CONTEXTS).map(|n| match turn % 3 {
                0 => n,
                1 => CONTEXTS - 1 - n,
                _ => (n + CONTEXTS / 2) % CONTEXTS,
            });
            if turn < 4 {
                let appends = order
                    .map(|n| (key(n).id, append_of(&format!("{turn}.{n}"), Naming::Key, 1)))
                    .collect();
                let outcomes = store.append_many(&tenant(), appends).await;
                outcomes.into_iter().map(|outcome| outcome.map(|_| ())).collect()
            } else {
                // Half of them, so that something is left to look at.
                let deletes = order.filter(|n| n % 2 == 0).map(|n| (key(n).id, None)).collect();
                let outcomes = store.delete_many(&tenant(), deletes).await;
                let ended = outcomes.into_iter().map(|outcome| outcome.map(|_| ()));
                ended.collect::<Vec<_>>()
            }
        });
    }
    while let Some(outcomes) = tasks.join_next().await {
        for outcome in outcomes.unwrap() {
            assert!(matches!(outcome, Ok(()) | Err(Error::NotFound)), "{outcome:?}");
        }
    }
    for n in 0..CONTEXTS {
        let head = store.head(&key(n)).await;
        if n % 2 == 0 {
            assert!(matches!(head, Err(Error::NotFound)), "{head:?}");
        } else {
            let head = head.unwrap();
            assert_eq!((head.item_count, head.next_seq, head.version), (4, 5, 5));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_batch_that_does_not_fit_the_queue_is_refused_element_by_element() {
    let scratch = Scratch::create(&shared()).await;
    let settings = DatabaseSettings {
        write_queue: 10,
        ..scratch.settings()
    };
    let store = PgContextStore::new(&settings.into(), Arc::new(crate::SystemClock)).unwrap();
    prepared(&store).await;
    create(&store, CONTEXTS).await;
    let appends = (0..CONTEXTS)
        .map(|n| (key(n).id, append_of(&n.to_string(), Naming::None, 1)))
        .collect();
    let outcomes = store.append_many(&tenant(), appends).await;
    let (stored, refused) = outcomes.split_at(10);
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    assert!(
        refused
            .iter()
            .all(|outcome| matches!(outcome, Err(Error::Overloaded { .. }))),
        "{refused:?}"
    );
    assert_eq!(store.check().await.unwrap().writes_waiting, 0);
}
