//! What is told of changes.

use super::*;
use crate::Version;
use crate::cached::Changes;

fn known(changes: Changes) -> Vec<(ContextKey, Version)> {
    match changes {
        Changes::Known(known) => known,
        Changes::Unknown => panic!("the feed lost its place"),
    }
}

// G5, F11: whoever wrote it, and whether he lived to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn every_change_of_every_process_is_told() {
    let scratch = Scratch::create(&shared()).await;
    let clock = crate::contract::clock();
    let (here, there) = (scratch.open(clock.clone()).await, scratch.open(clock).await);
    let feed = here.feed();
    assert!(
        matches!(feed.changes().await.unwrap(), Changes::Unknown),
        "where it begins nothing is known"
    );
    let tenant = TenantId::parse("acme").unwrap();
    let mut keys = Vec::new();
    for _ in 0..3 {
        let context = there
            .create(&tenant, NewContext::of_agent("a"))
            .await
            .unwrap()
            .context;
        keys.push(ContextKey::new(tenant.clone(), context.id));
    }
    let told = known(feed.changes().await.unwrap());
    assert!(
        keys.iter().all(|key| told.contains(&(key.clone(), 1))),
        "{told:?}"
    );
    let patch = ContextPatch {
        name: Some(Some("n".to_owned())),
        ..ContextPatch::default()
    };
    there.update(&keys[0], patch, None).await.unwrap();
    there.delete(&keys[1], None).await.unwrap();
    here.rewrite(&keys[2], Vec::new(), None).await.unwrap();
    let told = known(feed.changes().await.unwrap());
    assert!(
        keys.iter().all(|key| told.contains(&(key.clone(), 2))),
        "{told:?}"
    );
}

// A transaction that draws its number early and commits late is not stepped over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_transaction_that_was_overtaken_is_told() {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(crate::contract::clock()).await;
    let tenant = TenantId::parse("acme").unwrap();
    let feed = store.feed();
    drop(feed.changes().await.unwrap());
    let slow = store
        .create(&tenant, NewContext::of_agent("slow"))
        .await
        .unwrap()
        .context;
    let quick = store
        .create(&tenant, NewContext::of_agent("quick"))
        .await
        .unwrap()
        .context;
    drop(feed.changes().await.unwrap());
    let late = store.alone().await.unwrap();
    late.batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    let patch = |name: &str| ContextPatch {
        name: Some(Some(name.to_owned())),
        ..ContextPatch::default()
    };
    let quick = ContextKey::new(tenant.clone(), quick.id);
    store.update(&quick, patch("n"), None).await.unwrap();
    assert!(known(feed.changes().await.unwrap()).contains(&(quick, 2)));
    late.batch_execute(&format!(
        "INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
         SELECT 0, ARRAY[ctx_no], ARRAY[7], '{{}}', '{{}}', '{{}}' FROM contextkeep.contexts WHERE id = '{}';
         COMMIT",
        slow.id
    ))
    .await
    .unwrap();
    let slow = ContextKey::new(tenant, slow.id);
    assert!(known(feed.changes().await.unwrap()).contains(&(slow, 7)));
}
