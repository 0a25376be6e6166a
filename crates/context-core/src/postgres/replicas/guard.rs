//! Floors by position in the log, for reads whose rows carry no version to compare.

#[cfg(test)]
use std::sync::Arc;

#[cfg(test)]
use tokio_postgres::Row;
#[cfg(test)]
use tokio_postgres::types::PgLsn;
use tokio_postgres::types::Type;

#[cfg(test)]
use super::super::link::{Call, Endpoint};
use super::super::link::{Fault, Lsn, Session, Statement};

/// Whether everything up to a position is visible. A server that replays nobody's log has all there is.
static REACHED: Statement = Statement {
    name: "reached",
    sql: "SELECT NOT pg_is_in_recovery() OR COALESCE(pg_last_wal_replay_lsn() >= $1, false)",
    types: &[Type::PG_LSN],
};

/// Where the log ends. Taken **after** a commit, it is a floor for reads that have to see it; taken inside the
/// writing statement it is not, because the commit's own record comes later.
#[cfg(test)]
pub(crate) static WRITTEN: Statement = Statement {
    name: "written",
    sql: "SELECT pg_current_wal_insert_lsn()",
    types: &[],
};

/// The position in the answer to [`WRITTEN`].
#[cfg(test)]
pub(crate) fn written(rows: &[Row]) -> Option<Lsn> {
    let lsn: PgLsn = rows.first()?.try_get(0).ok()?;
    Some(Lsn::from(lsn))
}

/// Whether everything up to a position is visible on a connection's server, for reads that come after it there.
pub(crate) async fn reached(session: &Session, floor: Lsn) -> Result<bool, Fault> {
    let rows = session.query(&REACHED, &[&floor.to_sql()]).await?;
    Ok(rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)))
}

/// Reads on a server only if everything up to `floor` is visible there: `None` if not.
///
/// Two statements in one flush on one connection: the read takes its snapshot after the check has held.
#[cfg(test)]
pub(crate) async fn guarded(
    endpoint: &Arc<Endpoint>,
    floor: Lsn,
    read: Call<'_>,
) -> Result<Option<Vec<Row>>, Fault> {
    let lsn = floor.to_sql();
    let check = Call {
        statement: &REACHED,
        params: &[&lsn],
    };
    let (checked, rows) = endpoint.pair(check, read).await?;
    let reached = checked.first().is_some_and(|row| row.try_get(0).unwrap_or(false));
    Ok(reached.then_some(rows))
}
