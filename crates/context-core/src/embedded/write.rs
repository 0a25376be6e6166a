//! Changes of heads: each runs inside the writer's transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Head, int};
use super::streams::{self, Span};
use super::summaries;
use crate::error::{Error, Invalid, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::store::{Created, SeqRange};
use crate::{Context, ContextPatch, ForkedFrom, NewContext, Seq, Timestamp, Version};

pub(super) fn create(
    connection: &Connection,
    tenant: &TenantId,
    new: NewContext,
    now: Timestamp,
) -> Result<Created> {
    create_with(connection, tenant, new, now, None)
}

/// Creates a context that shares the items of another one up to `at`.
pub(super) fn fork(
    connection: &Connection,
    key: &ContextKey,
    at: Seq,
    new: NewContext,
    now: Timestamp,
) -> Result<Created> {
    let parent = rows::head(connection, key, now)?;
    let at = if at == Seq::MAX {
        parent.context.next_seq - 1
    } else {
        at
    };
    if at >= parent.context.next_seq {
        return Err(Invalid::new(
            "at",
            format!("is {at}; the newest item is {}", parent.context.next_seq - 1),
        )
        .into());
    }
    let new = new.forked_from(&parent.context)?;
    create_with(connection, &key.tenant, new, now, Some((&parent, at)))
}

fn create_with(
    connection: &Connection,
    tenant: &TenantId,
    new: NewContext,
    now: Timestamp,
    parent: Option<(&Head, Seq)>,
) -> Result<Created> {
    let id = new.id.clone().unwrap_or_else(ContextId::generate);
    let key = ContextKey::new(tenant.clone(), id.clone());
    match rows::head(connection, &key, now) {
        Ok(head) => {
            return match new.differs_from(&head.context) {
                Some(field) => Err(Error::ContextDiffers { field }),
                None => Ok(Created {
                    context: head.context,
                    is_new: false,
                    parent_stream: None,
                }),
            };
        }
        Err(Error::NotFound) => {}
        Err(error) => return Err(error),
    }
    let tenant_no = tenant_no(connection, tenant)?;
    // A context that expired without having been swept is a tombstone that nobody has written yet.
    let buried = bury(connection, tenant_no, &id)?;
    let mut context = new.into_context(id, now);
    context.version = buried.as_ref().map_or(0, |(_, version)| *version) + 1;
    let shared = match parent {
        None => Vec::new(),
        Some((parent, at)) => share(connection, parent, at, &mut context)?,
    };
    let ctx_no = insert(connection, tenant_no, buried.map(|(ctx_no, _)| ctx_no), &context)?;
    let stream_no = streams::create(connection, ctx_no, &shared, context.next_seq)?;
    context.stream = stream_no.cast_unsigned();
    let head = Head {
        ctx_no,
        stream_no,
        written_tokens: context.tokens,
        context,
    };
    save_head(connection, &head)?;
    Ok(Created {
        context: head.context,
        is_new: true,
        parent_stream: parent.map(|(parent, _)| parent.context.stream),
    })
}

/// Gives `context` the parent's items up to `at`.
fn share(connection: &Connection, parent: &Head, at: Seq, context: &mut Context) -> Result<Vec<Span>> {
    let range = SeqRange {
        first: parent.context.first_seq,
        last: at,
    };
    let shared = streams::spans(connection, parent.stream_no, range)?;
    let sum = streams::sum(connection, &shared)?;
    (context.item_count, context.tokens) = (sum.items, sum.tokens);
    context.next_seq = (at + 1).max(1);
    context.forked_from = Some(ForkedFrom {
        id: parent.context.id.clone(),
        at_seq: at,
    });
    context.first_seq = shared.first().map_or(context.next_seq, |span| span.first);
    Ok(shared)
}

fn tenant_no(connection: &Connection, tenant: &TenantId) -> Result<i64> {
    if let Some(tenant_no) = rows::tenant_no(connection, tenant)? {
        return Ok(tenant_no);
    }
    connection
        .prepare_cached("INSERT INTO tenants (id) VALUES (?1)")?
        .execute([tenant.as_str()])?;
    Ok(connection.last_insert_rowid())
}

/// Finds what is left of an earlier context of this id, and its last version.
fn bury(connection: &Connection, tenant_no: i64, id: &ContextId) -> Result<Option<(i64, Version)>> {
    let row: Option<(i64, i64, i64, bool)> = connection
        .prepare_cached(
            "SELECT c.ctx_no, h.version, h.stream_no, c.deleted_at IS NULL
             FROM contexts c JOIN heads h USING (ctx_no) WHERE c.tenant_no = ?1 AND c.id = ?2",
        )?
        .query_row(params![tenant_no, id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((ctx_no, version, stream_no, expired)) = row else {
        return Ok(None);
    };
    let mut version = version.cast_unsigned();
    if expired {
        forget_items(connection, ctx_no, stream_no)?;
        version += 1;
    }
    Ok(Some((ctx_no, version)))
}

fn insert(connection: &Connection, tenant_no: i64, ctx_no: Option<i64>, context: &Context) -> Result<i64> {
    let labels =
        serde_json::to_string(&context.labels).map_err(|error| Error::internal(error.to_string()))?;
    connection
        .prepare_cached(
            "INSERT INTO contexts (ctx_no, tenant_no, id, agent_id, session_id, model_id, name, description, metadata,
                                   labels, max_tokens, tokenizer, expires_at, created_at, truncation, forked_from,
                                   forked_at, deleted_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, NULL)
             ON CONFLICT (ctx_no) DO UPDATE SET
                agent_id = excluded.agent_id, session_id = excluded.session_id, model_id = excluded.model_id,
                name = excluded.name, description = excluded.description, metadata = excluded.metadata,
                labels = excluded.labels, max_tokens = excluded.max_tokens, tokenizer = excluded.tokenizer,
                expires_at = excluded.expires_at, created_at = excluded.created_at, truncation = excluded.truncation,
                forked_from = excluded.forked_from, forked_at = excluded.forked_at, deleted_at = NULL",
        )?
        .execute(params![
            ctx_no,
            tenant_no,
            context.id.as_str(),
            context.agent_id,
            context.session_id,
            context.model_id,
            context.name,
            context.description,
            context.metadata.as_str(),
            labels,
            int(context.max_tokens),
            context.tokenizer.as_str(),
            context.expires_at.map(Timestamp::as_micros),
            context.created_at.as_micros(),
            context.truncation.stored(),
            context.forked_from.as_ref().map(|parent| parent.id.as_str()),
            context.forked_from.as_ref().map(|parent| int(parent.at_seq)),
        ])?;
    Ok(ctx_no.unwrap_or_else(|| connection.last_insert_rowid()))
}

/// Writes the small part of a head.
pub(super) fn save_head(connection: &Connection, head: &Head) -> Result<()> {
    let context = &head.context;
    connection
        .prepare_cached(
            "INSERT INTO heads (ctx_no, version, stream_no, first_seq, next_seq, item_count, tokens, written_tokens, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (ctx_no) DO UPDATE SET
                version = excluded.version, stream_no = excluded.stream_no, first_seq = excluded.first_seq,
                next_seq = excluded.next_seq, item_count = excluded.item_count, tokens = excluded.tokens,
                written_tokens = excluded.written_tokens, updated_at = excluded.updated_at",
        )?
        .execute(params![
            head.ctx_no,
            int(context.version),
            head.stream_no,
            int(context.first_seq),
            int(context.next_seq),
            int(context.item_count),
            int(context.tokens),
            int(head.written_tokens),
            context.updated_at.as_micros(),
        ])?;
    Ok(())
}

/// The head, if it has the version that the caller expects.
pub(super) fn expect(
    connection: &Connection,
    key: &ContextKey,
    expected: Option<Version>,
    now: Timestamp,
) -> Result<Head> {
    let head = rows::head(connection, key, now)?;
    check_version(&head, expected)?;
    Ok(head)
}

pub(super) fn check_version(head: &Head, expected: Option<Version>) -> Result<()> {
    match expected {
        Some(expected) if expected != head.context.version => Err(Error::VersionMismatch {
            expected,
            actual: head.context.version,
        }),
        _ => Ok(()),
    }
}

pub(super) fn update(
    connection: &Connection,
    key: &ContextKey,
    patch: &ContextPatch,
    expected: Option<Version>,
    now: Timestamp,
) -> Result<Context> {
    let mut head = expect(connection, key, expected, now)?;
    patch.apply(&mut head.context);
    head.context.version += 1;
    head.context.updated_at = now;
    let tenant_no = tenant_no(connection, &key.tenant)?;
    insert(connection, tenant_no, Some(head.ctx_no), &head.context)?;
    save_head(connection, &head)?;
    Ok(head.context)
}

pub(super) fn delete(
    connection: &Connection,
    key: &ContextKey,
    expected: Option<Version>,
    now: Timestamp,
) -> Result<Version> {
    let head = expect(connection, key, expected, now)?;
    tombstone(connection, head.ctx_no, head.stream_no, now)?;
    Ok(head.context.version + 1)
}

/// Turns a context into its tombstone: a version and nothing else.
pub(super) fn tombstone(connection: &Connection, ctx_no: i64, stream_no: i64, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE contexts SET deleted_at = ?2, session_id = NULL, name = NULL, description = NULL, metadata = '{}',
                                 labels = '[]', truncation = NULL, forked_from = NULL, forked_at = NULL WHERE ctx_no = ?1",
        )?
        .execute(params![ctx_no, now.as_micros()])?;
    connection
        .prepare_cached(
            "UPDATE heads SET version = version + 1, item_count = 0, tokens = 0, updated_at = ?2 WHERE ctx_no = ?1",
        )?
        .execute(params![ctx_no, now.as_micros()])?;
    forget_items(connection, ctx_no, stream_no)
}

fn forget_items(connection: &Connection, ctx_no: i64, stream_no: i64) -> Result<()> {
    streams::release(connection, stream_no)?;
    connection
        .prepare_cached("DELETE FROM item_keys WHERE ctx_no = ?1")?
        .execute([ctx_no])?;
    connection
        .prepare_cached("DELETE FROM append_keys WHERE ctx_no = ?1")?
        .execute([ctx_no])?;
    summaries::forget(connection, ctx_no)
}

/// Keeps only some ranges: a new stream that points at what stays.
pub(super) fn rewrite(
    connection: &Connection,
    key: &ContextKey,
    keep: &[SeqRange],
    expected: Option<Version>,
    now: Timestamp,
) -> Result<Context> {
    let mut head = expect(connection, key, expected, now)?;
    let ascending = keep.windows(2).all(|pair| pair[0].last < pair[1].first);
    if !ascending
        || keep
            .iter()
            .any(|range| range.first > range.last || range.last >= head.context.next_seq)
    {
        return Err(Invalid::new("keep", "is not made of ascending ranges of items that are there").into());
    }
    let old = streams::all(connection, &head)?;
    let shared: Vec<Span> = keep
        .iter()
        .flat_map(|range| old.iter().filter_map(|span| span.within(*range)))
        .collect();
    let sum = streams::sum(connection, &shared)?;
    let stream_no = streams::create(connection, head.ctx_no, &shared, head.context.next_seq)?;
    streams::release(connection, head.stream_no)?;
    head.stream_no = stream_no;
    head.context.stream = stream_no.cast_unsigned();
    head.context.first_seq = shared.first().map_or(head.context.next_seq, |span| span.first);
    (head.context.item_count, head.context.tokens) = (sum.items, sum.tokens);
    head.context.version += 1;
    head.context.updated_at = now;
    save_head(connection, &head)?;
    Ok(head.context)
}
