//! Deletes of several contexts in one statement, each with its own outcome.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::link::{Session, Statement};
use super::rows::{count, get, int};
use super::transaction::Outcome;
use crate::error::{Error, Result};
use crate::id::{ContextId, TenantId};
use crate::settings::Durability;
use crate::{Timestamp, Version};

static DELETE_MANY: Statement = Statement {
    name: "delete_many",
    sql: "SELECT outcome, version FROM contextkeep.delete_many_v2($1, $2, $3, $4, $5) ORDER BY ord",
    types: &[
        Type::TEXT,
        Type::TEXT,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8,
    ],
};

/// Deletes contexts; answers the version of each tombstone, in the order of `deletes`.
pub(super) async fn delete_many(
    session: &Session,
    tenant: &TenantId,
    deletes: &[(ContextId, Option<Version>)],
    now: Timestamp,
    durability: Durability,
) -> Outcome<Vec<Result<Version>>> {
    let ids: Vec<&str> = deletes.iter().map(|(id, _)| id.as_str()).collect();
    let expected: Vec<Option<i64>> = deletes.iter().map(|(_, expected)| expected.map(int)).collect();
    let params: [&(dyn ToSql + Sync); 5] = [
        &durability.synchronous_commit(),
        &tenant.as_str(),
        &ids,
        &expected,
        &now.as_micros(),
    ];
    let rows = session.query(&DELETE_MANY, &params).await?;
    if rows.len() != deletes.len() {
        return Err(Error::internal("not every delete has an outcome").into());
    }
    let outcomes = deletes.iter().zip(&rows);
    Ok(outcomes
        .map(|((_, expected), row)| decided(*expected, row))
        .collect())
}

fn decided(expected: Option<Version>, row: &Row) -> Result<Version> {
    match get(row, 0)? {
        "deleted" => count(row, 1),
        "missing" => Err(Error::NotFound),
        "version" => Err(Error::VersionMismatch {
            expected: expected.unwrap_or_default(),
            actual: count(row, 1)?,
        }),
        other => Err(Error::internal(format!("delete_many_v2 answered {other:?}"))),
    }
}
