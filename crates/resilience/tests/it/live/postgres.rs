//! A Postgres that is stopped: its connections stay open and nothing answers.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_resilience::classify::sqlstate;
use contextkeep_resilience::{Outcome, Profile};
use contextkeep_test_support::PgCluster;
use tokio_postgres::{Client, NoTls};

use super::{Dependency, endure};

struct Postgres {
    cluster: PgCluster,
    client: Client,
}

impl Dependency for Arc<Postgres> {
    async fn call(&self) -> Result<(), Outcome> {
        let answer = self.client.simple_query("SELECT 1").await;
        answer.map(drop).map_err(|error| match error.code() {
            Some(state) => sqlstate::code(state.code()),
            None => sqlstate::connection(true),
        })
    }

    fn fail(&self) {
        self.cluster.primary().freeze().unwrap();
    }

    async fn heal(&self) {
        self.cluster.primary().thaw().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn a_frozen_postgres_is_left_alone_until_it_thaws() {
    let cluster = PgCluster::builder().start().unwrap();
    let (client, connection) = tokio_postgres::connect(&cluster.primary().dsn(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let postgres = Arc::new(Postgres { cluster, client });
    let profile = Profile::PostgresRead;
    // The profile's slow calls are left out: a loaded machine has them without an outage.
    let breaker = profile
        .breaker("postgres")
        .slow(Duration::from_millis(500), None)
        .build()
        .unwrap();
    let probes = u32::from(profile.half_open().probes);
    endure(
        "Postgres, SIGSTOP",
        postgres,
        breaker,
        profile.attempt_timeout(),
        probes,
    )
    .await;
}
