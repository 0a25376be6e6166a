//! Retention: what expired becomes a tombstone, what nothing reaches any more is removed, in small batches.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{SEQ_MAX, rid, seq_of};
use super::{index, vectors, write};
use crate::Timestamp;
use crate::error::Result;
use crate::store::{Purged, Retention};

/// One batch. `Purged::more` says whether there is work left.
pub(super) fn purge(connection: &Connection, retention: Retention, now: Timestamp) -> Result<Purged> {
    let mut left = retention.batch;
    let expired = expire(connection, now, left)?;
    left = left.saturating_sub(count(expired));
    let items = unreachable_items(connection, &mut left)?;
    let tombstones = forget_tombstones(connection, retention.tombstones_before, left)?;
    left = left.saturating_sub(count(tombstones));
    let keys = forget_keys(connection, retention.keys_before, left)?;
    left = left.saturating_sub(count(keys));
    let of_models = vectors::forget_models(connection, now, left)?;
    left = left.saturating_sub(count(of_models));
    Ok(Purged {
        expired,
        items,
        tombstones,
        keys,
        more: left == 0,
    })
}

fn count(rows: u64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

fn expire(connection: &Connection, now: Timestamp, limit: u32) -> Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT c.ctx_no, h.stream_no FROM contexts c JOIN heads h USING (ctx_no)
         WHERE c.expires_at <= ?1 AND c.deleted_at IS NULL LIMIT ?2",
    )?;
    let rows = statement.query_map(params![now.as_micros(), limit], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let expired: Vec<(i64, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    for (ctx_no, stream_no) in &expired {
        write::tombstone(connection, *ctx_no, *stream_no, now)?;
    }
    Ok(expired.len() as u64)
}

/// Removes rows of the queued streams that no span covers.
fn unreachable_items(connection: &Connection, left: &mut u32) -> Result<u64> {
    let mut removed = 0;
    while *left > 0 {
        let queued: Option<i64> = connection
            .prepare_cached("SELECT stream_no FROM purge_queue LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let Some(stream_no) = queued else { break };
        let rids = uncovered(connection, stream_no, *left)?;
        for rid in &rids {
            connection
                .prepare_cached("DELETE FROM items WHERE rid = ?1")?
                .execute([rid])?;
            index::forget(connection, *rid)?;
            vectors::forget(connection, *rid)?;
        }
        removed += rids.len() as u64;
        *left -= count(rids.len() as u64);
        if *left > 0 {
            finish(connection, stream_no)?;
            *left -= 1;
        }
    }
    Ok(removed)
}

/// Up to `limit` rows of a stream that no span covers. Walks the gaps between the spans, not the rows.
fn uncovered(connection: &Connection, stream_no: i64, limit: u32) -> Result<Vec<i64>> {
    let mut spans = connection.prepare_cached(
        "SELECT first_seq, last_seq FROM spans WHERE source_no = ?1 ORDER BY first_seq, last_seq",
    )?;
    let covered: Vec<(i64, i64)> = spans
        .query_map([stream_no], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut select = connection
        .prepare_cached("SELECT rid FROM items WHERE rid >= ?1 AND rid <= ?2 ORDER BY rid LIMIT ?3")?;
    let end = rid(stream_no, SEQ_MAX);
    let mut rids: Vec<i64> = Vec::new();
    let mut from = rid(stream_no, 0);
    for (first, last) in covered
        .into_iter()
        .chain([(i64::try_from(SEQ_MAX).unwrap_or(i64::MAX) + 1, i64::MAX)])
    {
        let to = rid(stream_no, 0).saturating_add(first - 1).min(end);
        if from <= to {
            let room = limit - count(rids.len() as u64);
            let rows = select.query_map(params![from, to, room], |row| row.get(0))?;
            rids.extend(rows.collect::<rusqlite::Result<Vec<i64>>>()?);
        }
        if count(rids.len() as u64) >= limit {
            break;
        }
        let after = rid(stream_no, 0).saturating_add(last).saturating_add(1);
        from = from.max(after);
        if seq_of(after) == 0 {
            break;
        }
    }
    Ok(rids)
}

/// The stream has no uncovered rows left. Its own row stays while there are rows or spans.
fn finish(connection: &Connection, stream_no: i64) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM purge_queue WHERE stream_no = ?1")?
        .execute([stream_no])?;
    connection
        .prepare_cached(
            "DELETE FROM streams WHERE stream_no = ?1
               AND NOT EXISTS (SELECT 1 FROM spans WHERE source_no = ?1 OR stream_no = ?1)
               AND NOT EXISTS (SELECT 1 FROM items WHERE rid BETWEEN ?2 AND ?3)",
        )?
        .execute([stream_no, rid(stream_no, 0), rid(stream_no, SEQ_MAX)])?;
    vectors::forget_stream(connection, stream_no)
}

fn forget_tombstones(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let mut select = connection.prepare_cached(
        "SELECT ctx_no FROM contexts c WHERE deleted_at < ?1
           AND NOT EXISTS (SELECT 1 FROM streams s WHERE s.ctx_no = c.ctx_no) LIMIT ?2",
    )?;
    let rows = select.query_map(params![before.as_micros(), limit], |row| row.get(0))?;
    let forgotten: Vec<i64> = rows.collect::<rusqlite::Result<_>>()?;
    for ctx_no in &forgotten {
        connection
            .prepare_cached("DELETE FROM heads WHERE ctx_no = ?1")?
            .execute([ctx_no])?;
        connection
            .prepare_cached("DELETE FROM contexts WHERE ctx_no = ?1")?
            .execute([ctx_no])?;
    }
    Ok(forgotten.len() as u64)
}

fn forget_keys(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM append_keys WHERE (ctx_no, key) IN
               (SELECT ctx_no, key FROM append_keys WHERE created_at < ?1 LIMIT ?2)",
        )?
        .execute(params![before.as_micros(), limit])?;
    Ok(removed as u64)
}
