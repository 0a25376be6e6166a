//! Changes of heads: each is a transaction that begins by locking the head.

use tokio_postgres::types::Type;

use super::link::{Session, Statement};
use super::rows::{Head, count, get, head_columns, head_of, int, is_there};
use super::streams::{self, Span};
use super::summaries;
use super::transaction::Outcome;
use crate::error::{Error, Invalid, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::store::{Created, SeqRange};
use crate::{Context, ContextPatch, ForkedFrom, NewContext, Seq, Timestamp, Version};

/// Whoever locks a head locks the row of `heads` only: it is what every change changes.
static LOCK: Statement = Statement {
    name: "lock_head",
    sql: concat!(
        "SELECT ",
        head_columns!(),
        " FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
          WHERE c.tenant = $1 AND c.id = $2 AND ",
        is_there!("$3"),
        " FOR UPDATE OF h"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

static HEAD: Statement = Statement {
    name: "head_in_transaction",
    sql: concat!(
        "SELECT ",
        head_columns!(),
        " FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
          WHERE c.tenant = $1 AND c.id = $2 AND ",
        is_there!("$3")
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// The head of a context that is there, locked, if it has the version that the caller expects.
///
/// The row is read twice: a statement that waited for the lock sees the other columns as they were before.
pub(super) async fn lock(
    session: &Session,
    key: &ContextKey,
    expected: Option<Version>,
    now: Timestamp,
) -> Outcome<Head> {
    let (tenant, id, now) = (key.tenant.as_str(), key.id.as_str(), now.as_micros());
    if session.query(&LOCK, &[&tenant, &id, &now]).await?.is_empty() {
        return Err(Error::NotFound.into());
    }
    let rows = session.query(&HEAD, &[&tenant, &id, &now]).await?;
    let head = head_of(rows.first().ok_or(Error::NotFound)?)?;
    check_version(&head, expected)?;
    Ok(head)
}

/// Whether the head has the version that the caller expects.
pub(super) fn check_version(head: &Head, expected: Option<Version>) -> Result<()> {
    match expected {
        Some(expected) if expected != head.context.version => Err(Error::VersionMismatch {
            expected,
            actual: head.context.version,
        }),
        _ => Ok(()),
    }
}

static TAKE_ID: Statement = Statement {
    name: "take_id",
    sql: "INSERT INTO contextkeep.contexts (tenant, id, agent_id, metadata, labels, created_at, deleted_at)
          VALUES ($1, $2, '', '{}', '{}', 0, 0) ON CONFLICT (tenant, id) DO NOTHING RETURNING ctx_no",
    types: &[Type::TEXT, Type::TEXT],
};

static BURIED: Statement = Statement {
    name: "buried",
    sql: concat!(
        "SELECT h.ctx_no, h.version, h.stream_no, h.deleted_at IS NULL, ",
        is_there!("$3"),
        " FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
          WHERE c.tenant = $1 AND c.id = $2 FOR UPDATE OF h"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// Creates a context, or finds the one that is there with the same fields. With a parent, it shares the parent's items
/// up to a seq.
pub(super) async fn create(
    session: &Session,
    tenant: &TenantId,
    new: NewContext,
    now: Timestamp,
    parent: Option<(&Head, Seq)>,
) -> Outcome<Created> {
    let id = new.id.clone().unwrap_or_else(ContextId::generate);
    let key = ContextKey::new(tenant.clone(), id.clone());
    let (tenant, name) = (tenant.as_str(), id.as_str());
    // Two that create the same id wait for each other here; the second one finds the first one's context.
    let taken = session.query(&TAKE_ID, &[&tenant, &name]).await?;
    let mut version = 0;
    let ctx_no = if let Some(row) = taken.first() {
        get(row, 0)?
    } else {
        match lock(session, &key, None, now).await {
            Ok(head) => return found(&new, head),
            Err(super::transaction::Failure::Refused(Error::NotFound)) => {}
            Err(failure) => return Err(failure),
        }
        let rows = session
            .query(&BURIED, &[&tenant, &name, &now.as_micros()])
            .await?;
        // The tombstone was forgotten in this very moment.
        let row = rows.first().ok_or(Error::Unavailable {
            detail: "the id was being forgotten; try again".into(),
            retry_after: super::RETRY_AFTER,
        })?;
        if get(row, 4)? {
            // Somebody else has created it anew since it was found to be missing.
            return found(&new, lock(session, &key, None, now).await?);
        }
        let (ctx_no, stream_no, expired) = (get(row, 0)?, get(row, 2)?, get::<bool>(row, 3)?);
        version = count(row, 1)?;
        // Of a server that knows no summaries yet and deletes during an upgrade.
        summaries::forget(session, ctx_no).await?;
        if expired {
            // It expired without having been swept: a tombstone that nobody has written yet.
            forget_items(session, ctx_no, stream_no).await?;
            version += 1;
        }
        ctx_no
    };
    let mut context = new.into_context(id, now);
    context.version = version + 1;
    let shared = match parent {
        None => Vec::new(),
        Some((parent, at)) => share(session, parent, at, &mut context).await?,
    };
    let stream_no = streams::create(session, ctx_no, &shared, context.next_seq).await?;
    context.stream = stream_no.cast_unsigned();
    let head = Head {
        ctx_no,
        stream_no,
        written_tokens: context.tokens,
        context,
    };
    save(session, &head).await?;
    Ok(Created {
        context: head.context,
        is_new: true,
        parent_stream: parent.map(|(parent, _)| parent.context.stream),
    })
}

pub(super) fn found(new: &NewContext, head: Head) -> Outcome<Created> {
    match new.differs_from(&head.context) {
        Some(field) => Err(Error::ContextDiffers { field }.into()),
        None => Ok(Created {
            context: head.context,
            is_new: false,
            parent_stream: None,
        }),
    }
}

/// Creates a context that shares the items of another one up to `at`.
pub(super) async fn fork(
    session: &Session,
    key: &ContextKey,
    at: Seq,
    new: NewContext,
    now: Timestamp,
) -> Outcome<Created> {
    let parent = lock(session, key, None, now).await?;
    let newest = parent.context.next_seq - 1;
    let at = if at == Seq::MAX { newest } else { at };
    if at > newest {
        return Err(Error::from(Invalid::new(
            "at",
            format!("is {at}; the newest item is {newest}"),
        ))
        .into());
    }
    let new = new.forked_from(&parent.context)?;
    create(session, &key.tenant, new, now, Some((&parent, at))).await
}

/// Gives `context` the parent's items up to `at`.
async fn share(session: &Session, parent: &Head, at: Seq, context: &mut Context) -> Outcome<Vec<Span>> {
    let range = SeqRange {
        first: parent.context.first_seq,
        last: at,
    };
    let shared = streams::spans(session, parent.stream_no, range).await?;
    let sum = streams::sum(session, &shared).await?;
    (context.item_count, context.tokens) = (sum.items, sum.tokens);
    context.next_seq = (at + 1).max(1);
    context.forked_from = Some(ForkedFrom {
        id: parent.context.id.clone(),
        at_seq: at,
    });
    context.first_seq = shared.first().map_or(context.next_seq, |span| span.first);
    Ok(shared)
}

static SAVE_CONTEXT: Statement = Statement {
    name: "save_context",
    sql: "UPDATE contextkeep.contexts
          SET agent_id = $2, session_id = $3, model_id = $4, name = $5, description = $6, metadata = $7, labels = $8,
              created_at = $9, truncation = $10, forked_from = $11, forked_at = $12, deleted_at = NULL
          WHERE ctx_no = $1",
    types: &[
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT_ARRAY,
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
    ],
};

static SAVE_HEAD: Statement = Statement {
    name: "save_head",
    sql: "INSERT INTO contextkeep.heads (ctx_no, version, stream_no, first_seq, next_seq, item_count, tokens,
                                         written_tokens, max_tokens, updated_at, expires_at, tokenizer, deleted_at)
          VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, NULL)
          ON CONFLICT (ctx_no) DO UPDATE SET
              version = excluded.version, stream_no = excluded.stream_no, first_seq = excluded.first_seq,
              next_seq = excluded.next_seq, item_count = excluded.item_count, tokens = excluded.tokens,
              written_tokens = excluded.written_tokens, max_tokens = excluded.max_tokens,
              updated_at = excluded.updated_at, expires_at = excluded.expires_at, tokenizer = excluded.tokenizer,
              deleted_at = NULL",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
    ],
};

static NOTE_CHANGE: Statement = Statement {
    name: "note_change",
    sql: "INSERT INTO contextkeep.changes (ctx_nos, versions, stream_nos, first_seqs, last_seqs, changed_at)
          VALUES (ARRAY[$1], ARRAY[$2], ARRAY[$3], ARRAY[$4], ARRAY[$5], $6)",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ],
};

/// Writes a head with everything, and notes the change.
async fn save(session: &Session, head: &Head) -> Outcome<()> {
    let context = &head.context;
    let parent = context.forked_from.as_ref();
    session
        .execute(
            &SAVE_CONTEXT,
            &[
                &head.ctx_no,
                &context.agent_id,
                &context.session_id,
                &context.model_id,
                &context.name,
                &context.description,
                &context.metadata.as_str(),
                &context.labels,
                &context.created_at.as_micros(),
                &context.truncation.stored(),
                &parent.map(|parent| parent.id.as_str()),
                &parent.map(|parent| int(parent.at_seq)),
            ],
        )
        .await?;
    save_head(session, head, 0).await
}

/// Writes the small part of a head, and notes the change with the number of new items at its end.
pub(super) async fn save_head(session: &Session, head: &Head, new_items: u64) -> Outcome<()> {
    let context = &head.context;
    session
        .execute(
            &SAVE_HEAD,
            &[
                &head.ctx_no,
                &int(context.version),
                &head.stream_no,
                &int(context.first_seq),
                &int(context.next_seq),
                &int(context.item_count),
                &int(context.tokens),
                &int(head.written_tokens),
                &int(context.max_tokens),
                &context.updated_at.as_micros(),
                &context.expires_at.map(Timestamp::as_micros),
                &context.tokenizer.as_str(),
            ],
        )
        .await?;
    let (last, first) = (context.next_seq - 1, context.next_seq - new_items);
    note_change(session, head, SeqRange { first, last }).await
}

async fn note_change(session: &Session, head: &Head, new: SeqRange) -> Outcome<()> {
    session
        .execute(
            &NOTE_CHANGE,
            &[
                &head.ctx_no,
                &int(head.context.version),
                &head.stream_no,
                &int(new.first),
                &int(new.last),
                &head.context.updated_at.as_micros(),
            ],
        )
        .await?;
    Ok(())
}

/// Changes a head.
pub(super) async fn update(
    session: &Session,
    key: &ContextKey,
    patch: &ContextPatch,
    expected: Option<Version>,
    now: Timestamp,
) -> Outcome<Context> {
    let mut head = lock(session, key, expected, now).await?;
    patch.apply(&mut head.context);
    head.context.version += 1;
    head.context.updated_at = now;
    save(session, &head).await?;
    Ok(head.context)
}

/// Deletes a context; answers the tombstone's version.
pub(super) async fn delete(
    session: &Session,
    key: &ContextKey,
    expected: Option<Version>,
    now: Timestamp,
) -> Outcome<Version> {
    let head = lock(session, key, expected, now).await?;
    tombstone(session, head.ctx_no, head.stream_no, now).await?;
    Ok(head.context.version + 1)
}

static TOMBSTONE: Statement = Statement {
    name: "tombstone",
    sql: "WITH c AS (UPDATE contextkeep.contexts
                     SET deleted_at = $2, session_id = NULL, name = NULL, description = NULL, metadata = '{}',
                         labels = '{}', truncation = NULL, forked_from = NULL, forked_at = NULL
                     WHERE ctx_no = $1),
               h AS (UPDATE contextkeep.heads
                     SET version = version + 1, item_count = 0, tokens = 0, updated_at = $2, deleted_at = $2
                     WHERE ctx_no = $1 RETURNING ctx_no, version, stream_no, next_seq)
          INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
          SELECT $2, ARRAY[ctx_no], ARRAY[version], ARRAY[stream_no], ARRAY[next_seq], ARRAY[next_seq - 1] FROM h",
    types: &[Type::INT8, Type::INT8],
};

/// Turns a context into its tombstone: a version and nothing else. The head is locked.
pub(super) async fn tombstone(session: &Session, ctx_no: i64, stream_no: i64, now: Timestamp) -> Outcome<()> {
    session.execute(&TOMBSTONE, &[&ctx_no, &now.as_micros()]).await?;
    forget_items(session, ctx_no, stream_no).await
}

static FORGET_KEYS: Statement = Statement {
    name: "forget_keys",
    sql: "WITH items AS (DELETE FROM contextkeep.item_keys WHERE ctx_no = $1)
          DELETE FROM contextkeep.append_keys WHERE ctx_no = $1",
    types: &[Type::INT8],
};

async fn forget_items(session: &Session, ctx_no: i64, stream_no: i64) -> Outcome<()> {
    streams::release(session, stream_no).await?;
    session.execute(&FORGET_KEYS, &[&ctx_no]).await?;
    summaries::forget(session, ctx_no).await
}

/// Keeps only some ranges: a new stream that points at what stays.
pub(super) async fn rewrite(
    session: &Session,
    key: &ContextKey,
    keep: &[SeqRange],
    expected: Option<Version>,
    now: Timestamp,
) -> Outcome<Context> {
    let mut head = lock(session, key, expected, now).await?;
    let ascending = keep.windows(2).all(|pair| pair[0].last < pair[1].first);
    let there = |range: &SeqRange| range.first <= range.last && range.last < head.context.next_seq;
    if !ascending || !keep.iter().all(there) {
        let problem = "is not made of ascending ranges of items that are there";
        return Err(Error::from(Invalid::new("keep", problem)).into());
    }
    let old = streams::all(session, &head).await?;
    let shared: Vec<Span> = keep
        .iter()
        .flat_map(|range| old.iter().filter_map(|span| span.within(*range)))
        .collect();
    let sum = streams::sum(session, &shared).await?;
    let stream_no = streams::create(session, head.ctx_no, &shared, head.context.next_seq).await?;
    streams::release(session, head.stream_no).await?;
    head.stream_no = stream_no;
    head.context.stream = stream_no.cast_unsigned();
    head.context.first_seq = shared.first().map_or(head.context.next_seq, |span| span.first);
    (head.context.item_count, head.context.tokens) = (sum.items, sum.tokens);
    head.context.version += 1;
    head.context.updated_at = now;
    save_head(session, &head, 0).await?;
    Ok(head.context)
}
