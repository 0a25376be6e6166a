//! Rows and what they mean.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::context::JsonObject;
use crate::error::{Error, Result};
use crate::id::{ClientId, ContextId, ContextKey, TenantId};
use crate::item::{Kind, Links, Role, Traits};
use crate::truncate::AutoTruncation;
use crate::{Context, ForkedFrom, Item, Seq, Timestamp, Tokenizer};

/// Bits of a rowid that hold the seq.
const SEQ_BITS: u32 = 32;
/// The largest seq: what fits into [`SEQ_BITS`].
pub(super) const SEQ_MAX: Seq = (1 << SEQ_BITS) - 1;

/// The rowid of an item.
pub(super) fn rid(stream_no: i64, seq: Seq) -> i64 {
    (stream_no << SEQ_BITS) | i64::try_from(seq.min(SEQ_MAX)).unwrap_or(i64::MAX)
}

/// The seq in a rowid.
pub(super) fn seq_of(rid: i64) -> Seq {
    rid.cast_unsigned() & SEQ_MAX
}

/// The stream in a rowid.
pub(super) fn stream_of(rid: i64) -> i64 {
    rid >> SEQ_BITS
}

/// `SQLite`'s integers are signed; ours are counts that never reach 2^63.
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

/// Columns that [`head_of`] reads.
pub(super) const HEAD_COLUMNS: &str = "c.ctx_no, c.id, c.agent_id, c.session_id, c.model_id, c.name, c.description, \
     c.metadata, c.labels, c.max_tokens, c.tokenizer, c.expires_at, c.created_at, \
     h.stream_no, h.written_tokens, h.version, h.first_seq, h.next_seq, h.item_count, h.tokens, h.updated_at, \
     c.truncation, c.forked_from, c.forked_at";

pub(super) fn head_of(row: &Row<'_>) -> rusqlite::Result<Head> {
    let labels: String = row.get(8)?;
    let tokenizer: String = row.get(10)?;
    let context = Context {
        id: trusted_id(&row.get::<_, String>(1)?)?,
        agent_id: row.get(2)?,
        session_id: row.get(3)?,
        model_id: row.get(4)?,
        name: row.get(5)?,
        description: row.get(6)?,
        metadata: JsonObject::trusted(row.get::<_, String>(7)?),
        labels: serde_json::from_str(&labels).map_err(|error| bad_column(8, error))?,
        max_tokens: row.get::<_, i64>(9)?.cast_unsigned(),
        tokenizer: Tokenizer::stored(&tokenizer)
            .ok_or_else(|| bad_column(10, format!("tokenizer {tokenizer:?}")))?,
        truncation: match row.get::<_, Option<String>>(21)? {
            None => AutoTruncation::None,
            Some(name) => AutoTruncation::parse(&name).map_err(|error| bad_column(21, error))?,
        },
        forked_from: match row.get::<_, Option<String>>(22)? {
            None => None,
            Some(id) => Some(ForkedFrom {
                id: ContextId::parse(&id).map_err(|error| bad_column(22, error))?,
                at_seq: row.get::<_, i64>(23)?.cast_unsigned(),
            }),
        },
        expires_at: row.get::<_, Option<i64>>(11)?.map(Timestamp::from_micros),
        created_at: Timestamp::from_micros(row.get(12)?),
        version: row.get::<_, i64>(15)?.cast_unsigned(),
        first_seq: row.get::<_, i64>(16)?.cast_unsigned(),
        next_seq: row.get::<_, i64>(17)?.cast_unsigned(),
        item_count: row.get::<_, i64>(18)?.cast_unsigned(),
        tokens: row.get::<_, i64>(19)?.cast_unsigned(),
        updated_at: Timestamp::from_micros(row.get(20)?),
        stream: row.get::<_, i64>(13)?.cast_unsigned(),
    };
    Ok(Head {
        ctx_no: row.get(0)?,
        stream_no: row.get(13)?,
        written_tokens: row.get::<_, i64>(14)?.cast_unsigned(),
        context,
    })
}

/// The head of a context that is there.
pub(super) fn head(connection: &Connection, key: &ContextKey, now: Timestamp) -> Result<Head> {
    let sql = format!(
        "SELECT {HEAD_COLUMNS} FROM contexts c JOIN heads h USING (ctx_no)
         WHERE c.tenant_no = (SELECT tenant_no FROM tenants WHERE id = ?1) AND c.id = ?2
           AND c.deleted_at IS NULL AND (c.expires_at IS NULL OR c.expires_at > ?3)"
    );
    connection
        .prepare_cached(&sql)?
        .query_row(
            params![key.tenant.as_str(), key.id.as_str(), now.as_micros()],
            head_of,
        )
        .optional()?
        .ok_or(Error::NotFound)
}

/// The tenant's number, if it has stored anything.
pub(super) fn tenant_no(connection: &Connection, tenant: &TenantId) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT tenant_no FROM tenants WHERE id = ?1")?;
    Ok(statement
        .query_row([tenant.as_str()], |row| row.get(0))
        .optional()?)
}

/// Columns that [`item_of`] reads.
pub(super) const ITEM_COLUMNS: &str = "i.rid, i.tokens, i.created_at, i.role, i.kind, i.pinned, i.importance, \
     i.client_id, i.links, i.body";

pub(super) fn item_of(row: &Row<'_>) -> rusqlite::Result<Item> {
    let role: String = row.get(3)?;
    let kind: String = row.get(4)?;
    let client_id: Option<String> = row.get(7)?;
    let links: Option<String> = row.get(8)?;
    Ok(Item {
        seq: seq_of(row.get(0)?),
        tokens: row.get(1)?,
        created_at: Timestamp::from_micros(row.get(2)?),
        traits: Traits {
            role: Role::parse(&role).ok_or_else(|| bad_column(3, format!("role {role:?}")))?,
            kind: Kind::parse(&kind).ok_or_else(|| bad_column(4, format!("kind {kind:?}")))?,
            links: match links {
                None => Links::default(),
                Some(links) => serde_json::from_str(&links).map_err(|error| bad_column(8, error))?,
            },
            client_id: client_id
                .map(|id| ClientId::parse(&id))
                .transpose()
                .map_err(|error| bad_column(7, error))?,
            pinned: row.get(5)?,
            importance: row.get(6)?,
        },
        body: Arc::from(row.get_ref(9)?.as_str()?),
    })
}

fn trusted_id(text: &str) -> rusqlite::Result<ContextId> {
    ContextId::parse(text).map_err(|error| bad_column(1, error))
}

/// Somebody else wrote into the file, or a newer version did.
pub(super) fn bad_column(
    column: usize,
    problem: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rowid_holds_both_numbers() {
        for (stream, seq) in [(1, 1), (7, SEQ_MAX), (0x7fff_ffff, 12)] {
            let rid = rid(stream, seq);
            assert_eq!((stream_of(rid), seq_of(rid)), (stream, seq));
        }
    }
}
