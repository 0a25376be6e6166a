//! Which column of the one store is which of the other.

use bytes::BytesMut;
use rusqlite::Connection;
use rusqlite::types::Value;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::error::Result;

/// A table of both stores.
pub(super) struct Table {
    /// Its rows in the file, columns in the order of `copy`.
    pub(super) select: &'static str,
    /// Where they go.
    pub(super) copy: &'static str,
    /// The types of its columns.
    pub(super) types: &'static [Type],
}

const INT8: Type = Type::INT8;
const TEXT: Type = Type::TEXT;

pub(super) static TABLES: [Table; 12] = [
    Table {
        select: "SELECT c.ctx_no, c.created_at, c.deleted_at, t.id, c.id, c.agent_id, c.session_id, c.model_id, c.name,
                        c.description, c.metadata, c.labels, c.truncation, c.forked_from, c.forked_at
                 FROM contexts c JOIN tenants t USING (tenant_no)",
        copy: "COPY contextkeep.contexts (ctx_no, created_at, deleted_at, tenant, id, agent_id, session_id, model_id,
                                          name, description, metadata, labels, truncation, forked_from, forked_at)
               FROM STDIN BINARY",
        types: &[
            INT8,
            INT8,
            INT8,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            Type::TEXT_ARRAY,
            TEXT,
            TEXT,
            INT8,
        ],
    },
    Table {
        select: "SELECT h.ctx_no, h.version, h.stream_no, h.first_seq, h.next_seq, h.item_count, h.tokens,
                        h.written_tokens, c.max_tokens, h.updated_at, c.expires_at, c.deleted_at, c.tokenizer
                 FROM heads h JOIN contexts c USING (ctx_no)",
        copy: "COPY contextkeep.heads (ctx_no, version, stream_no, first_seq, next_seq, item_count, tokens,
                                       written_tokens, max_tokens, updated_at, expires_at, deleted_at, tokenizer)
               FROM STDIN BINARY",
        types: &[
            INT8, INT8, INT8, INT8, INT8, INT8, INT8, INT8, INT8, INT8, INT8, INT8, TEXT,
        ],
    },
    Table {
        select: "SELECT stream_no, ctx_no FROM streams",
        copy: "COPY contextkeep.streams (stream_no, ctx_no) FROM STDIN BINARY",
        types: &[INT8, INT8],
    },
    Table {
        // An open end is the largest number there is, which is another one in each store.
        select: "SELECT stream_no, first_seq, iif(last_seq = 4294967295, 9223372036854775807, last_seq), source_no
                 FROM spans",
        copy: "COPY contextkeep.spans (stream_no, first_seq, last_seq, source_no) FROM STDIN BINARY",
        types: &[INT8, INT8, INT8, INT8],
    },
    Table {
        select: "SELECT rid >> 32, rid & 4294967295, total, created_at, importance, tokens, pinned, kept, role, kind,
                        client_id, links, body
                 FROM items",
        copy: "COPY contextkeep.items (stream_no, seq, total, created_at, importance, tokens, pinned, kept, role, kind,
                                       client_id, links, body) FROM STDIN BINARY",
        types: &[
            INT8,
            INT8,
            INT8,
            INT8,
            Type::FLOAT8,
            Type::INT4,
            Type::BOOL,
            Type::BOOL,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
        ],
    },
    Table {
        select: "SELECT ctx_no, rid >> 32, rid & 4294967295, version, tokens, over_budget, client_id FROM item_keys",
        copy: "COPY contextkeep.item_keys (ctx_no, stream_no, seq, version, tokens, over_budget, client_id)
               FROM STDIN BINARY",
        types: &[INT8, INT8, INT8, INT8, Type::INT4, Type::BOOL, TEXT],
    },
    Table {
        select: "SELECT ctx_no, first_seq, last_seq, tokens, version, created_at, over_budget, key, fingerprint
                 FROM append_keys",
        copy: "COPY contextkeep.append_keys (ctx_no, first_seq, last_seq, tokens, version, created_at, over_budget, key,
                                             fingerprint) FROM STDIN BINARY",
        types: &[INT8, INT8, INT8, INT8, INT8, INT8, Type::BOOL, TEXT, Type::BYTEA],
    },
    Table {
        select: "SELECT ctx_no, first_seq, last_seq, created_at, tokens, kind, source, text FROM summaries",
        copy: "COPY contextkeep.summaries (ctx_no, first_seq, last_seq, created_at, tokens, kind, source, text)
               FROM STDIN BINARY",
        types: &[INT8, INT8, INT8, INT8, INT8, TEXT, Type::BYTEA, TEXT],
    },
    Table {
        select: "SELECT stream_no FROM purge_queue",
        copy: "COPY contextkeep.purge_queue (stream_no) FROM STDIN BINARY",
        types: &[INT8],
    },
    Table {
        select: "SELECT model_no, used_at, dimensions, name FROM embedding_models",
        copy: "COPY contextkeep.embedding_models (model_no, used_at, dimensions, name) FROM STDIN BINARY",
        types: &[INT8, INT8, Type::INT4, TEXT],
    },
    Table {
        select: "SELECT model_no, stream_no, done_seq, news, due_at FROM embedding",
        copy: "COPY contextkeep.embedding (model_no, stream_no, done_seq, news, due_at) FROM STDIN BINARY",
        types: &[INT8, INT8, INT8, INT8, INT8],
    },
    Table {
        select: "SELECT v.rid >> 32, v.rid & 4294967295, v.model_no, v.created_at, t.id, v.role, v.vector
                 FROM vectors v JOIN tenants t USING (tenant_no)",
        copy: "COPY contextkeep.vectors (stream_no, seq, model_no, created_at, tenant, role, vector)
               FROM STDIN BINARY",
        types: &[INT8, INT8, INT8, INT8, TEXT, TEXT, Type::BYTEA],
    },
];

/// After the rows: numbers go on where they ended, and the search index learns of all items, a block at a time.
pub(super) const AFTER: &str = "
    SELECT setval(pg_get_serial_sequence('contextkeep.contexts', 'ctx_no'), greatest(max(ctx_no), 1))
    FROM contextkeep.contexts;
    SELECT setval(pg_get_serial_sequence('contextkeep.streams', 'stream_no'), greatest(max(stream_no), 1))
    FROM contextkeep.streams;
    SELECT setval(pg_get_serial_sequence('contextkeep.embedding_models', 'model_no'), greatest(max(model_no), 1))
    FROM contextkeep.embedding_models;
    INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
    SELECT 0, ARRAY[s.ctx_no], ARRAY[0], ARRAY[i.stream_no], ARRAY[min(i.seq)], ARRAY[max(i.seq)]
    FROM contextkeep.items i JOIN contextkeep.streams s USING (stream_no)
    GROUP BY s.ctx_no, i.stream_no, i.seq / 256;
    ANALYZE contextkeep.contexts; ANALYZE contextkeep.heads; ANALYZE contextkeep.items; ANALYZE contextkeep.spans;
    ANALYZE contextkeep.streams";

/// Rows of all tables.
pub(super) fn count(connection: &Connection) -> Result<u64> {
    let mut rows = 0;
    for table in &TABLES {
        let sql = format!("SELECT count(*) FROM ({})", table.select);
        rows += connection
            .query_row(&sql, [], |row| row.get::<_, i64>(0))?
            .cast_unsigned();
    }
    Ok(rows)
}

/// A value on its way from one store to the other.
#[derive(Debug)]
pub(super) struct Cell(Value);

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl ToSql for Cell {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match (&self.0, ty) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Integer(value), &Type::INT4) => i32::try_from(*value)?.to_sql(ty, out),
            (Value::Integer(value), &Type::BOOL) => (*value != 0).to_sql(ty, out),
            (Value::Integer(value), &Type::INT8) => value.to_sql(ty, out),
            (Value::Real(value), &Type::FLOAT8) => value.to_sql(ty, out),
            (Value::Text(value), &Type::TEXT) => value.to_sql(ty, out),
            (Value::Text(value), &Type::TEXT_ARRAY) => {
                serde_json::from_str::<Vec<String>>(value)?.to_sql(ty, out)
            }
            (Value::Blob(value), &Type::BYTEA) => value.to_sql(ty, out),
            (value, ty) => Err(format!("a column of type {ty} holds a {}", value.data_type()).into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
