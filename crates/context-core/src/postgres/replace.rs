//! Putting other items in the place of all: a new stream, whose seqs go on where the old one's ended.

use tokio_postgres::types::Type;

use super::append::columns::Columns;
use super::link::{Session, Statement};
use super::rows::{Head, count, get, int};
use super::transaction::Outcome;
use super::{streams, summaries, write};
use crate::Timestamp;
use crate::error::Error;
use crate::id::ContextKey;
use crate::store::{Append, Appended, Idempotency, Replaced};

/// Replaces all items of a context.
pub(super) async fn replace(
    session: &Session,
    key: &ContextKey,
    append: &Append,
    now: Timestamp,
) -> Outcome<Replaced> {
    let mut head = write::lock(session, key, None, now).await?;
    let actual = head.context.tokenizer;
    if actual != append.tokenizer {
        return Err(Error::TokenizerMismatch { actual }.into());
    }
    // A replay comes before the condition: the first try may have been what changed the version.
    if let Some(appended) = replayed(session, &head, append.idempotency.as_ref()).await? {
        return Ok(Replaced { appended, head: None });
    }
    write::check_version(&head, append.expected)?;
    let stream_no = streams::create(session, head.ctx_no, &[], head.context.next_seq).await?;
    streams::release(session, head.stream_no).await?;
    summaries::forget(session, head.ctx_no).await?;
    head.stream_no = stream_no;
    head.context.stream = stream_no.cast_unsigned();
    let appended = refill(&mut head, append, now);
    insert(session, &head, append, &appended, now).await?;
    write::save_head(session, &head, append.items.len() as u64).await?;
    if let Some(idempotency) = &append.idempotency {
        remember(session, &head, idempotency, &appended, now).await?;
    }
    Ok(Replaced {
        appended,
        head: Some(head.context),
    })
}

/// Makes the head that of a context with these items only.
fn refill(head: &mut Head, append: &Append, now: Timestamp) -> Appended {
    let count = append.items.len() as u64;
    let tokens: u64 = append.items.iter().map(|item| u64::from(item.tokens)).sum();
    let context = &mut head.context;
    context.first_seq = context.next_seq;
    context.next_seq += count;
    context.item_count = count;
    context.tokens = tokens;
    context.version += 1;
    context.updated_at = now;
    head.written_tokens += tokens;
    Appended {
        first_seq: context.first_seq,
        last_seq: context.next_seq - 1,
        tokens,
        version: context.version,
        over_budget: context.over_budget(),
        replayed: false,
        at: None,
    }
}

/// Client ids that were used before name the new items from now on. Those of all other items that ever were in the context
/// stay known, so that a late retry adds nothing.
static INSERT: Statement = Statement {
    name: "insert_items",
    sql: "WITH i AS MATERIALIZED (
              SELECT * FROM unnest($6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
                  AS i (seq, total, tokens, role, kind, pinned, kept, importance, client_id, links, body)
          ), k AS (
              INSERT INTO contextkeep.item_keys (ctx_no, stream_no, seq, version, tokens, over_budget, client_id)
              SELECT $1, $2, i.seq, $3, i.tokens, $4, i.client_id FROM i WHERE i.client_id IS NOT NULL
              ON CONFLICT (ctx_no, client_id) DO UPDATE
              SET stream_no = excluded.stream_no, seq = excluded.seq, version = excluded.version,
                  tokens = excluded.tokens, over_budget = excluded.over_budget
          )
          INSERT INTO contextkeep.items (stream_no, seq, total, created_at, importance, tokens, pinned, kept, role, kind,
                                         client_id, links, body)
          SELECT $2, i.seq, i.total, $5, i.importance, i.tokens, i.pinned, i.kept, i.role, i.kind, i.client_id, i.links,
                 i.body
          FROM i",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::INT8,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BOOL_ARRAY,
        Type::BOOL_ARRAY,
        Type::FLOAT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
    ],
};

async fn insert(
    session: &Session,
    head: &Head,
    append: &Append,
    appended: &Appended,
    now: Timestamp,
) -> Outcome<()> {
    let mut columns = Columns::default();
    let (mut seqs, mut totals) = (Vec::new(), Vec::new());
    let mut total = head.written_tokens - appended.tokens;
    for (item, seq) in append.items.iter().zip(appended.first_seq..) {
        total += u64::from(item.tokens);
        seqs.push(int(seq));
        totals.push(int(total));
        columns.push(item)?;
    }
    session
        .execute(
            &INSERT,
            &[
                &head.ctx_no,
                &head.stream_no,
                &int(appended.version),
                &appended.over_budget,
                &now.as_micros(),
                &seqs,
                &totals,
                &columns.tokens,
                &columns.roles,
                &columns.kinds,
                &columns.pinned,
                &columns.kept,
                &columns.importances,
                &columns.client_ids,
                &columns.links,
                &columns.bodies,
            ],
        )
        .await?;
    Ok(())
}

static REPLAYED: Statement = Statement {
    name: "replayed",
    sql: "SELECT fingerprint, first_seq, last_seq, tokens, version, over_budget FROM contextkeep.append_keys
          WHERE ctx_no = $1 AND key = $2",
    types: &[Type::INT8, Type::TEXT],
};

async fn replayed(
    session: &Session,
    head: &Head,
    idempotency: Option<&Idempotency>,
) -> Outcome<Option<Appended>> {
    let Some(idempotency) = idempotency else {
        return Ok(None);
    };
    let rows = session
        .query(&REPLAYED, &[&head.ctx_no, &idempotency.key.as_str()])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    if get::<&[u8]>(row, 0)? != idempotency.fingerprint {
        return Err(Error::IdempotencyKeyReused.into());
    }
    Ok(Some(Appended {
        first_seq: count(row, 1)?,
        last_seq: count(row, 2)?,
        tokens: count(row, 3)?,
        version: count(row, 4)?,
        over_budget: get(row, 5)?,
        replayed: true,
        at: None,
    }))
}

static REMEMBER: Statement = Statement {
    name: "remember",
    sql: "INSERT INTO contextkeep.append_keys (ctx_no, first_seq, last_seq, tokens, version, created_at, over_budget,
                                               key, fingerprint)
          VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::TEXT,
        Type::BYTEA,
    ],
};

async fn remember(
    session: &Session,
    head: &Head,
    idempotency: &Idempotency,
    appended: &Appended,
    now: Timestamp,
) -> Outcome<()> {
    session
        .execute(
            &REMEMBER,
            &[
                &head.ctx_no,
                &int(appended.first_seq),
                &int(appended.last_seq),
                &int(appended.tokens),
                &int(appended.version),
                &now.as_micros(),
                &appended.over_budget,
                &idempotency.key.as_str(),
                &idempotency.fingerprint.as_slice(),
            ],
        )
        .await?;
    Ok(())
}
