use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;

type Made = (Arc<dyn ContextStore>, tempfile::TempDir);

fn scratch(clock: Arc<ManualClock>) -> std::future::Ready<Made> {
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().join("data"),
        ..EmbeddedSettings::default()
    };
    std::future::ready((Arc::new(EmbeddedStore::open(&settings, clock).unwrap()), folder))
}

crate::store_contract!(scratch);

fn open(folder: &tempfile::TempDir) -> EmbeddedStore {
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        ..EmbeddedSettings::default()
    };
    EmbeddedStore::open(&settings, Arc::new(crate::SystemClock)).unwrap()
}

fn said(text: &str) -> Append {
    let mut item =
        crate::NewItem::parse(&format!(r#"{{"role":"user","content":"{text}"}}"#), 1 << 20).unwrap();
    item.count(crate::Tokenizer::Estimate);
    Append {
        items: Arc::from([item]),
        tokenizer: crate::Tokenizer::Estimate,
        expected: None,
        idempotency: None,
    }
}

async fn created(store: &EmbeddedStore) -> ContextKey {
    let tenant = TenantId::parse("acme").unwrap();
    let new = NewContext {
        tokenizer: Some(crate::Tokenizer::Estimate),
        ..NewContext::of_agent("a")
    };
    let context = store.create(&tenant, new).await.unwrap().context;
    ContextKey::new(tenant, context.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_file_lose_nothing_and_settle() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder), open(&folder));
    let key = created(&first).await;
    for round in 0..50 {
        let seqs = [
            first.append(&key, said("from one")).await,
            second.append(&key, said("from two")).await,
        ];
        let seqs = seqs.map(|appended| appended.unwrap().first_seq);
        assert_eq!(seqs, [2 * round + 1, 2 * round + 2]);
    }
    // Each indexes what the other has indexed already, and notices.
    first.settle().await.unwrap();
    second.settle().await.unwrap();
    let query = SearchQuery {
        query: crate::search::Query::parse("from").unwrap(),
        context: None,
        role: None,
        since: None,
        until: None,
        offset: 0,
        limit: 100,
    };
    let hits = second.search(&key.tenant, query).await.unwrap().hits;
    assert_eq!(hits.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_left_unindexed_is_indexed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let key = {
        let store = open(&folder);
        let key = created(&store).await;
        // Closed before the indexer gets its turn at all of them.
        for _ in 0..200 {
            store.append(&key, said("left over")).await.unwrap();
        }
        key
    };
    let store = open(&folder);
    store.settle().await.unwrap();
    let page = store
        .search(
            &key.tenant,
            SearchQuery {
                query: crate::search::Query::parse("left").unwrap(),
                context: Some(key.id.clone()),
                role: None,
                since: None,
                until: None,
                offset: 0,
                limit: 1000,
            },
        )
        .await
        .unwrap();
    assert_eq!((page.hits.len(), page.lag_items), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_refuses_writes_and_serves_reads() {
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        max_size: bytesize::ByteSize::kib(512),
        ..EmbeddedSettings::default()
    };
    let store = EmbeddedStore::open(&settings, Arc::new(crate::SystemClock)).unwrap();
    let key = created(&store).await;
    let (mut acknowledged, mut undone) = (0, 0);
    let refusal = loop {
        match store.append(&key, said(&"x".repeat(10_000))).await {
            Ok(appended) => acknowledged = appended.last_seq,
            // It shared a commit with the indexer's batch, for which there was no room: as it says, try again.
            Err(crate::Error::Unavailable { .. }) => undone += 1,
            Err(error) => break error,
        }
        assert!(acknowledged + undone < 1000, "512 KiB do not end");
    };
    assert!(matches!(refusal, crate::Error::StorageFull { .. }), "{refusal:?}");
    let head = store.head(&key).await.unwrap();
    assert_eq!(head.next_seq - 1, acknowledged);
}

#[test]
fn files_that_are_not_ours_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        ..EmbeddedSettings::default()
    };
    let file = folder.path().join("contextkeep.db");
    let refusal = |prepare: &dyn Fn()| {
        drop(std::fs::remove_file(&file));
        prepare();
        let error = EmbeddedStore::open(&settings, Arc::new(crate::SystemClock)).unwrap_err();
        assert!(error.to_string().contains("contextkeep.db"), "{error}");
        error
    };
    let random = refusal(&|| std::fs::write(&file, vec![7_u8; 20_000]).unwrap());
    assert!(
        matches!(random, crate::Error::StorageDamaged { .. }),
        "{random:?}"
    );
    let foreign = refusal(&|| {
        let other = rusqlite::Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    });
    assert!(
        matches!(foreign, crate::Error::StorageDamaged { .. }),
        "{foreign:?}"
    );
}

#[test]
fn the_backlog_counts_each_stream_down_to_zero_and_no_further() {
    let backlog = index::Backlog::new();
    backlog.add(1, 5);
    backlog.add(2, 1);
    backlog.indexed(1, 7);
    assert_eq!(backlog.lag(), 1, "two of the seven were another process's");
    backlog.add(1, 3);
    backlog.indexed(1, 0);
    assert_eq!(backlog.lag(), 1, "another process has indexed the three");
    backlog.indexed(3, 4);
    backlog.indexed(2, 1);
    assert_eq!(backlog.lag(), 0);
}

#[tokio::test]
async fn two_stores_on_one_file_both_settle() {
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().join("data"),
        ..EmbeddedSettings::default()
    };
    let open = || EmbeddedStore::open(&settings, Arc::new(crate::SystemClock)).unwrap();
    let first = open();
    let tenant = TenantId::parse("t").unwrap();
    let context = first
        .create(&tenant, NewContext::of_agent("a"))
        .await
        .unwrap()
        .context;
    let key = ContextKey::new(tenant, context.id);
    let item = crate::NewItem::parse(r#"{"role":"user","content":"hi"}"#, 1000).unwrap();
    let append = Append {
        items: vec![item; 500].into(),
        tokenizer: crate::Tokenizer::default(),
        expected: None,
        idempotency: None,
    };
    first.append(&key, append).await.unwrap();
    // Finds the same items unindexed, and one of the two will index what the other has noted.
    let second = open();
    first.settle().await.unwrap();
    second.settle().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_job_costs_nobody_else_anything() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let key = created(&store).await;
    let half_written = |connection: &rusqlite::Connection| -> Result<()> {
        connection.execute("DELETE FROM heads", []).unwrap();
        panic!("planted")
    };
    let refusal = store.write(half_written).await.unwrap_err();
    assert_eq!(refusal.code(), "internal", "{refusal}");
    assert_eq!(store.append(&key, said("still here")).await.unwrap().first_seq, 1);
    // More reads than there are connections, so that a lost one would be missed.
    for _ in 0..10 {
        let read = store.readers.read(|_| -> Result<()> { panic!("planted") }).await;
        assert_eq!(read.unwrap_err().code(), "internal");
    }
    assert_eq!(store.head(&key).await.unwrap().item_count, 1);
}

// Two processes share a file: each hears of the other's commits and not of its own.
#[cfg(feature = "cache")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_commits_is_told() {
    use crate::cached::Changes;
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (open(&folder), open(&folder));
    let feed = here.feed();
    let nothing = |changes: Changes| matches!(changes, Changes::Known(known) if known.is_empty());
    assert!(nothing(feed.changes().await.unwrap()));
    let key = created(&here).await;
    for _ in 0..3 {
        here.append(&key, said("here")).await.unwrap();
        assert!(nothing(feed.changes().await.unwrap()), "one's own are no news");
    }
    for round in 0..3 {
        there.append(&key, said("there")).await.unwrap();
        if round == 1 {
            here.append(&key, said("between")).await.unwrap();
        }
        assert!(matches!(feed.changes().await.unwrap(), Changes::Unknown));
        assert!(nothing(feed.changes().await.unwrap()), "told once");
    }
}
