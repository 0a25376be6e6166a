//! The whole store behind `PgBouncer` in transaction mode, where no two statements need meet the same session.

use contextkeep_test_support::{PgBouncer, PgCluster};

use super::faults::{progress, under_load};
use super::history::{key, tenant};
use super::*;
use crate::search::Query;
use crate::settings::PreparedStatements;
use crate::store::{ContextStore, ListQuery, SearchQuery};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_store_behind_a_transaction_pooler_loses_nothing() {
    let cluster = PgCluster::builder().start().unwrap();
    let bouncer = PgBouncer::start(cluster.primary(), 4).unwrap();
    // Who arrives first migrates, through the pooler as well.
    for prepared_statements in [PreparedStatements::Auto, PreparedStatements::Off] {
        let settings = DatabaseSettings {
            dsn: Some(SecretString::from(bouncer.dsn())),
            max_open_conns: 12,
            prepared_statements,
            ..DatabaseSettings::default()
        };
        let store = PgContextStore::new(&settings.into(), Arc::new(crate::SystemClock)).unwrap();
        prepared(&store).await;
        let store = Arc::new(store);
        let acknowledged = under_load(&store, progress(&store)).await;
        assert!(acknowledged > 20, "{acknowledged}");
        store.settle().await.unwrap();
        let list = ListQuery {
            agent_id: None,
            session_id: None,
            forked_from: None,
            labels: Vec::new(),
            after: None,
            limit: 10,
        };
        assert_eq!(store.list(&tenant(), list).await.unwrap().contexts.len(), 5);
        let query = SearchQuery {
            query: Query::parse("\"1 1 0\"").unwrap(),
            context: None,
            role: None,
            since: None,
            until: None,
            offset: 0,
            limit: 10,
        };
        let found = store.search(&tenant(), query).await.unwrap();
        assert!(!found.hits.is_empty());
        for context in 0..5 {
            store.delete(&key(context), None).await.unwrap();
        }
        store.close().await;
    }
}
