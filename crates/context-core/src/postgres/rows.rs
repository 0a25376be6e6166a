//! Rows and what they mean.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::context::JsonObject;
use crate::error::{Error, Result};
use crate::id::{ClientId, ContextId};
use crate::item::{Kind, Links, Role, Traits};
use crate::truncate::AutoTruncation;
use crate::{Context, ForkedFrom, Item, Timestamp, Tokenizer};

/// The last seq of a span that is still open.
pub(super) const SEQ_MAX: i64 = i64::MAX;

/// Postgres' integers are signed; ours are counts that never reach 2^63.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A head with the numbers that only the store knows.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) ctx_no: i64,
    pub(super) stream_no: i64,
    pub(super) written_tokens: u64,
    pub(super) context: Context,
}

/// Columns that [`head_of`] reads, of `contexts c` and `heads h`. A macro, so that statements are put together at
/// compile time.
macro_rules! head_columns {
    () => {
        "c.ctx_no, c.id, c.agent_id, c.session_id, c.model_id, c.name, c.description, c.metadata, c.labels, \
         h.max_tokens, h.tokenizer, h.expires_at, c.created_at, h.stream_no, h.written_tokens, h.version, h.first_seq, \
         h.next_seq, h.item_count, h.tokens, h.updated_at, c.truncation, c.forked_from, c.forked_at"
    };
}
/// How many columns those are.
pub(super) const HEAD_WIDTH: usize = 24;

/// The condition that a context is there, at the time of parameter `$now`.
macro_rules! is_there {
    ($now:literal) => {
        concat!(
            "h.deleted_at IS NULL AND (h.expires_at IS NULL OR h.expires_at > ",
            $now,
            ")"
        )
    };
}
pub(super) use {head_columns, is_there};

/// Reads a head from the first columns of a row.
pub(super) fn head_of(row: &Row) -> Result<Head> {
    let tokenizer: String = get(row, 10)?;
    let context = Context {
        id: ContextId::parse(get(row, 1)?)?,
        agent_id: get(row, 2)?,
        session_id: get(row, 3)?,
        model_id: get(row, 4)?,
        name: get(row, 5)?,
        description: get(row, 6)?,
        metadata: JsonObject::trusted(get::<String>(row, 7)?),
        labels: get(row, 8)?,
        max_tokens: count(row, 9)?,
        tokenizer: Tokenizer::stored(&tokenizer)
            .ok_or_else(|| damaged(row, 10, &format!("names the tokenizer {tokenizer:?}")))?,
        truncation: match get::<Option<&str>>(row, 21)? {
            None => AutoTruncation::None,
            Some(name) => AutoTruncation::parse(name)?,
        },
        forked_from: match get::<Option<&str>>(row, 22)? {
            None => None,
            Some(id) => Some(ForkedFrom {
                id: ContextId::parse(id)?,
                at_seq: count(row, 23)?,
            }),
        },
        expires_at: get::<Option<i64>>(row, 11)?.map(Timestamp::from_micros),
        created_at: Timestamp::from_micros(get(row, 12)?),
        version: count(row, 15)?,
        first_seq: count(row, 16)?,
        next_seq: count(row, 17)?,
        item_count: count(row, 18)?,
        tokens: count(row, 19)?,
        updated_at: Timestamp::from_micros(get(row, 20)?),
        stream: count(row, 13)?,
    };
    Ok(Head {
        ctx_no: get(row, 0)?,
        stream_no: get(row, 13)?,
        written_tokens: count(row, 14)?,
        context,
    })
}

/// Reads an item from the columns `seq, created_at, importance, tokens, pinned, role, kind, client_id, links, body`
/// that begin at `at`.
pub(super) fn item_of(row: &Row, at: usize) -> Result<Item> {
    let role: &str = get(row, at + 5)?;
    let kind: &str = get(row, at + 6)?;
    let links: Option<&str> = get(row, at + 8)?;
    Ok(Item {
        seq: count(row, at)?,
        created_at: Timestamp::from_micros(get(row, at + 1)?),
        tokens: get::<i32>(row, at + 3)?.cast_unsigned(),
        traits: Traits {
            role: Role::parse(role)
                .ok_or_else(|| damaged(row, at + 5, &format!("names the role {role:?}")))?,
            kind: Kind::parse(kind)
                .ok_or_else(|| damaged(row, at + 6, &format!("names the kind {kind:?}")))?,
            links: match links {
                None => Links::default(),
                Some(links) => {
                    serde_json::from_str(links).map_err(|error| damaged(row, at + 8, &error.to_string()))?
                }
            },
            client_id: get::<Option<&str>>(row, at + 7)?
                .map(ClientId::parse)
                .transpose()?,
            pinned: get(row, at + 4)?,
            importance: get(row, at + 2)?,
        },
        body: Arc::from(get::<&str>(row, at + 9)?),
    })
}

/// A column; a type that does not fit means that somebody else changed the schema.
pub(super) fn get<'row, T: FromSql<'row>>(row: &'row Row, column: usize) -> Result<T> {
    row.try_get(column)
        .map_err(|error| damaged(row, column, &error.to_string()))
}

/// A column that holds a count or a seq.
pub(super) fn count(row: &Row, column: usize) -> Result<u64> {
    let value: i64 = get(row, column)?;
    u64::try_from(value).map_err(|_| damaged(row, column, &format!("is {value}")))
}

fn damaged(row: &Row, column: usize, problem: &str) -> Error {
    let name = row.columns().get(column).map_or("?", |column| column.name());
    Error::StorageDamaged {
        detail: format!("column {name}: {problem}"),
    }
}
