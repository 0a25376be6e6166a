//! Retention: what expired becomes a tombstone, what nothing reaches any more is removed, in small batches. Several
//! servers may sweep at once: each takes rows that no other one has.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::link::{Session, Statement};
use super::rows::{SEQ_MAX, get};
use super::transaction::Outcome;
use super::{vectors, write};
use crate::Timestamp;
use crate::store::{Purged, Retention};

/// How long the outbox is kept for those who follow it.
const CHANGES_KEPT: Duration = Duration::from_mins(5);

/// One batch. `Purged::more` says whether there is work left.
pub(super) async fn purge(session: &Session, retention: Retention, now: Timestamp) -> Outcome<Purged> {
    let mut left = i64::from(retention.batch);
    let expired = expire(session, now, left).await?;
    left -= expired;
    let items = unreachable_items(session, &mut left).await?;
    let tombstones = affected(
        session
            .execute(
                &TOMBSTONES,
                &[&retention.tombstones_before.as_micros(), &left.max(0)],
            )
            .await?,
    );
    left -= tombstones;
    let keys = affected(
        session
            .execute(&KEYS, &[&retention.keys_before.as_micros(), &left.max(0)])
            .await?,
    );
    left -= keys;
    left -= vectors::forget_models(session, now, left.max(0)).await?;
    let changes_before = now.saturating_sub(CHANGES_KEPT).as_micros();
    left -= changes(session, changes_before, left.max(0)).await?;
    Ok(Purged {
        expired: expired.cast_unsigned(),
        items: items.cast_unsigned(),
        tombstones: tombstones.cast_unsigned(),
        keys: keys.cast_unsigned(),
        more: left <= 0,
    })
}

fn affected(rows: u64) -> i64 {
    super::rows::int(rows)
}

static EXPIRED: Statement = Statement {
    name: "purge_expired",
    sql: "SELECT ctx_no, stream_no FROM contextkeep.heads WHERE expires_at <= $1 AND deleted_at IS NULL
          LIMIT $2 FOR UPDATE SKIP LOCKED",
    types: &[Type::INT8, Type::INT8],
};

async fn expire(session: &Session, now: Timestamp, limit: i64) -> Outcome<i64> {
    let rows = session.query(&EXPIRED, &[&now.as_micros(), &limit]).await?;
    for row in &rows {
        write::tombstone(session, get(row, 0)?, get(row, 1)?, now).await?;
    }
    Ok(i64::try_from(rows.len()).unwrap_or(i64::MAX))
}

static QUEUED: Statement = Statement {
    name: "purge_queued",
    sql: "SELECT stream_no FROM contextkeep.purge_queue LIMIT 1 FOR UPDATE SKIP LOCKED",
    types: &[],
};

static COVERED: Statement = Statement {
    name: "purge_covered",
    sql: "SELECT first_seq, last_seq FROM contextkeep.spans WHERE source_no = $1 ORDER BY first_seq, last_seq",
    types: &[Type::INT8],
};

static REMOVE: Statement = Statement {
    name: "purge_items",
    sql: "WITH gone AS (
              DELETE FROM contextkeep.items WHERE stream_no = $1 AND seq = ANY (ARRAY(
                  SELECT seq FROM contextkeep.items WHERE stream_no = $1 AND seq >= $2 AND seq <= $3
                  ORDER BY seq LIMIT $4))
              RETURNING stream_no, seq
          ), words AS (
              DELETE FROM contextkeep.words w USING gone g WHERE w.stream_no = g.stream_no AND w.seq = g.seq
          )
          SELECT count(*) FROM gone",
    types: &[Type::INT8, Type::INT8, Type::INT8, Type::INT8],
};

static FINISH: Statement = Statement {
    name: "purge_finish",
    sql: "WITH done AS (DELETE FROM contextkeep.purge_queue WHERE stream_no = $1)
          DELETE FROM contextkeep.streams s WHERE s.stream_no = $1
            AND NOT EXISTS (SELECT 1 FROM contextkeep.spans p WHERE p.source_no = $1)
            AND NOT EXISTS (SELECT 1 FROM contextkeep.spans p WHERE p.stream_no = $1)",
    types: &[Type::INT8],
};

/// Removes rows of the queued streams that no span covers. Walks the gaps between the spans, not the rows.
async fn unreachable_items(session: &Session, left: &mut i64) -> Outcome<i64> {
    let mut removed = 0;
    while *left > 0 {
        let queued = session.query(&QUEUED, &[]).await?;
        let Some(queued) = queued.first() else { break };
        let stream_no: i64 = get(queued, 0)?;
        vectors::hold(session, stream_no).await?;
        let mut gap_first = 0;
        let covered = session.query(&COVERED, &[&stream_no]).await?;
        let mut spans = Vec::with_capacity(covered.len() + 1);
        for row in &covered {
            spans.push((get::<i64>(row, 0)?, get::<i64>(row, 1)?));
        }
        spans.push((SEQ_MAX, SEQ_MAX));
        for (first, last) in spans {
            if gap_first < first && *left > 0 {
                let rows = session
                    .query(&REMOVE, &[&stream_no, &gap_first, &(first - 1), &*left])
                    .await?;
                let gone: i64 = rows.first().map_or(Ok(0), |row| get(row, 0))?;
                vectors::forget(session, stream_no, gap_first, first - 1).await?;
                *left -= gone;
                removed += gone;
            }
            gap_first = gap_first.max(last.saturating_add(1));
        }
        if *left > 0 {
            session.execute(&FINISH, &[&stream_no]).await?;
            vectors::forget_stream(session, stream_no).await?;
            *left -= 1;
        }
    }
    Ok(removed)
}

/// A tombstone stays as long as a stream of its context has rows.
static TOMBSTONES: Statement = Statement {
    name: "purge_tombstones",
    sql: "WITH gone AS (
              DELETE FROM contextkeep.contexts WHERE ctx_no = ANY (ARRAY(
                  SELECT c.ctx_no FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
                  WHERE c.deleted_at < $1 AND h.deleted_at < $1
                    AND NOT EXISTS (SELECT 1 FROM contextkeep.streams s WHERE s.ctx_no = c.ctx_no)
                  LIMIT $2 FOR UPDATE OF c, h SKIP LOCKED))
              RETURNING ctx_no)
          DELETE FROM contextkeep.heads h USING gone g WHERE h.ctx_no = g.ctx_no",
    types: &[Type::INT8, Type::INT8],
};

static KEYS: Statement = Statement {
    name: "purge_keys",
    sql: "DELETE FROM contextkeep.append_keys WHERE (ctx_no, key) IN (
              SELECT ctx_no, key FROM contextkeep.append_keys WHERE created_at < $1
              LIMIT $2 FOR UPDATE SKIP LOCKED)",
    types: &[Type::INT8, Type::INT8],
};

/// Rows of the outbox that are indexed and older than [`CHANGES_KEPT`].
static CHANGES: Statement = Statement {
    name: "purge_changes",
    sql: "WITH gone AS (
              DELETE FROM contextkeep.changes WHERE (xid, change_no) IN (
                  SELECT c.xid, c.change_no FROM contextkeep.changes c, contextkeep.indexing i
                  WHERE (c.xid, c.change_no) <= (i.xid, i.change_no) AND c.changed_at < $1
                  ORDER BY c.xid, c.change_no LIMIT $2)
              RETURNING xid, change_no
          )
          SELECT count(*) OVER (), xid::text, change_no FROM gone ORDER BY gone.xid DESC, change_no DESC LIMIT 1",
    types: &[Type::INT8, Type::INT8],
};

/// A statement of its own: were it part of the other one, Postgres could not look again at a row that the relay has just
/// changed.
static OVERTAKEN: Statement = Statement {
    name: "purge_overtaken",
    sql: "UPDATE contextkeep.relaying SET overtaken = true
          WHERE NOT overtaken AND (xid, change_no) < ($1::text::xid8, $2)",
    types: &[Type::TEXT, Type::INT8],
};

/// Nobody waits for the relay, which may be none: it learns that it was overtaken.
async fn changes(session: &Session, before: i64, limit: i64) -> Outcome<i64> {
    let gone = session.query(&CHANGES, &[&before, &limit]).await?;
    let Some(last) = gone.first() else {
        return Ok(0);
    };
    let place: (String, i64) = (get(last, 1)?, get(last, 2)?);
    session.execute(&OVERTAKEN, &[&place.0, &place.1]).await?;
    Ok(get(last, 0)?)
}
