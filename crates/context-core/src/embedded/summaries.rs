//! Summaries.

use rusqlite::{Connection, params};

use super::rows::{self, bad_column, int};
use super::write;
use crate::Timestamp;
use crate::error::Result;
use crate::id::ContextKey;
use crate::store::SeqRange;
use crate::summary::{Kind, PER_CONTEXT_MAX, Summary};

/// All summaries of a context, by kind and range.
pub(super) fn all(connection: &Connection, key: &ContextKey, now: Timestamp) -> Result<Vec<Summary>> {
    let head = rows::head(connection, key, now)?;
    let mut statement = connection.prepare_cached(
        "SELECT kind, first_seq, last_seq, created_at, tokens, source, text FROM summaries
         WHERE ctx_no = ?1 ORDER BY kind = 'external', first_seq, last_seq",
    )?;
    let rows = statement.query_map([head.ctx_no], |row| {
        let kind: String = row.get(0)?;
        Ok(Summary {
            kind: Kind::parse(&kind).ok_or_else(|| bad_column(0, format!("kind {kind:?}")))?,
            range: SeqRange {
                first: row.get::<_, i64>(1)?.cast_unsigned(),
                last: row.get::<_, i64>(2)?.cast_unsigned(),
            },
            created_at: Timestamp::from_micros(row.get(3)?),
            tokens: row.get(4)?,
            source: row.get(5)?,
            text: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes a summary in the place of the one of this kind and range, and lets the oldest go when there are too many.
pub(super) fn put(
    connection: &Connection,
    key: &ContextKey,
    summary: Summary,
    now: Timestamp,
) -> Result<Summary> {
    let head = write::expect(connection, key, None, now)?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO summaries (ctx_no, kind, first_seq, last_seq, created_at, tokens, source, text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            head.ctx_no,
            summary.kind.as_str(),
            int(summary.range.first),
            int(summary.range.last),
            summary.created_at.as_micros(),
            summary.tokens,
            summary.source,
            summary.text,
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM summaries WHERE (ctx_no, kind, first_seq, last_seq) IN
               (SELECT ctx_no, kind, first_seq, last_seq FROM summaries WHERE ctx_no = ?1
                ORDER BY created_at DESC, last_seq DESC, first_seq DESC, kind DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![head.ctx_no, int(PER_CONTEXT_MAX as u64)])?;
    Ok(summary)
}

/// Removes all summaries of a context.
pub(super) fn forget(connection: &Connection, ctx_no: i64) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM summaries WHERE ctx_no = ?1")?
        .execute([ctx_no])?;
    Ok(())
}
