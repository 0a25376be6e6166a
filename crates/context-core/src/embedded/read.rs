//! Reads. Each runs inside one read transaction, so that a head and its items are of the same moment.

use rusqlite::types::ToSql;
use rusqlite::{Connection, params};

use super::rows::{self, HEAD_COLUMNS, Head, ITEM_COLUMNS, head_of, int, item_of};
use super::streams::{self, Span};
use crate::error::{Error, Result};
use crate::id::{ContextKey, TenantId};
use crate::store::{ContextPage, ItemPage, ItemQuery, ListQuery, Order, SeqRange, Tail, TailQuery};
use crate::{Context, Item, Timestamp};

/// The heads of these contexts that are there, in their order.
pub(super) fn heads(
    connection: &Connection,
    keys: &[ContextKey],
    now: Timestamp,
) -> Result<Vec<Option<Context>>> {
    keys.iter()
        .map(|key| match rows::head(connection, key, now) {
            Ok(head) => Ok(Some(head.context)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        })
        .collect()
}

pub(super) fn items(
    connection: &Connection,
    key: &ContextKey,
    query: ItemQuery,
    now: Timestamp,
) -> Result<ItemPage> {
    let head = rows::head(connection, key, now)?;
    let range = SeqRange {
        first: head.context.first_seq.max(query.after.saturating_add(1)),
        last: (head.context.next_seq - 1).min(query.before.saturating_sub(1)),
    };
    let mut page = ItemPage {
        version: head.context.version,
        items: Vec::new(),
        more: false,
    };
    let mut bytes = 0;
    each_item(connection, &head, range, query.order, |item| {
        bytes += item.body.len() as u64;
        let full =
            page.items.len() >= query.limit as usize || (bytes > query.bytes_max && !page.items.is_empty());
        if full {
            page.more = true;
        } else {
            page.items.push(item);
        }
        !full
    })?;
    Ok(page)
}

pub(super) fn tail(
    connection: &Connection,
    key: &ContextKey,
    query: TailQuery,
    now: Timestamp,
) -> Result<Tail> {
    let head = rows::head(connection, key, now)?;
    let tokens_max = query.tokens_max(&head.context);
    let range = SeqRange {
        first: head.context.first_seq,
        last: head.context.next_seq - 1,
    };
    let mut run = Vec::new();
    let (mut tokens, mut bytes) = (0, 0);
    let mut before_run = None;
    if head.context.item_count > 0 {
        each_item(connection, &head, range, Order::Descending, |item| {
            tokens += u64::from(item.tokens);
            bytes += item.body.len() as u64;
            let fits =
                tokens <= tokens_max && bytes <= query.bytes_max && run.len() < query.items_max as usize;
            if fits {
                run.push(item);
            } else {
                before_run = Some(item.traits.kind);
            }
            fits
        })?;
    }
    run.reverse();
    let before = run.first().map_or(range.last, |item: &Item| item.seq - 1);
    let kept = kept_items(
        connection,
        &head,
        SeqRange {
            first: range.first,
            last: before,
        },
        query,
    )?;
    Ok(Tail {
        context: head.context,
        kept,
        run,
        before: before_run,
    })
}

/// Calls `take` with each item of a range until it says false.
fn each_item(
    connection: &Connection,
    head: &Head,
    range: SeqRange,
    order: Order,
    mut take: impl FnMut(Item) -> bool,
) -> Result<()> {
    if range.first > range.last {
        return Ok(());
    }
    let mut spans = streams::spans(connection, head.stream_no, range)?;
    let direction = match order {
        Order::Ascending => "ASC",
        Order::Descending => {
            spans.reverse();
            "DESC"
        }
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {ITEM_COLUMNS} FROM items i WHERE i.rid BETWEEN ?1 AND ?2 ORDER BY i.rid {direction}"
    ))?;
    for span in spans {
        let (first, last) = span.rids();
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            if !take(item_of(row)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Instructions and pinned items of a range, oldest first.
fn kept_items(connection: &Connection, head: &Head, range: SeqRange, query: TailQuery) -> Result<Vec<Item>> {
    if range.first > range.last {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {ITEM_COLUMNS} FROM items i INDEXED BY items_kept
         WHERE i.kept = 1 AND i.rid BETWEEN ?1 AND ?2 ORDER BY i.rid LIMIT ?3"
    ))?;
    let (mut kept, mut bytes) = (Vec::new(), 0);
    for span in streams::spans(connection, head.stream_no, range)? {
        let (first, last) = Span::rids(span);
        let left = (query.items_max as usize).saturating_sub(kept.len());
        let rows = statement.query_map(
            params![first, last, i64::try_from(left).unwrap_or(i64::MAX)],
            item_of,
        )?;
        for item in rows {
            let item: Item = item?;
            bytes += item.body.len() as u64;
            if bytes > query.bytes_max {
                return Err(query.kept_too_large(bytes));
            }
            kept.push(item);
        }
    }
    Ok(kept)
}

pub(super) fn list(
    connection: &Connection,
    tenant: &TenantId,
    query: &ListQuery,
    now: Timestamp,
) -> Result<ContextPage> {
    let Some(tenant_no) = rows::tenant_no(connection, tenant)? else {
        return Ok(ContextPage {
            contexts: Vec::new(),
            more: false,
        });
    };
    let mut sql = format!(
        "SELECT {HEAD_COLUMNS} FROM contexts c JOIN heads h USING (ctx_no)
         WHERE c.tenant_no = ? AND c.deleted_at IS NULL AND (c.expires_at IS NULL OR c.expires_at > ?)"
    );
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(tenant_no), Box::new(now.as_micros())];
    if let Some(agent_id) = &query.agent_id {
        sql.push_str(" AND c.agent_id = ?");
        values.push(Box::new(agent_id.clone()));
    }
    if let Some(session_id) = &query.session_id {
        sql.push_str(" AND c.session_id = ?");
        values.push(Box::new(session_id.clone()));
    }
    if let Some(parent) = &query.forked_from {
        sql.push_str(" AND c.forked_from = ?");
        values.push(Box::new(parent.as_str().to_owned()));
    }
    for label in &query.labels {
        sql.push_str(" AND EXISTS (SELECT 1 FROM json_each(c.labels) WHERE value = ?)");
        values.push(Box::new(label.clone()));
    }
    if let Some(after) = &query.after {
        sql.push_str(" AND (c.created_at, c.id) < (?, ?)");
        values.push(Box::new(after.created_at.as_micros()));
        values.push(Box::new(after.id.as_str().to_owned()));
    }
    sql.push_str(" ORDER BY c.created_at DESC, c.id DESC LIMIT ?");
    values.push(Box::new(int(u64::from(query.limit) + 1)));

    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), head_of)?;
    let mut contexts = rows.map(|head| Ok(head?.context)).collect::<Result<Vec<_>>>()?;
    let more = contexts.len() > query.limit as usize;
    contexts.truncate(query.limit as usize);
    Ok(ContextPage { contexts, more })
}
