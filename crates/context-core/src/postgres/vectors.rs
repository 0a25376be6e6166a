//! Vectors beside the items: which streams lack some, the vectors themselves, and what is nearest.
//!
//! - **U1** A stream's row of `embedding` is locked by whoever writes its vectors and by the purge that removes its items:
//!   no vector outlives its item.
//! - **U2** The indexer raises `news` in the transaction that indexes. Who has filled a stream says it is done only if
//!   `news` is what it was when the stream was taken on: nothing that was indexed meanwhile is passed over.
//! - **U3** A model is made known under the lock of `indexing`: what is indexed before is among the streams there are,
//!   what is indexed after is marked.

use tokio_postgres::types::Type;

use super::link::{Session, Statement};
use super::read::Read;
use super::rows::{count, get, int};
use super::transaction::{Outcome, transaction};
use super::{PgContextStore, nearest};
use crate::Timestamp;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::item::searchable_text;
use crate::semantic::{
    Claim, Filled, Lot, MODEL_KEPT, Model, NearestPage, NearestQuery, TOUCH, Text, VectorStore,
};

/// Items counted for the lag; there may be more.
const LAG_ITEMS_MAX: i64 = 10_000;

// None of this is a client's write, so that nothing is noted in a session.
#[async_trait::async_trait]
impl VectorStore for PgContextStore {
    async fn claim(&self, model: &Model, claim: Claim) -> Result<Vec<Lot>> {
        self.ready()?;
        let now = self.clock.now();
        // Looking costs an idle server a read; only who finds something writes.
        if is_idle(&self.servers.primary().session().await?, model, now).await? {
            return Ok(Vec::new());
        }
        transaction(&self.servers, |session, _| {
            Box::pin(take(session, model, claim, now))
        })
        .await
    }

    async fn fill(&self, model: &Model, filled: Vec<Filled>) -> Result<()> {
        self.ready()?;
        let (filled, now) = (&filled, self.clock.now());
        transaction(&self.servers, |session, _| {
            Box::pin(fill(session, model, filled, now))
        })
        .await
    }

    async fn lacking(&self, model: &Model) -> Result<u64> {
        self.ready()?;
        let session = self.servers.primary().session().await?;
        lacking(&session, model).await?
    }

    async fn nearest(&self, tenant: &TenantId, query: NearestQuery) -> Result<NearestPage> {
        self.ready()?;
        let (query, now) = (&query, self.clock.now());
        // It holds a connection and may be slow, as a search by words.
        let entered = self.searches.enter().await?;
        let page = self
            .reads
            .many(|session| async move { nearest::nearest(&session, tenant, query, now).await })
            .await;
        entered.end_search(&page);
        page?
    }
}

static MODEL: Statement = Statement {
    name: "embedding_model",
    sql: "SELECT model_no FROM contextkeep.embedding_models WHERE name = $1 AND dimensions = $2",
    types: &[Type::TEXT, Type::INT4],
};

/// The model's number, if it is known.
pub(super) async fn model_no(session: &Session, model: &Model) -> Read<Option<i64>> {
    let rows = session
        .query(&MODEL, &[&&*model.name, &i32::from(model.dimensions)])
        .await?;
    Ok(rows.first().map(|row| get(row, 0)).transpose())
}

pub(super) static IDLE: Statement = Statement {
    name: "embedding_idle",
    sql: "SELECT EXISTS (SELECT 1 FROM contextkeep.embedding_models
                         WHERE name = $1 AND dimensions = $2 AND used_at > $4)
             AND NOT EXISTS (SELECT 1 FROM contextkeep.embedding_models m JOIN contextkeep.embedding e USING (model_no)
                             WHERE m.name = $1 AND m.dimensions = $2 AND e.due_at <= $3)",
    types: &[Type::TEXT, Type::INT4, Type::INT8, Type::INT8],
};

async fn is_idle(session: &Session, model: &Model, now: Timestamp) -> Result<bool> {
    let touched = now.saturating_sub(TOUCH).as_micros();
    let (dimensions, now) = (i32::from(model.dimensions), now.as_micros());
    let rows = session
        .query(&IDLE, &[&&*model.name, &dimensions, &now, &touched])
        .await?;
    rows.first().map_or(Ok(false), |row| get(row, 0))
}

static USE: Statement = Statement {
    name: "embedding_use",
    sql: "UPDATE contextkeep.embedding_models SET used_at = $2 WHERE model_no = $1 AND used_at < $3",
    types: &[Type::INT8, Type::INT8, Type::INT8],
};

static HOLD_INDEXING: Statement = Statement {
    name: "embedding_hold_indexing",
    sql: "SELECT 1 FROM contextkeep.indexing FOR UPDATE",
    types: &[],
};

static OPEN: Statement = Statement {
    name: "embedding_open",
    sql: "INSERT INTO contextkeep.embedding_models (name, dimensions, used_at) VALUES ($1, $2, $3)
          ON CONFLICT (name, dimensions) DO UPDATE SET used_at = excluded.used_at RETURNING model_no",
    types: &[Type::TEXT, Type::INT4, Type::INT8],
};

static ALL_STREAMS: Statement = Statement {
    name: "embedding_all_streams",
    sql: "INSERT INTO contextkeep.embedding (model_no, stream_no, done_seq, news, due_at)
          SELECT $1, stream_no, 0, 0, 0 FROM contextkeep.streams ON CONFLICT DO NOTHING",
    types: &[Type::INT8],
};

/// The model's number, noted as used; a new one has all streams to do (U3).
async fn open(session: &Session, model: &Model, now: Timestamp) -> Outcome<i64> {
    if let Some(model_no) = model_no(session, model).await?? {
        let touched = now.saturating_sub(TOUCH).as_micros();
        session
            .execute(&USE, &[&model_no, &now.as_micros(), &touched])
            .await?;
        return Ok(model_no);
    }
    session.query(&HOLD_INDEXING, &[]).await?;
    let dimensions = i32::from(model.dimensions);
    let rows = session
        .query(&OPEN, &[&&*model.name, &dimensions, &now.as_micros()])
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::internal("a new model has no number"))?;
    let model_no = get(row, 0)?;
    session.execute(&ALL_STREAMS, &[&model_no]).await?;
    Ok(model_no)
}

static MARK: Statement = Statement {
    name: "embedding_mark",
    sql: "INSERT INTO contextkeep.embedding (model_no, stream_no, done_seq, news, due_at)
          SELECT m.model_no, s.stream_no, 0, 1, 0
          FROM contextkeep.embedding_models m, contextkeep.streams s
          WHERE m.name IS NOT NULL AND s.stream_no = ANY ($1) ORDER BY s.stream_no, m.model_no
          ON CONFLICT (stream_no, model_no)
          DO UPDATE SET news = embedding.news + 1, due_at = coalesce(embedding.due_at, 0)",
    types: &[Type::INT8_ARRAY],
};

/// Notes for all models that streams have news. The indexer calls it.
pub(super) async fn mark(session: &Session, stream_nos: &[i64]) -> Outcome<()> {
    session.execute(&MARK, &[&stream_nos]).await?;
    Ok(())
}

/// The last item of each stream as well: whoever reads that one has read all.
pub(super) static TAKE: Statement = Statement {
    name: "embedding_take",
    sql: "WITH due AS MATERIALIZED (
              SELECT stream_no FROM contextkeep.embedding WHERE model_no = $1 AND due_at <= $2
              ORDER BY due_at, stream_no LIMIT $3 FOR UPDATE SKIP LOCKED)
          UPDATE contextkeep.embedding e SET due_at = $4 FROM due
          WHERE e.model_no = $1 AND e.stream_no = due.stream_no
          RETURNING e.stream_no, e.done_seq, e.news,
              coalesce((SELECT max(i.seq) FROM contextkeep.items i WHERE i.stream_no = e.stream_no), 0)",
    types: &[Type::INT8, Type::INT8, Type::INT8, Type::INT8],
};

static BODIES: Statement = Statement {
    name: "embedding_bodies",
    sql: "SELECT stream_no, seq, body FROM (
              SELECT w.stream_no, i.seq, i.body, row_number() OVER running AS items,
                     sum(octet_length(i.body)) OVER running AS bytes
              FROM unnest($1, $2) AS w (stream_no, done_seq)
              CROSS JOIN LATERAL (
                  SELECT i.seq, i.body FROM contextkeep.items i
                  WHERE i.stream_no = w.stream_no AND i.seq > w.done_seq ORDER BY i.seq LIMIT $3) i
              WINDOW running AS (ORDER BY w.stream_no, i.seq ROWS UNBOUNDED PRECEDING)) b
          WHERE items <= $3 AND (bytes <= $4 OR items = 1) ORDER BY stream_no, seq",
    types: &[Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT8, Type::INT8],
};

async fn take(session: &Session, model: &Model, claim: Claim, now: Timestamp) -> Outcome<Vec<Lot>> {
    let model_no = open(session, model, now).await?;
    let until = now.saturating_add(claim.lease).as_micros();
    let items_max = i64::from(claim.items_max);
    let taken = session
        .query(&TAKE, &[&model_no, &now.as_micros(), &items_max, &until])
        .await?;
    let mut lots = Vec::with_capacity(taken.len());
    let (mut stream_nos, mut dones) = (Vec::new(), Vec::new());
    for row in &taken {
        let (stream_no, done, last): (i64, i64, i64) = (get(row, 0)?, get(row, 1)?, get(row, 3)?);
        stream_nos.push(stream_no);
        dones.push(done);
        let lot = Lot {
            stream: stream_no.cast_unsigned(),
            news: get(row, 2)?,
            items: Vec::new(),
            ends: last <= done,
        };
        lots.push((last.cast_unsigned(), lot));
    }
    if stream_nos.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session
        .query(&BODIES, &[&stream_nos, &dones, &items_max, &int(claim.bytes_max)])
        .await?;
    for row in &rows {
        let (stream, seq) = (count(row, 0)?, count(row, 1)?);
        if let Some((last, lot)) = lots.iter_mut().find(|(_, lot)| lot.stream == stream) {
            lot.items.push(Text {
                seq,
                text: searchable_text(get(row, 2)?),
            });
            lot.ends = seq >= *last;
        }
    }
    Ok(lots.into_iter().map(|(_, lot)| lot).collect())
}

/// In the order of the streams, as everybody who locks several does.
static HOLD: Statement = Statement {
    name: "embedding_hold",
    sql: "SELECT stream_no FROM contextkeep.embedding WHERE model_no = $1 AND stream_no = ANY ($2)
          ORDER BY stream_no FOR UPDATE",
    types: &[Type::INT8, Type::INT8_ARRAY],
};

static FILL: Statement = Statement {
    name: "embedding_fill",
    sql: "INSERT INTO contextkeep.vectors (stream_no, seq, model_no, created_at, tenant, role, vector)
          SELECT w.stream_no, w.seq, $1, i.created_at, c.tenant, i.role, w.vector
          FROM unnest($2, $3, $4) AS w (stream_no, seq, vector)
          JOIN contextkeep.items i ON i.stream_no = w.stream_no AND i.seq = w.seq
          JOIN contextkeep.streams s ON s.stream_no = w.stream_no
          JOIN contextkeep.contexts c ON c.ctx_no = s.ctx_no
          ON CONFLICT DO NOTHING",
    types: &[Type::INT8, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::BYTEA_ARRAY],
};

/// U2.
static MOVE_ON: Statement = Statement {
    name: "embedding_move_on",
    sql: "UPDATE contextkeep.embedding e SET done_seq = greatest(e.done_seq, w.through),
              due_at = CASE WHEN w.ends AND e.news = w.news THEN NULL ELSE $2 END
          FROM unnest($3, $4, $5, $6) AS w (stream_no, through, ends, news)
          WHERE e.model_no = $1 AND e.stream_no = w.stream_no",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BOOL_ARRAY,
        Type::INT8_ARRAY,
    ],
};

async fn fill(session: &Session, model: &Model, filled: &[Filled], now: Timestamp) -> Outcome<()> {
    let Some(model_no) = model_no(session, model).await?? else {
        return Ok(());
    };
    let streams: Vec<i64> = filled.iter().map(|lot| lot.stream.cast_signed()).collect();
    let rows = session.query(&HOLD, &[&model_no, &streams]).await?;
    let mut held = Vec::with_capacity(rows.len());
    for row in &rows {
        held.push(get::<i64>(row, 0)?);
    }
    let (mut stream_nos, mut seqs, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    for lot in filled {
        let stream_no = lot.stream.cast_signed();
        if held.contains(&stream_no) {
            for (seq, vector) in &lot.vectors {
                stream_nos.push(stream_no);
                seqs.push(int(*seq));
                vectors.push(vector.as_bytes());
            }
        }
    }
    if !stream_nos.is_empty() {
        session
            .execute(&FILL, &[&model_no, &stream_nos, &seqs, &vectors])
            .await?;
    }
    let throughs: Vec<i64> = filled.iter().map(|lot| int(lot.through)).collect();
    let ends: Vec<bool> = filled.iter().map(|lot| lot.ends).collect();
    let news: Vec<i64> = filled.iter().map(|lot| lot.news).collect();
    session
        .execute(
            &MOVE_ON,
            &[&model_no, &now.as_micros(), &streams, &throughs, &ends, &news],
        )
        .await?;
    Ok(())
}

static LACKING: Statement = Statement {
    name: "embedding_lacking",
    sql: "SELECT count(*) FROM (
              SELECT 1 FROM contextkeep.embedding_models m JOIN contextkeep.embedding e USING (model_no)
              CROSS JOIN LATERAL (
                  SELECT 1 FROM contextkeep.items i WHERE i.stream_no = e.stream_no AND i.seq > e.done_seq LIMIT $3) i
              WHERE m.name = $1 AND m.dimensions = $2 AND e.due_at IS NOT NULL LIMIT $3) l",
    types: &[Type::TEXT, Type::INT4, Type::INT8],
};

/// Items that are indexed and lack a vector.
pub(super) async fn lacking(session: &Session, model: &Model) -> Read<u64> {
    let dimensions = i32::from(model.dimensions);
    let rows = session
        .query(&LACKING, &[&&*model.name, &dimensions, &LAG_ITEMS_MAX])
        .await?;
    Ok(rows.first().map_or(Ok(0), |row| count(row, 0)))
}

static HOLD_STREAM: Statement = Statement {
    name: "purge_hold_embedding",
    sql: "SELECT 1 FROM contextkeep.embedding WHERE stream_no = $1 FOR UPDATE",
    types: &[Type::INT8],
};

/// Keeps everybody from writing vectors of a stream, before its items are removed (U1).
pub(super) async fn hold(session: &Session, stream_no: i64) -> Outcome<()> {
    session.query(&HOLD_STREAM, &[&stream_no]).await?;
    Ok(())
}

static FORGET: Statement = Statement {
    name: "purge_vectors",
    sql:
        "DELETE FROM contextkeep.vectors v WHERE v.stream_no = $1 AND v.seq BETWEEN $2 AND $3 AND NOT EXISTS (
              SELECT 1 FROM contextkeep.items i WHERE i.stream_no = v.stream_no AND i.seq = v.seq)",
    types: &[Type::INT8, Type::INT8, Type::INT8],
};

/// Removes the vectors of a range of which items were removed.
pub(super) async fn forget(session: &Session, stream_no: i64, first: i64, last: i64) -> Outcome<()> {
    session.execute(&FORGET, &[&stream_no, &first, &last]).await?;
    Ok(())
}

static FORGET_STREAM: Statement = Statement {
    name: "purge_embedding",
    sql: "DELETE FROM contextkeep.embedding e WHERE e.stream_no = $1
            AND NOT EXISTS (SELECT 1 FROM contextkeep.streams s WHERE s.stream_no = $1)",
    types: &[Type::INT8],
};

/// Forgets how far a stream was, if it is gone.
pub(super) async fn forget_stream(session: &Session, stream_no: i64) -> Outcome<()> {
    session.execute(&FORGET_STREAM, &[&stream_no]).await?;
    Ok(())
}

static RETIRE: Statement = Statement {
    name: "purge_retire_models",
    sql: "UPDATE contextkeep.embedding_models SET name = NULL WHERE used_at < $1 AND name IS NOT NULL",
    types: &[Type::INT8],
};

static RETIRED: Statement = Statement {
    name: "purge_retired_model",
    sql: "SELECT model_no FROM contextkeep.embedding_models WHERE name IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED",
    types: &[],
};

static OF_MODEL: Statement = Statement {
    name: "purge_vectors_of_model",
    sql: "WITH gone AS (
              DELETE FROM contextkeep.vectors WHERE (stream_no, seq, model_no) IN (
                  SELECT stream_no, seq, model_no FROM contextkeep.vectors WHERE model_no = $1 LIMIT $2)
              RETURNING 1),
          idle AS (
              DELETE FROM contextkeep.embedding WHERE (stream_no, model_no) IN (
                  SELECT stream_no, model_no FROM contextkeep.embedding WHERE model_no = $1 LIMIT $2)
              RETURNING 1)
          SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM idle)",
    types: &[Type::INT8, Type::INT8],
};

static FORGET_MODEL: Statement = Statement {
    name: "purge_model",
    sql: "DELETE FROM contextkeep.embedding_models WHERE model_no = $1",
    types: &[Type::INT8],
};

/// Removes what is of models that nobody has used for long; answers how many rows that were.
pub(super) async fn forget_models(session: &Session, now: Timestamp, limit: i64) -> Outcome<i64> {
    if limit == 0 {
        return Ok(0);
    }
    let before = now.saturating_sub(MODEL_KEPT).as_micros();
    session.execute(&RETIRE, &[&before]).await?;
    let retired = session.query(&RETIRED, &[]).await?;
    let Some(retired) = retired.first() else {
        return Ok(0);
    };
    let model_no: i64 = get(retired, 0)?;
    let rows = session
        .query(&OF_MODEL, &[&model_no, &(limit / 2).max(1)])
        .await?;
    let removed: i64 = rows.first().map_or(Ok(0), |row| get(row, 0))?;
    if removed == 0 {
        session.execute(&FORGET_MODEL, &[&model_no]).await?;
        return Ok(1);
    }
    // There may be more, and then the model itself: whoever purges is to come again.
    Ok(limit)
}
