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
