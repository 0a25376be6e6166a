//! The search index and its place in the outbox.

use super::*;
use crate::search::Query;

// F3: a hundred follows ninety-nine. Numbers of transactions get one more digit now and then, and a backlog that lies on
// both sides was indexed from its end, so that the rest was never found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_backlog_is_indexed_whole_when_its_numbers_get_longer() {
    const ITEMS: u64 = 70;
    let scratch = Scratch::create(&shared()).await;
    let clock = crate::contract::clock();
    let writer = scratch.open(clock.clone()).await;
    let tenant = TenantId::parse("acme").unwrap();
    let made = writer
        .create(
            &tenant,
            NewContext {
                tokenizer: Some(crate::Tokenizer::Estimate),
                ..NewContext::of_agent("a")
            },
        )
        .await
        .unwrap();
    let key = ContextKey::new(tenant.clone(), made.context.id);
    for number in 0..ITEMS {
        let append = history::append_of(&format!("needle {number}"), history::Naming::None, 1);
        writer.append(&key, append).await.unwrap();
    }
    writer.settle().await.unwrap();
    writer.close().await;
    let dsn = with_database(&scratch.server, &scratch.name);
    let backlog = "DELETE FROM contextkeep.words;
        UPDATE contextkeep.changes c SET xid = (50 + n.number)::text::xid8
        FROM (SELECT xid, row_number() OVER (ORDER BY w.xid) AS number FROM contextkeep.changes w) n WHERE n.xid = c.xid;
        UPDATE contextkeep.indexing SET xid = '0', change_no = 0";
    run(&dsn, backlog).await;
    let store = scratch.open(clock).await;
    store.settle().await.unwrap();
    let query = SearchQuery {
        query: Query::parse("needle").unwrap(),
        context: None,
        role: None,
        since: None,
        until: None,
        offset: 0,
        limit: 100,
    };
    let page = store.search(&tenant, query).await.unwrap();
    assert_eq!(page.hits.len() as u64, ITEMS);
    store.close().await;
}
