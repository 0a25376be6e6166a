//! The link against real servers. In the crate and not in `tests/`, because the link is not public.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_test_support::postgres::PgMember;
use contextkeep_test_support::{PgCluster, eventually_async};
use tokio_postgres::types::Type;

use super::*;
use crate::settings::{DatabaseSettings, PreparedStatements};

mod faults;
mod login;
mod pool;
mod pooler;
mod reads;

/// Longer than anything here takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(15);

static ONE: Statement = Statement {
    name: "one",
    sql: "SELECT 1",
    types: &[],
};
static ECHO: Statement = Statement {
    name: "echo",
    sql: "SELECT $1::text",
    types: &[Type::TEXT],
};
static BACKEND: Statement = Statement {
    name: "backend",
    sql: "SELECT pg_backend_pid()",
    types: &[],
};
static SLEEP: Statement = Statement {
    name: "sleep",
    sql: "SELECT 1 FROM pg_sleep($1)",
    types: &[Type::FLOAT8],
};

/// Short times, few connections: 3 pooled ones, 2 shared ones and the health check's.
fn settings() -> DatabaseSettings {
    DatabaseSettings {
        max_open_conns: 6,
        max_idle_conns: 3,
        shared_conns: 2,
        // The machine may be busy.
        pool_timeout: SOON,
        connect_timeout: SOON,
        ..DatabaseSettings::default()
    }
}

fn address_with(dsn: &str, settings: &DatabaseSettings) -> crate::Result<Address> {
    Address::parse(
        "context_manager.database.dsn",
        &dsn.into(),
        settings.ca_file.as_deref(),
        settings.connect_timeout,
    )
}

fn endpoint_at(dsn: &str, settings: &DatabaseSettings) -> Arc<Endpoint> {
    let address = address_with(dsn, settings).expect("a DSN of the harness");
    Endpoint::new("test", address, LinkSettings::from(settings), Arc::new(NoWatch)).expect("valid settings")
}

fn endpoint(member: &PgMember, settings: &DatabaseSettings) -> Arc<Endpoint> {
    endpoint_at(&member.dsn(), settings)
}

/// How many connections of ours the server has, and how many of them run something.
fn seen(member: &PgMember) -> (usize, usize) {
    let sql = "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity \
               where application_name = 'contextkeep'";
    let rows = member.sql(sql).expect("the server answers");
    let number = |column: usize| rows[0][column].as_deref().unwrap().parse().unwrap();
    (number(0), number(1))
}

/// Waits until the server has no more connections than the settings allow to rest, and none that is busy.
async fn at_rest(member: &PgMember, most: usize) {
    eventually_async("connections to come to rest", SOON, async || {
        let (all, busy) = seen(member);
        (all <= most && busy == 0).then_some(())
    })
    .await;
}
