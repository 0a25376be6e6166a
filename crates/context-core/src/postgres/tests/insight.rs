//! What a store tells about its statements, on a real server.

use contextkeep_test_support::eventually_async;

use super::history::{Naming, append_of};
use super::*;
use crate::postgres::insight::{Closed, Insight, SLOW_MAX, StatementInsight, Tallies};
use crate::settings::MonitoringSettings;
use crate::{ContextId, search};

/// Words that are stored and searched for, and must be nowhere in what is told.
const SECRETS: [&str; 5] = ["acme-7f", "trip-7f", "planner-7f", "body-7f", "hidden7f"];
const SOON: Duration = Duration::from_mins(1);

/// A store to which every statement is slow.
async fn watched(scratch: &Scratch) -> Arc<PgContextStore> {
    // The schema comes first: the indexer of a store tries its statements from the start.
    scratch.open(Arc::new(crate::SystemClock)).await.close().await;
    let settings = PostgresSettings {
        monitoring: MonitoringSettings {
            slow_query_threshold: Duration::ZERO,
            sampling_rate: 1.0,
            ..MonitoringSettings::default()
        },
        ..scratch.settings().into()
    };
    let store = PgContextStore::new(&settings, Arc::new(crate::SystemClock)).unwrap();
    prepared(&store).await;
    Arc::new(store)
}

fn key() -> ContextKey {
    ContextKey::new(
        TenantId::parse("acme-7f").unwrap(),
        ContextId::parse("trip-7f").unwrap(),
    )
}

/// A create, an append, reads and a search.
async fn work(store: &PgContextStore) {
    let key = key();
    let new = NewContext {
        tokenizer: Some(crate::Tokenizer::Estimate),
        ..NewContext::of_agent("planner-7f").with_id(key.id.clone())
    };
    store.create(&key.tenant, new).await.unwrap();
    store
        .append(&key, append_of("body-7f", Naming::None, 2))
        .await
        .unwrap();
    store.head(&key).await.unwrap();
    store.search(&key.tenant, searching()).await.unwrap();
}

pub(super) fn searching() -> SearchQuery {
    SearchQuery {
        query: search::Query::parse("hidden7f").unwrap(),
        context: None,
        role: None,
        since: None,
        until: None,
        offset: 0,
        limit: 10,
    }
}

fn calls(insight: &Insight, name: &str) -> u64 {
    let statement = insight.statements.iter().find(|statement| statement.name == name);
    statement.map_or(0, StatementInsight::calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn statements_are_counted_and_noted_without_their_values() {
    let scratch = Scratch::create(&shared()).await;
    let store = watched(&scratch).await;
    work(&store).await;
    for _ in 0..SLOW_MAX {
        store.head(&key()).await.unwrap();
    }
    let insight = store.insight();
    assert_eq!(calls(&insight, "head"), SLOW_MAX as u64 + 1);
    assert!(calls(&insight, "append_fresh") >= 1, "{:?}", insight.statements);
    assert_eq!(insight.slow.len(), SLOW_MAX);
    assert!(insight.slow.iter().all(|slow| &*slow.endpoint == "primary"));
    let total: Duration = insight.statements.iter().map(StatementInsight::total).sum();
    assert!(total > Duration::ZERO);

    let server = &insight.servers[0];
    assert_eq!(&*server.member.name, "primary");
    assert!(
        server.pool.created > 0 && server.pool.max > 0,
        "{:?}",
        server.pool
    );
    assert_eq!(
        insight.reads,
        Tallies {
            primary: insight.reads.primary,
            ..Tallies::default()
        }
    );
    assert!(insight.reads.primary > SLOW_MAX as u64);

    // A plan of each statement that was run, as it comes.
    let insight = eventually_async("a read was explained", SOON, async || {
        store.head(&key()).await.unwrap();
        let insight = store.insight();
        insight
            .plans
            .iter()
            .any(|plan| plan.statement == "head")
            .then_some(insight)
    })
    .await;
    let plan = insight
        .plans
        .iter()
        .find(|plan| plan.statement == "head")
        .unwrap();
    assert!(plan.json.contains("contexts_tenant_id_key"), "{}", plan.json);
    assert_eq!(
        (insight.explaining.taken, insight.explaining.failed),
        (insight.plans.len() as u64, 0)
    );
    let told = format!("{insight:?}");
    for secret in SECRETS {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    store.close().await;
}

static WRITES: [Statement; 3] = [
    Statement {
        name: "delete_all",
        sql: "DELETE FROM contextkeep.contexts WHERE tenant = $1 RETURNING id",
        types: &[tokio_postgres::types::Type::TEXT],
    },
    Statement {
        name: "take_number",
        sql: "INSERT INTO contextkeep.streams (ctx_no) SELECT ctx_no FROM contextkeep.contexts",
        types: &[],
    },
    Statement {
        name: "set_number",
        sql: "SELECT setval(pg_get_serial_sequence('contextkeep.contexts', 'ctx_no'), 4711)",
        types: &[],
    },
];

static STATE: Statement = Statement {
    name: "state",
    sql: "SELECT (SELECT count(*) FROM contextkeep.contexts), (SELECT count(*) FROM contextkeep.streams), \
          (SELECT last_value FROM pg_sequences WHERE sequencename = 'contexts_ctx_no_seq'), \
          (SELECT last_value FROM pg_sequences WHERE sequencename = 'streams_stream_no_seq')",
    types: &[],
};

async fn state(endpoint: &Arc<Endpoint>) -> [Option<i64>; 4] {
    let rows = endpoint.query(&STATE, &[]).await.unwrap();
    [0, 1, 2, 3].map(|column| rows[0].get(column))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_write_that_is_explained_changes_nothing() {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(Arc::new(crate::SystemClock)).await;
    work(&store).await;
    let primary = store.servers.primary();
    let before = state(&primary).await;
    assert!(before.iter().all(Option::is_some), "{before:?}");
    for statement in &WRITES {
        // The same connection again and again: nothing is left on it.
        for _ in 0..2 {
            let plan = primary.session().await.unwrap().explain(statement).await.unwrap();
            assert!(plan.contains("\"Plan\"") && !plan.contains("Actual"), "{plan}");
        }
    }
    assert_eq!(state(&primary).await, before);
    assert_eq!(store.head(&key()).await.unwrap().id, key().id);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn what_cannot_be_explained_costs_a_connection_and_nothing_else() {
    static ABSENT: Statement = Statement {
        name: "absent",
        sql: "SELECT 1 FROM contextkeep.absent",
        types: &[],
    };
    let scratch = Scratch::create(&shared()).await;
    let store = watched(&scratch).await;
    let primary = store.servers.primary();
    let fault = primary
        .session()
        .await
        .unwrap()
        .explain(&ABSENT)
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), link::Kind::NoSchema, "{fault}");
    let pool = primary.status();
    assert_eq!(pool.closed_for(Closed::Abandoned), 1);
    assert!(!pool.behind_pooler);

    // The same by way of the sampler: it is counted, and its caller got its own error only.
    let insight = eventually_async("a try has failed", SOON, async || {
        primary.query(&ABSENT, &[]).await.unwrap_err();
        let insight = store.insight();
        (insight.explaining.failed > 0).then_some(insight)
    })
    .await;
    assert!(insight.plans.iter().all(|plan| plan.statement != "absent"));
    work(&store).await;
    store.close().await;
}
