//! Summaries.

use std::sync::Arc;

use tokio_postgres::types::Type;

use super::link::{Endpoint, Session, Statement};
use super::read::Read;
use super::rows::{count, get, int, is_there};
use super::transaction::Outcome;
use super::write;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::store::SeqRange;
use crate::summary::{Kind, PER_CONTEXT_MAX, Summary};
use crate::{Timestamp, Version};

/// The version in each row; one row without a summary if there is none.
static ALL: Statement = Statement {
    name: "summaries",
    sql: concat!(
        "SELECT h.version, s.kind, s.first_seq, s.last_seq, s.created_at, s.tokens, s.source, s.text
         FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
         LEFT JOIN contextkeep.summaries s USING (ctx_no)
         WHERE c.tenant = $1 AND c.id = $2 AND ",
        is_there!("$3"),
        " ORDER BY s.kind = 'external', s.kind = 'model', s.first_seq, s.last_seq"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// As above, of one range; the kinds are named so that each is one lookup in the key.
static OF: Statement = Statement {
    name: "summaries_of",
    sql: concat!(
        "SELECT h.version, s.kind, s.first_seq, s.last_seq, s.created_at, s.tokens, s.source, s.text
         FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
         LEFT JOIN contextkeep.summaries s ON s.ctx_no = c.ctx_no AND s.first_seq = $4 AND s.last_seq = $5
             AND s.kind IN ('extractive', 'model', 'external')
         WHERE c.tenant = $1 AND c.id = $2 AND ",
        is_there!("$3"),
        " ORDER BY s.kind = 'external', s.kind = 'model'"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::INT8],
};

/// All summaries of a context, by kind and range, and the version that it has.
pub(super) async fn all(
    endpoint: Arc<Endpoint>,
    key: &ContextKey,
    now: Timestamp,
) -> Read<(Version, Vec<Summary>)> {
    let rows = endpoint
        .query(&ALL, &[&key.tenant.as_str(), &key.id.as_str(), &now.as_micros()])
        .await?;
    Ok(summaries_of(&rows))
}

/// The summaries of exactly this range, by kind, and the version that the context has.
pub(super) async fn of(
    endpoint: Arc<Endpoint>,
    key: &ContextKey,
    range: SeqRange,
    now: Timestamp,
) -> Read<(Version, Vec<Summary>)> {
    let (tenant, id, now) = (key.tenant.as_str(), key.id.as_str(), now.as_micros());
    let rows = endpoint
        .query(&OF, &[&tenant, &id, &now, &int(range.first), &int(range.last)])
        .await?;
    Ok(summaries_of(&rows))
}

fn summaries_of(rows: &[tokio_postgres::Row]) -> Result<(Version, Vec<Summary>)> {
    let version = count(rows.first().ok_or(Error::NotFound)?, 0)?;
    let mut summaries = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(kind) = get::<Option<&str>>(row, 1)? else {
            continue;
        };
        let damaged = |what: String| Error::StorageDamaged {
            detail: format!("a summary has {what}"),
        };
        summaries.push(Summary {
            kind: Kind::parse(kind).ok_or_else(|| damaged(format!("the kind {kind:?}")))?,
            range: SeqRange {
                first: count(row, 2)?,
                last: count(row, 3)?,
            },
            created_at: Timestamp::from_micros(get(row, 4)?),
            tokens: u32::try_from(count(row, 5)?).unwrap_or(u32::MAX),
            source: <[u8; 32]>::try_from(get::<&[u8]>(row, 6)?)
                .map_err(|_| damaged("a hash of another length".to_owned()))?,
            text: get(row, 7)?,
        });
    }
    Ok((version, summaries))
}

static PUT: Statement = Statement {
    name: "put_summary",
    sql: "INSERT INTO contextkeep.summaries (ctx_no, kind, first_seq, last_seq, created_at, tokens, source, text)
          VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
          ON CONFLICT (ctx_no, kind, first_seq, last_seq) DO UPDATE SET
              created_at = excluded.created_at, tokens = excluded.tokens, source = excluded.source,
              text = excluded.text",
    types: &[
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BYTEA,
        Type::TEXT,
    ],
};

static MAKE_ROOM: Statement = Statement {
    name: "make_room_for_summaries",
    sql: "DELETE FROM contextkeep.summaries WHERE (ctx_no, kind, first_seq, last_seq) IN (
              SELECT ctx_no, kind, first_seq, last_seq FROM contextkeep.summaries WHERE ctx_no = $1
              ORDER BY created_at DESC, last_seq DESC, first_seq DESC, kind DESC OFFSET $2)",
    types: &[Type::INT8, Type::INT8],
};

/// Writes a summary in the place of the one of this kind and range, and lets the oldest go when there are too many.
pub(super) async fn put(
    session: &Session,
    key: &ContextKey,
    summary: &Summary,
    now: Timestamp,
) -> Outcome<()> {
    let head = write::lock(session, key, None, now).await?;
    put_into(session, head.ctx_no, summary).await
}

/// Writes a summary, unless there is one of this kind and range or the context has another stream. The lock on the head
/// keeps two of them apart.
pub(super) async fn keep(
    session: &Session,
    key: &ContextKey,
    summary: &Summary,
    stream: u64,
    now: Timestamp,
) -> Outcome<Option<Summary>> {
    let head = write::lock(session, key, None, now).await?;
    if head.context.stream != stream {
        return Ok(None);
    }
    let (tenant, id, now) = (key.tenant.as_str(), key.id.as_str(), now.as_micros());
    let range = summary.range;
    let rows = session
        .query(&OF, &[&tenant, &id, &now, &int(range.first), &int(range.last)])
        .await?;
    let (_, there) = summaries_of(&rows)?;
    if let Some(there) = there.into_iter().find(|there| there.kind == summary.kind) {
        return Ok(Some(there));
    }
    put_into(session, head.ctx_no, summary).await?;
    Ok(Some(summary.clone()))
}

async fn put_into(session: &Session, ctx_no: i64, summary: &Summary) -> Outcome<()> {
    session
        .execute(
            &PUT,
            &[
                &ctx_no,
                &summary.kind.as_str(),
                &int(summary.range.first),
                &int(summary.range.last),
                &summary.created_at.as_micros(),
                &i64::from(summary.tokens),
                &summary.source.as_slice(),
                &summary.text,
            ],
        )
        .await?;
    session
        .execute(&MAKE_ROOM, &[&ctx_no, &int(PER_CONTEXT_MAX as u64)])
        .await?;
    Ok(())
}

static FORGET: Statement = Statement {
    name: "forget_summaries",
    sql: "DELETE FROM contextkeep.summaries WHERE ctx_no = $1",
    types: &[Type::INT8],
};

/// Removes all summaries of a context.
pub(super) async fn forget(session: &Session, ctx_no: i64) -> Outcome<()> {
    session.execute(&FORGET, &[&ctx_no]).await?;
    Ok(())
}
