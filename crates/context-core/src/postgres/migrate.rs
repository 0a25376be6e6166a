//! The schema: brought up to date under a lock, so that any number of servers may start at once.

use std::time::Duration;

use tokio_postgres::Client;

use super::link::Fault;
use crate::error::{Error, Result};

/// Of the history of migrations. It stands in our schema, which is made before it.
const HISTORY: &str = "contextkeep.schema_history";

/// Named after nothing but us: the advisory lock that migrations hold.
const LOCK: i64 = 0x636f_6e74_6b65_6570;

/// Longest wait for another server that migrates.
const LOCK_TIMEOUT: Duration = Duration::from_mins(1);

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// The version of the schema that this program works with.
pub(super) fn version() -> i64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0)
}

/// Brings the schema up to date. `holder` keeps the lock in a transaction, which works through a pooler as well;
/// `client` migrates.
///
/// # Errors
/// `Unavailable` if another server migrates for longer than a minute; `Internal` with Postgres' words if a migration
/// fails, which leaves the schema as it was before it; [`check`]'s if the schema is newer.
pub(super) async fn migrate(holder: &Client, client: &mut Client) -> Result<i64> {
    let lock = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = 0;
         SELECT pg_advisory_xact_lock({LOCK})",
        LOCK_TIMEOUT.as_millis()
    );
    holder.batch_execute(&lock).await.map_err(Fault::from)?;
    let outcome = migrate_alone(client).await;
    // The lock ends with the transaction, which ends with the connection at the latest.
    drop(holder.batch_execute("COMMIT").await);
    outcome
}

async fn migrate_alone(client: &mut Client) -> Result<i64> {
    if let Some(there) = applied(client).await? {
        refuse_newer(there)?;
        if there == version() {
            return Ok(there);
        }
    }
    client
        .batch_execute("CREATE SCHEMA IF NOT EXISTS contextkeep")
        .await
        .map_err(Fault::from)?;
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    let report = runner.run_async(client).await.map_err(|error| {
        Error::internal(format!(
            "a migration of the Postgres schema failed; what it did was rolled back: {error}"
        ))
    })?;
    for migration in report.applied_migrations() {
        tracing::info!(migration = %migration, "migrated");
    }
    Ok(version())
}

/// Checks that the schema is the one that this program works with.
///
/// # Errors
/// `Unavailable` with what to do if it is missing, older or newer.
pub(super) async fn check(client: &Client) -> Result<()> {
    match applied(client).await? {
        Some(there) if there == version() => Ok(()),
        Some(there) => {
            refuse_newer(there)?;
            Err(outdated(&format!(
                "the schema in the database is at version {there}, this program needs {}",
                version()
            )))
        }
        None => Err(outdated("the database has no schema of ours yet")),
    }
}

fn outdated(what: &str) -> Error {
    Error::Unavailable {
        detail: format!("{what}; run `contextkeep migrate`, or set context_manager.database.migrate to true"),
        retry_after: super::RETRY_AFTER,
    }
}

fn refuse_newer(there: i64) -> Result<()> {
    if there > version() {
        return Err(Error::Unavailable {
            detail: format!(
                "the schema in the database is at version {there}, this program knows {} and would damage it; start the \
                 newer program, or restore a backup from before its migration",
                version()
            ),
            retry_after: super::RETRY_AFTER,
        });
    }
    Ok(())
}

/// The newest migration that was applied, if any was.
async fn applied(client: &Client) -> Result<Option<i64>> {
    let there = client
        .query_typed(
            "SELECT to_regclass($1) IS NOT NULL",
            &[(&HISTORY, tokio_postgres::types::Type::TEXT)],
        )
        .await
        .map_err(Fault::from)?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let rows = client
        .query_typed("SELECT max(version)::bigint FROM contextkeep.schema_history", &[])
        .await
        .map_err(Fault::from)?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A migration that is changed is refused by every database that has it: what is there is changed by a later one.
    #[test]
    fn migrations_that_databases_have_are_not_changed() {
        let migrations = embedded::migrations::runner();
        let mut checksums: Vec<_> = migrations
            .get_migrations()
            .iter()
            .map(|migration| (migration.version(), migration.checksum()))
            .collect();
        checksums.sort_unstable();
        assert_eq!(
            checksums,
            [
                (1, 2_809_360_464_057_881_794),
                (2, 16_079_403_116_455_628_690),
                (3, 10_470_891_069_526_043_037),
                (4, 7_552_314_526_581_078_170),
                (5, 16_292_746_775_200_247_837),
                (6, 867_573_979_647_048_976),
                (7, 12_218_632_955_543_042_652),
                (8, 5_238_441_435_960_359_362),
                (9, 14_543_212_170_200_488_939),
                (10, 9_282_609_201_324_470_429),
            ]
        );
    }
}
