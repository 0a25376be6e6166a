//! Reads of heads and items: each one statement, and so one moment and one round trip.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::link::{Endpoint, Fault, Session, Statement};
use super::rows::{HEAD_WIDTH, Head, count, get, head_columns, head_of, int, is_there, item_of};
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::item::Kind;
use crate::store::{ContextPage, ItemPage, ItemQuery, ListQuery, Order, Tail, TailQuery};
use crate::{Context, Timestamp};

pub(super) static HEAD: Statement = Statement {
    name: "head",
    sql: concat!(
        "SELECT ",
        head_columns!(),
        " FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
          WHERE c.tenant = $1 AND c.id = $2 AND ",
        is_there!("$3")
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// What a server answered, or why it did not: the one is for the caller, the other for whoever chose the server.
pub(super) type Read<T> = Result<Result<T>, Fault>;

pub(super) async fn head(endpoint: Arc<Endpoint>, key: &ContextKey, now: Timestamp) -> Read<Context> {
    let rows = endpoint
        .query(&HEAD, &[&key.tenant.as_str(), &key.id.as_str(), &now.as_micros()])
        .await?;
    let head = rows.first().ok_or(Error::NotFound).and_then(head_of);
    Ok(head.map(|head| head.context))
}

pub(super) static HEADS: Statement = Statement {
    name: "heads",
    sql: concat!(
        "SELECT ",
        head_columns!(),
        " FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
          WHERE c.tenant = $1 AND c.id = ANY ($2) AND ",
        is_there!("$3")
    ),
    types: &[Type::TEXT, Type::TEXT_ARRAY, Type::INT8],
};

/// The heads of these contexts that are there, in the order of `ids`.
pub(super) async fn heads(
    session: &Session,
    tenant: &TenantId,
    ids: &[ContextId],
    now: Timestamp,
) -> Read<Vec<Option<Context>>> {
    let names: Vec<&str> = ids.iter().map(ContextId::as_str).collect();
    let rows = session
        .query(&HEADS, &[&tenant.as_str(), &names, &now.as_micros()])
        .await?;
    let found: Result<HashMap<ContextId, Context>> = rows
        .iter()
        .map(|row| head_of(row).map(|head| (head.context.id.clone(), head.context)))
        .collect();
    Ok(found.map(|found| ids.iter().map(|id| found.get(id).cloned()).collect()))
}

/// A head, for statements that go on from it.
pub(super) async fn head_in(session: &Session, key: &ContextKey, now: Timestamp) -> Read<Head> {
    let rows = session
        .query(&HEAD, &[&key.tenant.as_str(), &key.id.as_str(), &now.as_micros()])
        .await?;
    Ok(rows.first().ok_or(Error::NotFound).and_then(head_of))
}

/// A head in its first row, items in the rows after it; the columns of the other are NULL.
macro_rules! head_and_items {
    ($items:literal) => {
        concat!(
            "WITH h AS MATERIALIZED (SELECT ",
            head_columns!(),
            " FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
              WHERE c.tenant = $1 AND c.id = $2 AND ",
            is_there!("$3"),
            ") SELECT h.*, NULL::text AS part, NULL::bigint, NULL::bigint, NULL::double precision, NULL::integer,
                      NULL::boolean, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text FROM h
               UNION ALL
               SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                      NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, i.part, i.seq, i.created_at, i.importance, i.tokens, i.pinned,
                      i.role, i.kind, i.client_id, i.links, i.body
               FROM h, ",
            $items,
            " AS i"
        )
    };
}

/// Column of the word that says what a row is; the item's columns follow it.
const PART: usize = HEAD_WIDTH;

static TAIL: Statement = Statement {
    name: "tail",
    sql: head_and_items!(
        "contextkeep.tail_items_v2(h.stream_no, h.first_seq, h.next_seq - 1,
                                   greatest(coalesce($4, h.max_tokens) - $5, 0), $6, $7)"
    ),
    types: &[
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ],
};

pub(super) async fn tail(
    endpoint: Arc<Endpoint>,
    key: &ContextKey,
    query: TailQuery,
    now: Timestamp,
) -> Read<Tail> {
    let params: [&(dyn ToSql + Sync); 7] = [
        &key.tenant.as_str(),
        &key.id.as_str(),
        &now.as_micros(),
        &query.max_tokens.map(int),
        &int(query.reserve),
        &i64::from(query.items_max),
        &int(query.bytes_max),
    ];
    let rows = endpoint.query(&TAIL, &params).await?;
    Ok(tail_of(&rows, query))
}

fn tail_of(rows: &[Row], query: TailQuery) -> Result<Tail> {
    let (first, rows) = rows.split_first().ok_or(Error::NotFound)?;
    let mut tail = Tail {
        context: head_of(first)?.context,
        kept: Vec::new(),
        run: Vec::new(),
        before: None,
    };
    for row in rows {
        match get::<&str>(row, PART)? {
            "r" => tail.run.push(item_of(row, PART + 1)?),
            "k" => tail.kept.push(item_of(row, PART + 1)?),
            "o" => return Err(query.kept_too_large(count(row, PART + 1)?)),
            _ => tail.before = Kind::parse(get(row, PART + 7)?),
        }
    }
    tail.run.reverse();
    Ok(tail)
}

static ITEMS: Statement = Statement {
    name: "items",
    sql: head_and_items!(
        "contextkeep.page_items_v1(h.stream_no, greatest(h.first_seq, $4), least(h.next_seq - 1, $5), $6, $7, $8)"
    ),
    types: &[
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::INT8,
        Type::INT8,
    ],
};

pub(super) async fn items(
    endpoint: Arc<Endpoint>,
    key: &ContextKey,
    query: ItemQuery,
    now: Timestamp,
) -> Read<ItemPage> {
    let params: [&(dyn ToSql + Sync); 8] = [
        &key.tenant.as_str(),
        &key.id.as_str(),
        &now.as_micros(),
        &int(query.after.saturating_add(1)),
        &int(query.before.saturating_sub(1)),
        &(query.order == Order::Descending),
        &i64::from(query.limit),
        &int(query.bytes_max),
    ];
    let rows = endpoint.query(&ITEMS, &params).await?;
    Ok(page_of(&rows))
}

fn page_of(rows: &[Row]) -> Result<ItemPage> {
    let (first, rows) = rows.split_first().ok_or(Error::NotFound)?;
    let mut page = ItemPage {
        version: head_of(first)?.context.version,
        items: Vec::with_capacity(rows.len()),
        more: false,
    };
    for row in rows {
        match get::<&str>(row, PART)? {
            "i" => page.items.push(item_of(row, PART + 1)?),
            _ => page.more = true,
        }
    }
    Ok(page)
}

/// A list by one of the four orders there is an index for. What is not asked is NULL.
macro_rules! list {
    ($by:literal) => {
        concat!(
            "SELECT ",
            head_columns!(),
            " FROM contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no)
              WHERE c.tenant = $1 AND c.deleted_at IS NULL AND ",
            is_there!("$2"),
            $by,
            " AND c.labels @> $5
              AND ($9 IS NULL OR c.forked_from = $9)
              AND (c.created_at, c.id) < ($6, $7)
              ORDER BY c.created_at DESC, c.id DESC LIMIT $8"
        )
    };
}

const LIST_TYPES: &[Type] = &[
    Type::TEXT,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT_ARRAY,
    Type::INT8,
    Type::TEXT,
    Type::INT8,
    Type::TEXT,
];

pub(super) static LIST: Statement = Statement {
    name: "list",
    sql: list!(" AND $3 IS NULL AND $4 IS NULL"),
    types: LIST_TYPES,
};

pub(super) static LIST_OF_AGENT: Statement = Statement {
    name: "list_of_agent",
    sql: list!(" AND c.agent_id = $3 AND ($4 IS NULL OR c.session_id = $4)"),
    types: LIST_TYPES,
};

pub(super) static LIST_OF_SESSION: Statement = Statement {
    name: "list_of_session",
    sql: list!(" AND c.session_id = $4 AND ($3 IS NULL OR c.agent_id = $3)"),
    types: LIST_TYPES,
};

pub(super) static LIST_OF_FORKS: Statement = Statement {
    name: "list_of_forks",
    sql: list!(
        " AND c.forked_from = $9 AND ($3 IS NULL OR c.agent_id = $3) AND ($4 IS NULL OR c.session_id = $4)"
    ),
    types: LIST_TYPES,
};

/// A page of contexts, newest first. It may be long: it does not go over a shared connection.
pub(super) async fn list(
    session: &Session,
    tenant: &TenantId,
    query: &ListQuery,
    now: Timestamp,
) -> Read<ContextPage> {
    let statement = match (&query.forked_from, &query.session_id, &query.agent_id) {
        (Some(_), ..) => &LIST_OF_FORKS,
        (None, Some(_), _) => &LIST_OF_SESSION,
        (None, None, Some(_)) => &LIST_OF_AGENT,
        (None, None, None) => &LIST,
    };
    // Before the first place in the order comes everything.
    let (created_at, id) = query.after.as_ref().map_or((i64::MAX, ""), |after| {
        (after.created_at.as_micros(), after.id.as_str())
    });
    let params: [&(dyn ToSql + Sync); 9] = [
        &tenant.as_str(),
        &now.as_micros(),
        &query.agent_id,
        &query.session_id,
        &query.labels,
        &created_at,
        &id,
        &(i64::from(query.limit) + 1),
        &query.forked_from.as_ref().map(ContextId::as_str),
    ];
    let rows = session.query(statement, &params).await?;
    Ok(contexts_of(&rows, query.limit))
}

fn contexts_of(rows: &[Row], limit: u32) -> Result<ContextPage> {
    let mut contexts = rows
        .iter()
        .map(|row| Ok(head_of(row)?.context))
        .collect::<Result<Vec<_>>>()?;
    let more = contexts.len() > limit as usize;
    contexts.truncate(limit as usize);
    Ok(ContextPage { contexts, more })
}
