//! Summaries.

use rusqlite::{Connection, Row, params};

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
         WHERE ctx_no = ?1 ORDER BY kind = 'external', kind = 'model', first_seq, last_seq",
    )?;
    let rows = statement.query_map([head.ctx_no], summary_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The summaries of exactly this range, by kind.
pub(super) fn of(
    connection: &Connection,
    key: &ContextKey,
    range: SeqRange,
    now: Timestamp,
) -> Result<Vec<Summary>> {
    let head = rows::head(connection, key, now)?;
    found(connection, head.ctx_no, range)
}

fn found(connection: &Connection, ctx_no: i64, range: SeqRange) -> Result<Vec<Summary>> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, first_seq, last_seq, created_at, tokens, source, text FROM summaries
         WHERE ctx_no = ?1 AND kind IN ('extractive', 'model', 'external') AND first_seq = ?2 AND last_seq = ?3
         ORDER BY kind = 'external', kind = 'model'",
    )?;
    let rows = statement.query_map(params![ctx_no, int(range.first), int(range.last)], summary_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn summary_of(row: &Row<'_>) -> rusqlite::Result<Summary> {
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
}

/// Writes a summary, unless there is one of this kind and range or the context has another stream.
pub(super) fn keep(
    connection: &Connection,
    key: &ContextKey,
    summary: Summary,
    stream: u64,
    now: Timestamp,
) -> Result<Option<Summary>> {
    let head = write::expect(connection, key, None, now)?;
    if head.context.stream != stream {
        return Ok(None);
    }
    let there = found(connection, head.ctx_no, summary.range)?;
    match there.into_iter().find(|there| there.kind == summary.kind) {
        Some(there) => Ok(Some(there)),
        None => put(connection, key, summary, now).map(Some),
    }
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
