//! Behind `PgBouncer` in transaction mode. Needs one older than 1.21 to show what `auto` protects from; a newer
//! one has `max_prepared_statements` at 0 unless told otherwise, which is the same.

use contextkeep_test_support::PgBouncer;

use super::*;

const CLIENTS: usize = 16;
const ROUNDS: usize = 50;

/// Different statements of the same shape, so that a mix-up would show.
static TWICE: Statement = Statement {
    name: "twice",
    sql: "SELECT $1 || $1",
    types: &[Type::TEXT],
};

/// Reads, pairs and transactions from many tasks; the faults among them.
async fn traffic(endpoint: &Arc<Endpoint>) -> Vec<Fault> {
    let client = |n: usize| {
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            let mut faults = Vec::new();
            for round in 0..ROUNDS {
                faults.extend(exchange(&endpoint, &format!("{n}.{round}")).await.err());
            }
            faults
        })
    };
    let done = futures_util::future::join_all((0..CLIENTS).map(client)).await;
    done.into_iter().flat_map(Result::unwrap).collect()
}

async fn exchange(endpoint: &Arc<Endpoint>, text: &str) -> Result<(), Fault> {
    let calls = [
        Call {
            statement: &ECHO,
            params: &[&text],
        },
        Call {
            statement: &TWICE,
            params: &[&text],
        },
    ];
    let is = |rows: &[tokio_postgres::Row], expected: &str| assert_eq!(rows[0].get::<_, &str>(0), expected);
    is(&endpoint.query(&ECHO, &[&text]).await?, text);
    let (one, two) = endpoint.pair(calls[0], calls[1]).await?;
    is(&one, text);
    is(&two, &text.repeat(2));
    let mut session = endpoint.session().await?;
    let rows = session.transact(&calls).await?;
    is(&rows[0], text);
    is(&rows[1], &text.repeat(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn auto_and_off_work_behind_a_transaction_pooler() {
    let cluster = PgCluster::builder().start().unwrap();
    let bouncer = PgBouncer::start(cluster.primary(), 4).unwrap();
    for prepared_statements in [PreparedStatements::Auto, PreparedStatements::Off] {
        let settings = DatabaseSettings {
            prepared_statements,
            max_open_conns: 20,
            ..settings()
        };
        let endpoint = endpoint_at(&bouncer.dsn(), &settings);
        let faults = traffic(&endpoint).await;
        assert!(
            faults.is_empty(),
            "{prepared_statements:?}: {} faults, {:?}",
            faults.len(),
            faults[0]
        );
        assert_eq!(
            endpoint.status().behind_pooler,
            prepared_statements == PreparedStatements::Auto
        );
        endpoint.close().await;
    }
    // Not behind one: the same settings prepare.
    let endpoint = endpoint(cluster.primary(), &settings());
    assert!(traffic(&endpoint).await.is_empty());
    assert!(!endpoint.status().behind_pooler);
}

/// What `auto` is there for: without it, this is what happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn on_fails_behind_a_transaction_pooler_and_says_why() {
    let cluster = PgCluster::builder().start().unwrap();
    let bouncer = PgBouncer::start(cluster.primary(), 4).unwrap();
    let settings = DatabaseSettings {
        prepared_statements: PreparedStatements::On,
        max_open_conns: 20,
        ..settings()
    };
    let faults = traffic(&endpoint_at(&bouncer.dsn(), &settings)).await;
    let pooler = faults
        .iter()
        .find(|fault| fault.kind() == Kind::Pooler)
        .expect("the pooler shows");
    assert!(pooler.to_string().contains("prepared_statements"), "{pooler}");
    assert!(pooler.is_not_applied() && pooler.is_transient_conflict());
}
