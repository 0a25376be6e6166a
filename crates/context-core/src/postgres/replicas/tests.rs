//! The router against a primary and two replicas.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_resilience::BreakerSettings;
use contextkeep_test_support::{PgCluster, Stop, eventually_async};
use tokio_postgres::types::Type;

use super::super::link::{Address, Call, Kind, LinkSettings, Lsn, NoWatch, Statement};
use super::*;

mod failover;
mod floors;
mod lag;

/// Longer than anything here takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(20);

static VERSION: Statement = Statement {
    name: "version",
    sql: "SELECT COALESCE(max(v), 0) FROM t",
    types: &[],
};
static PUT: Statement = Statement {
    name: "put",
    sql: "INSERT INTO t VALUES ($1)",
    types: &[Type::INT8],
};

/// A cluster with a table, and a router over it.
struct Bench {
    cluster: PgCluster,
    replicas: Arc<Replicas>,
}

fn database() -> DatabaseSettings {
    DatabaseSettings {
        max_open_conns: 10,
        connect_timeout: SOON,
        pool_timeout: SOON,
        ..DatabaseSettings::default()
    }
}

fn routing() -> RoutingSettings {
    RoutingSettings {
        probe_interval: Duration::from_millis(50),
        ..RoutingSettings::default()
    }
}

fn router(cluster: &PgCluster, database: &DatabaseSettings, routing: RoutingSettings) -> Arc<Replicas> {
    let mut endpoints = cluster.members().iter().map(|member| {
        let dsn = member.dsn().into();
        let address = Address::parse("dsn", &dsn, None, database.connect_timeout).unwrap();
        Endpoint::new(
            member.name(),
            address,
            LinkSettings::from(database),
            Arc::new(NoWatch),
        )
        .unwrap()
    });
    let primary = endpoints.next().unwrap();
    let breaker = BreakerSettings::default();
    Replicas::new(primary, endpoints, database, routing, &breaker).unwrap()
}

impl Bench {
    async fn start(database: &DatabaseSettings, routing: RoutingSettings) -> Self {
        Self::start_with(PgCluster::builder().replicas(2), database, routing).await
    }

    async fn start_with(
        cluster: contextkeep_test_support::postgres::PgClusterBuilder,
        database: &DatabaseSettings,
        routing: RoutingSettings,
    ) -> Self {
        let cluster = cluster.start().unwrap();
        cluster
            .primary()
            .sql("create table t (v bigint primary key)")
            .unwrap();
        cluster.wait_replayed(SOON).unwrap();
        let replicas = router(&cluster, database, routing);
        replicas.start();
        let bench = Self { cluster, replicas };
        bench
            .until("all to be healthy", |status| {
                status.iter().all(|member| member.state == State::Healthy)
            })
            .await;
        bench
    }

    async fn until(&self, what: &str, holds: impl Fn(&[MemberStatus]) -> bool) {
        eventually_async(what, SOON, async || holds(&self.replicas.status()).then_some(())).await;
    }

    async fn until_state(&self, name: &str, state: State) {
        self.until(&format!("{name} to be {state:?}"), |status| {
            status
                .iter()
                .any(|member| &*member.name == name && member.state == state)
        })
        .await;
    }

    /// Writes a version on the primary; the floor of whoever has to see it.
    async fn put(&self, version: i64) -> Floor {
        let primary = self.replicas.primary();
        let mut session = primary.session().await.unwrap();
        session
            .transact(&[Call {
                statement: &PUT,
                params: &[&version],
            }])
            .await
            .unwrap();
        drop(session);
        let lsn = written(&primary.query(&WRITTEN, &[]).await.unwrap()).unwrap();
        Floor {
            epoch: self.replicas.epoch().unwrap(),
            lsn,
        }
    }

    /// Reads the version; a replica's has to be this or later.
    async fn version(&self, demand: Demand, least: i64) -> Result<Served<i64>, Fault> {
        self.replicas
            .read(&demand, read_version, |version| *version >= least)
            .await
    }

    /// Reads the version where a position is reached.
    async fn version_at(&self, demand: Demand) -> Result<Served<Option<i64>>, Fault> {
        let floor = demand.floor.map_or(Lsn(0), |floor| floor.lsn);
        let read = move |endpoint: Arc<Endpoint>| async move {
            let call = Call {
                statement: &VERSION,
                params: &[],
            };
            let rows = guarded(&endpoint, floor, call).await?;
            Ok(rows.map(|rows| rows[0].get(0)))
        };
        self.replicas.read(&demand, read, Option::is_some).await
    }
}

async fn read_version(endpoint: Arc<Endpoint>) -> Result<i64, Fault> {
    Ok(endpoint.query(&VERSION, &[]).await?[0].get(0))
}

fn asking(consistency: Consistency) -> Demand {
    Demand {
        consistency,
        ..Demand::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs server binaries"]
async fn reads_go_to_replicas_unless_the_primary_is_asked_for() {
    // A replica that is slow for a moment is not a replica that failed.
    let patient = RoutingSettings {
        replica_timeout: SOON,
        ..routing()
    };
    let bench = Bench::start(&database(), patient).await;
    // How old a replica is is known once a position of the primary was seen on it.
    eventually_async("the replicas' age is known", SOON, async || {
        bench.version(Demand::default(), 0).await.unwrap().age
    })
    .await;
    // One that was slow at first is left alone until its cost has decayed: both serve in the end.
    let mut by = std::collections::BTreeSet::new();
    eventually_async("reads by both replicas", SOON, async || {
        let served = bench.version(Demand::default(), 0).await.unwrap();
        assert_eq!(served.from, ServedBy::Replica);
        by.insert(served.by.name().to_string());
        (by.len() == 2).then_some(())
    })
    .await;
    assert_eq!(
        by.into_iter().collect::<Vec<_>>(),
        ["pg-replica-1", "pg-replica-2"]
    );
    let strong = bench.version(asking(Consistency::Strong), 0).await.unwrap();
    assert_eq!(
        (strong.from, &**strong.by.name()),
        (ServedBy::Primary, "pg-primary")
    );
    // What no replica is known to keep, the primary does.
    let fresh = asking(Consistency::Bounded(Duration::ZERO));
    assert_eq!(bench.version(fresh, 0).await.unwrap().from, ServedBy::Primary);
    eventually_async("a bound that replicas keep", SOON, async || {
        let served = bench
            .version(asking(Consistency::Bounded(SOON)), 0)
            .await
            .unwrap();
        (served.from == ServedBy::Replica).then_some(())
    })
    .await;
    let tallies = bench.replicas.tallies();
    assert_eq!((tallies.primary, tallies.promotions), (1, 0));

    // The reads may be spawned: their futures are `Send`.
    let replicas = bench.replicas.clone();
    let read = async move { replicas.read(&Demand::default(), read_version, |_| true).await };
    assert_eq!(tokio::spawn(read).await.unwrap().unwrap().value, 0);
    bench.replicas.close().await;
    assert!(bench.version(Demand::default(), 0).await.is_err());
}
