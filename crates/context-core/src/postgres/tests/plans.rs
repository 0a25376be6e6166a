//! The indexes that our own statements need are used: a plan that reads a whole table is a defect.

use tokio_postgres::types::{ToSql, Type};

use super::*;

/// What functions run inside; theirs cannot be explained from outside.
static RUN: Statement = Statement {
    name: "run",
    sql: "SELECT * FROM contextkeep.items WHERE stream_no = 1 AND seq >= 5 AND seq <= 9000 ORDER BY seq DESC LIMIT 50",
    types: &[],
};
static KEPT: Statement = Statement {
    name: "kept",
    sql: "SELECT * FROM contextkeep.items WHERE stream_no = 1 AND kept AND seq >= 5 AND seq <= 9000 ORDER BY seq",
    types: &[],
};
static FOUND: Statement = Statement {
    name: "found",
    sql: "SELECT * FROM contextkeep.words WHERE vector @@ $$'#t1' & 'flight'$$::tsquery",
    types: &[],
};
static FORGET: Statement = Statement {
    name: "forget",
    sql: "DELETE FROM contextkeep.spans WHERE stream_no = ANY ('{1,2,3}')",
    types: &[],
};

/// Explains a statement with these values.
async fn plan(
    client: &tokio_postgres::Client,
    statement: &Statement,
    params: &[&(dyn ToSql + Sync)],
) -> String {
    let explained = format!("EXPLAIN {}", statement.sql);
    let typed: Vec<(&(dyn ToSql + Sync), Type)> = params
        .iter()
        .copied()
        .zip(statement.types.iter().cloned())
        .collect();
    let rows = client.query_typed(&explained, &typed).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

async fn indexing(client: &tokio_postgres::Client) -> String {
    let numbers: Vec<i64> = (1..=200).collect();
    plan(
        client,
        &indexer::BODIES,
        &[&numbers, &numbers, &numbers, &numbers],
    )
    .await
}

async fn feeding_the_index(client: &tokio_postgres::Client) {
    let outbox = plan(client, &indexer::CHANGES, &[&"0", &0_i64, &4_i64]).await;
    assert!(
        outbox.contains("changes_pkey") && !outbox.contains("Sort"),
        "{outbox}"
    );
    let indexing = indexing(client).await;
    assert!(
        indexing.contains("items_pkey") && indexing.contains("contexts_pkey"),
        "{indexing}"
    );
    assert!(
        !indexing.contains("Seq Scan") && !indexing.contains("Hash"),
        "{indexing}"
    );
}

/// Tables of a size at which the choice matters, with statistics.
const TABLES: &str = "INSERT INTO contextkeep.contexts (created_at, tenant, id, agent_id, session_id, metadata, labels, forked_from)
    SELECT g, 't' || g % 10, 'c' || g, 'a' || g % 100, 's' || g % 20, '{}', '{}',
           CASE WHEN g % 3 = 0 THEN 'c' || g % 60 END
    FROM generate_series(1, 20000) g;
    INSERT INTO contextkeep.streams (ctx_no) SELECT ctx_no FROM contextkeep.contexts;
    INSERT INTO contextkeep.spans SELECT stream_no, 1, 9223372036854775807, stream_no FROM contextkeep.streams;
    INSERT INTO contextkeep.heads SELECT ctx_no, 1, stream_no, 1, 1, 0, 0, 0, 1, 1, NULL, NULL, 'estimate'
    FROM contextkeep.streams;
    INSERT INTO contextkeep.items (stream_no, seq, total, created_at, tokens, pinned, kept, role, kind, body)
    SELECT 1, g, g, g, 1, false, g % 1000 = 0, 'user', 'message', '{}' FROM generate_series(1, 20000) g;
    ANALYZE contextkeep.contexts; ANALYZE contextkeep.heads; ANALYZE contextkeep.items;
    ANALYZE contextkeep.spans; ANALYZE contextkeep.streams";

/// The id that is asked for, whether or not there is anything to know of the tables.
async fn creates(client: &tokio_postgres::Client) {
    let (no_text, no_number, labels) = (None::<String>, None::<i64>, Vec::<String>::new());
    let params: [&(dyn ToSql + Sync); 18] = [
        &"on",
        &"t1",
        &"c1",
        &"a1",
        &no_text,
        &no_text,
        &no_text,
        &no_text,
        &"{}",
        &labels,
        &no_text,
        &5_i64,
        &1_i64,
        &i64::MAX,
        &1_i64,
        &9_i64,
        &no_number,
        &"estimate",
    ];
    let create = plan(client, &create::CREATE, &params).await;
    assert!(
        create.contains("contexts_tenant_id_key") && create.contains("heads_pkey"),
        "{create}"
    );
    assert!(
        !create.contains("Seq Scan") && !create.contains("Hash"),
        "{create}"
    );
}

async fn reads_of_many(client: &tokio_postgres::Client) {
    let ids = ["c1", "c11", "c21", "never"].as_slice();
    let heads = plan(client, &read::HEADS, &[&"t1", &ids, &5_i64]).await;
    assert!(
        heads.contains("contexts_tenant_id_key") && heads.contains("heads_pkey"),
        "{heads}"
    );
    let forget = plan(client, &FORGET, &[]).await;
    assert!(forget.contains("spans_pkey"), "{forget}");
}

/// Vectors of a size at which the choice matters, with statistics.
const VECTORS: &str = "INSERT INTO contextkeep.vectors (stream_no, seq, model_no, created_at, tenant, role, vector)
    SELECT g % 200, g, 1, g, 't' || g % 10, 'user', decode(repeat('7f', 200), 'hex') FROM generate_series(1, 20000) g;
    INSERT INTO contextkeep.embedding_models (used_at, dimensions, name) VALUES (1, 196, 'm');
    INSERT INTO contextkeep.embedding (model_no, stream_no, done_seq, news, due_at)
    SELECT 1, stream_no, 0, 0, CASE WHEN stream_no % 500 = 0 THEN 0 END FROM contextkeep.streams;
    ANALYZE contextkeep.vectors; ANALYZE contextkeep.embedding; ANALYZE contextkeep.embedding_models";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn searches_by_meaning_and_the_task_behind_them_follow_an_index() {
    let scratch = Scratch::create(&shared()).await;
    scratch.open(Arc::new(crate::SystemClock)).await.close().await;
    let dsn = with_database(&scratch.server, &scratch.name);
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(TABLES).await.unwrap();
    client.batch_execute(VECTORS).await.unwrap();
    let (model, first, last, none) = (1_i64, 1_i64, i64::MAX, None::<String>);
    let everywhere: [&(dyn ToSql + Sync); 8] =
        [&model, &"t1", &first, &none, &last, &first, &first, &500_i64];
    let everywhere = plan(&client, &nearest::EVERYWHERE, &everywhere).await;
    assert!(everywhere.contains("vectors_newest"), "{everywhere}");
    assert!(!everywhere.contains("Sort"), "it walks backwards: {everywhere}");
    let within: [&(dyn ToSql + Sync); 8] = [&model, &7_i64, &first, &last, &first, &last, &none, &500_i64];
    let within = plan(&client, &nearest::WITHIN, &within).await;
    assert!(
        within.contains("vectors_pkey") && !within.contains("Seq Scan"),
        "{within}"
    );
    let take = plan(&client, &vectors::TAKE, &[&model, &5_i64, &64_i64, &9_i64]).await;
    assert!(
        take.contains("embedding_due") && take.contains("items_pkey"),
        "{take}"
    );
    assert!(!take.contains("Seq Scan"), "{take}");
    let idle = plan(&client, &vectors::IDLE, &[&"m", &196_i32, &5_i64, &1_i64]).await;
    assert!(idle.contains("embedding_due"), "{idle}");
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn every_read_follows_an_index() {
    let scratch = Scratch::create(&shared()).await;
    scratch.open(Arc::new(crate::SystemClock)).await.close().await;
    let dsn = with_database(&scratch.server, &scratch.name);
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    // The indexer plans before there is anything to know of the tables, and again when there is.
    let fresh = indexing(&client).await;
    assert!(
        fresh.contains("items_pkey") && fresh.contains("contexts_pkey"),
        "{fresh}"
    );
    assert!(!fresh.contains("Hash"), "{fresh}");
    creates(&client).await;
    client.batch_execute(TABLES).await.unwrap();
    creates(&client).await;
    let (tenant, id, agent, session) = ("t1", "c1", "a1", "s1");
    let (now, limit, none) = (5_i64, 10_i64, None::<String>);
    let (agent, session) = (Some(agent.to_owned()), Some(session.to_owned()));
    let labels: Vec<String> = Vec::new();
    let last = i64::MAX;
    let list = |agent: Option<String>, session: Option<String>| (agent, session);
    let head = plan(&client, &read::HEAD, &[&tenant, &id, &now]).await;
    assert!(
        head.contains("contexts_tenant_id_key") && head.contains("heads_pkey"),
        "{head}"
    );
    reads_of_many(&client).await;
    let forks = list(none.clone(), none.clone());
    for (statement, index, (agent, session)) in [
        (&read::LIST, "contexts_newest", list(none.clone(), none.clone())),
        (&read::LIST_OF_FORKS, "contexts_forked", forks),
        (
            &read::LIST_OF_AGENT,
            "contexts_of_agent",
            list(agent, none.clone()),
        ),
        (&read::LIST_OF_SESSION, "contexts_of_session", list(none, session)),
    ] {
        let parent = (index == "contexts_forked").then_some("c21");
        let params: [&(dyn ToSql + Sync); 9] = [
            &tenant, &now, &agent, &session, &labels, &last, &"", &limit, &parent,
        ];
        let plan = plan(&client, statement, &params).await;
        assert!(
            plan.contains(index) && !plan.contains("Seq Scan"),
            "{}: {plan}",
            statement.name
        );
        assert!(!plan.contains("Sort"), "{} sorts: {plan}", statement.name);
    }
    feeding_the_index(&client).await;
    let run = plan(&client, &RUN, &[]).await;
    assert!(run.contains("Index Scan Backward using items_pkey"), "{run}");
    let kept = plan(&client, &KEPT, &[]).await;
    assert!(kept.contains("items_kept"), "{kept}");
    client.batch_execute("SET enable_seqscan = off").await.unwrap();
    let found = plan(&client, &FOUND, &[]).await;
    assert!(found.contains("words_found"), "{found}");
    drop(client);
    connection.await.unwrap().unwrap();
}
