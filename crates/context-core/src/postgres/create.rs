//! A context under an id that nobody has had, or that is there already: one statement, so one round trip and no
//! transaction around it. What else an id can be, a tombstone or another's in this very moment, is for [`super::write`].

use tokio_postgres::types::{ToSql, Type};

use super::link::{Session, Statement};
use super::rows::{HEAD_WIDTH, SEQ_MAX, get, head_columns, head_of, int, is_there};
use super::transaction::Outcome;
use super::write::found;
use crate::error::Error;
use crate::id::{ContextId, TenantId};
use crate::settings::Durability;
use crate::store::Created;
use crate::{NewContext, Timestamp};

/// The parts see the tables as they were before it: the head that it answers is one that was there.
pub(super) static CREATE: Statement = Statement {
    name: "create",
    sql: concat!(
        "WITH durable AS MATERIALIZED (SELECT set_config('synchronous_commit', $1, true)),
              taken AS (
                  INSERT INTO contextkeep.contexts (tenant, id, agent_id, session_id, model_id, name, description,
                                                    metadata, labels, truncation, created_at)
                  SELECT $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM durable
                  ON CONFLICT (tenant, id) DO NOTHING RETURNING ctx_no
              ),
              stream AS (INSERT INTO contextkeep.streams (ctx_no) SELECT ctx_no FROM taken RETURNING ctx_no, stream_no),
              own AS (INSERT INTO contextkeep.spans (stream_no, first_seq, last_seq, source_no)
                      SELECT stream_no, $13, $14, stream_no FROM stream),
              head AS (
                  INSERT INTO contextkeep.heads (ctx_no, version, stream_no, first_seq, next_seq, item_count, tokens,
                                                 written_tokens, max_tokens, updated_at, expires_at, tokenizer)
                  SELECT ctx_no, $15, stream_no, $13, $13, 0, 0, 0, $16, $12, $17, $18 FROM stream
              ),
              change AS (
                  INSERT INTO contextkeep.changes (ctx_nos, versions, stream_nos, first_seqs, last_seqs, changed_at)
                  SELECT ARRAY[ctx_no], ARRAY[$15], ARRAY[stream_no], ARRAY[$13], ARRAY[$13 - 1], $12 FROM stream
              )
         SELECT ",
        head_columns!(),
        ", s.stream_no
         FROM (SELECT 1) AS one
         LEFT JOIN stream s ON true
         LEFT JOIN (contextkeep.contexts c JOIN contextkeep.heads h USING (ctx_no))
             ON c.tenant = $2 AND c.id = $3 AND ",
        is_there!("$12")
    ),
    types: &[
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT_ARRAY,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
    ],
};

/// Creates a context, or finds the one that is there with the same fields. `None`: nothing was done, and it takes the
/// long way.
pub(super) async fn create(
    session: &Session,
    tenant: &TenantId,
    id: &ContextId,
    new: &NewContext,
    now: Timestamp,
    durability: Durability,
) -> Outcome<Option<Created>> {
    let mut context = new.clone().into_context(id.clone(), now);
    let params: [&(dyn ToSql + Sync); 18] = [
        &durability.synchronous_commit(),
        &tenant.as_str(),
        &id.as_str(),
        &context.agent_id,
        &context.session_id,
        &context.model_id,
        &context.name,
        &context.description,
        &context.metadata.as_str(),
        &context.labels,
        &context.truncation.stored(),
        &now.as_micros(),
        &int(context.next_seq),
        &SEQ_MAX,
        &int(context.version),
        &int(context.max_tokens),
        &context.expires_at.map(Timestamp::as_micros),
        &context.tokenizer.as_str(),
    ];
    let rows = session.query(&CREATE, &params).await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::internal("a create has no outcome"))?;
    if let Some(stream_no) = get::<Option<i64>>(row, HEAD_WIDTH)? {
        context.stream = stream_no.cast_unsigned();
        return Ok(Some(Created {
            context,
            is_new: true,
            parent_stream: None,
        }));
    }
    // One who waits for no standby here could be told of a create that no standby has: the long way locks the row, and
    // so waits as the create itself did.
    if durability == Durability::Replicated || get::<Option<i64>>(row, 0)?.is_none() {
        return Ok(None);
    }
    found(new, head_of(row)?).map(Some)
}
