//! Vectors beside the items: which streams lack some, the vectors themselves, and what is nearest.
//!
//! The one writer takes claims one after the other, so that a lease needs no lock.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{self, int, rid, seq_of};
use super::{EmbeddedStore, index, streams};
use crate::Timestamp;
use crate::error::Result;
use crate::id::{ContextKey, TenantId};
use crate::item::searchable_text;
use crate::search::snippet;
use crate::semantic::{
    Best, Claim, Filled, Lot, MODEL_KEPT, Model, NearestPage, NearestQuery, TOUCH, Text, VectorStore,
};
use crate::store::Hit;

/// Items counted for the lag; there may be more.
const LAG_ITEMS_MAX: u32 = 10_000;

#[async_trait::async_trait]
impl VectorStore for EmbeddedStore {
    async fn claim(&self, model: &Model, claim: Claim) -> Result<Vec<Lot>> {
        let (model, now) = (model.clone(), self.clock.now());
        // Looking costs an idle server a read; only who finds something writes.
        let of = model.clone();
        let idle = move |connection: &Connection| is_idle(connection, &of, now);
        if self.readers.read(idle).await? {
            return Ok(Vec::new());
        }
        self.write(move |connection| self::claim(connection, &model, claim, now))
            .await
    }

    async fn fill(&self, model: &Model, filled: Vec<Filled>) -> Result<()> {
        let (model, now) = (model.clone(), self.clock.now());
        self.write(move |connection| fill(connection, &model, &filled, now))
            .await
    }

    async fn lacking(&self, model: &Model) -> Result<u64> {
        let model = model.clone();
        self.readers
            .read(move |connection| lacking(connection, &model))
            .await
    }

    async fn nearest(&self, tenant: &TenantId, query: NearestQuery) -> Result<NearestPage> {
        let (tenant, now) = (tenant.clone(), self.clock.now());
        // Before the search: what is indexed meanwhile it may not have seen.
        let unindexed = self.backlog.lag();
        let page = self
            .readers
            .read(move |connection| nearest(connection, &tenant, &query, now))
            .await?;
        Ok(NearestPage {
            lag_items: page.lag_items + unindexed,
            ..page
        })
    }
}

fn model_no(connection: &Connection, model: &Model) -> Result<Option<i64>> {
    let mut statement = connection
        .prepare_cached("SELECT model_no FROM embedding_models WHERE name = ?1 AND dimensions = ?2")?;
    Ok(statement
        .query_row(params![&*model.name, model.dimensions], |row| row.get(0))
        .optional()?)
}

fn is_idle(connection: &Connection, model: &Model, now: Timestamp) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM embedding_models
                        WHERE name = ?1 AND dimensions = ?2 AND used_at > ?4)
            AND NOT EXISTS (SELECT 1 FROM embedding e JOIN embedding_models m USING (model_no)
                            WHERE m.name = ?1 AND m.dimensions = ?2 AND e.due_at <= ?3)",
    )?;
    let touched = now.saturating_sub(TOUCH).as_micros();
    let idle = statement.query_row(
        params![&*model.name, model.dimensions, now.as_micros(), touched],
        |row| row.get(0),
    )?;
    Ok(idle)
}

/// The model's number, noted as used; a new one has all streams to do.
fn open(connection: &Connection, model: &Model, now: Timestamp) -> Result<i64> {
    if let Some(model_no) = model_no(connection, model)? {
        connection
            .prepare_cached("UPDATE embedding_models SET used_at = ?2 WHERE model_no = ?1 AND used_at < ?3")?
            .execute(params![
                model_no,
                now.as_micros(),
                now.saturating_sub(TOUCH).as_micros()
            ])?;
        return Ok(model_no);
    }
    connection
        .prepare_cached("INSERT INTO embedding_models (name, dimensions, used_at) VALUES (?1, ?2, ?3)")?
        .execute(params![&*model.name, model.dimensions, now.as_micros()])?;
    let model_no = connection.last_insert_rowid();
    connection
        .prepare_cached(
            "INSERT INTO embedding (model_no, stream_no, done_seq, news, due_at)
             SELECT ?1, stream_no, 0, 0, 0 FROM streams",
        )?
        .execute([model_no])?;
    Ok(model_no)
}

/// Notes for all models that a stream has news. The indexer calls it.
pub(super) fn mark(connection: &Connection, stream_no: i64) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO embedding (model_no, stream_no, done_seq, news, due_at)
             SELECT model_no, ?1, 0, 1, 0 FROM embedding_models WHERE name IS NOT NULL
             ON CONFLICT (model_no, stream_no) DO UPDATE SET news = news + 1, due_at = coalesce(due_at, 0)",
        )?
        .execute([stream_no])?;
    Ok(())
}

/// A stream that is due.
struct Due {
    stream_no: i64,
    done_seq: i64,
    news: i64,
}

fn claim(connection: &Connection, model: &Model, claim: Claim, now: Timestamp) -> Result<Vec<Lot>> {
    let model_no = open(connection, model, now)?;
    let mut select = connection.prepare_cached(
        "SELECT stream_no, done_seq, news FROM embedding
         WHERE model_no = ?1 AND due_at <= ?2 ORDER BY due_at, stream_no LIMIT ?3",
    )?;
    let due: Vec<Due> = select
        .query_map(params![model_no, now.as_micros(), claim.items_max], |row| {
            Ok(Due {
                stream_no: row.get(0)?,
                done_seq: row.get(1)?,
                news: row.get(2)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut lease = connection
        .prepare_cached("UPDATE embedding SET due_at = ?3 WHERE model_no = ?1 AND stream_no = ?2")?;
    let until = now.saturating_add(claim.lease).as_micros();
    let (mut items, mut bytes) = (claim.items_max as usize, 0);
    let mut lots = Vec::new();
    for due in due {
        if items == 0 || (bytes > claim.bytes_max && !lots.is_empty()) {
            break;
        }
        lease.execute(params![model_no, due.stream_no, until])?;
        let lot = read(connection, &due, items, claim.bytes_max, &mut bytes)?;
        items -= lot.items.len();
        lots.push(lot);
    }
    Ok(lots)
}

/// The next items of a stream, up to as many and as large as there is room for.
fn read(connection: &Connection, due: &Due, room: usize, bytes_max: u64, bytes: &mut u64) -> Result<Lot> {
    let mut lot = Lot {
        stream: due.stream_no.cast_unsigned(),
        news: due.news,
        items: Vec::new(),
        ends: true,
    };
    let mut select = connection
        .prepare_cached("SELECT rid, body FROM items WHERE rid > ?1 AND rid < ?2 ORDER BY rid LIMIT ?3")?;
    let from = rid(due.stream_no, due.done_seq.cast_unsigned());
    let limit = int(room as u64 + 1);
    let mut rows = select.query(params![from, rid(due.stream_no + 1, 0), limit])?;
    while let Some(row) = rows.next()? {
        let body: String = row.get(1)?;
        *bytes += body.len() as u64;
        if lot.items.len() == room || (*bytes > bytes_max && !lot.items.is_empty()) {
            lot.ends = false;
            break;
        }
        lot.items.push(Text {
            seq: seq_of(row.get(0)?),
            text: searchable_text(&body),
        });
    }
    Ok(lot)
}

fn fill(connection: &Connection, model: &Model, filled: &[Filled], now: Timestamp) -> Result<()> {
    let Some(model_no) = model_no(connection, model)? else {
        return Ok(());
    };
    let mut move_on = connection.prepare_cached(
        "UPDATE embedding SET done_seq = max(done_seq, ?3),
                due_at = CASE WHEN ?4 AND news = ?5 THEN NULL ELSE ?6 END
         WHERE model_no = ?1 AND stream_no = ?2",
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO vectors (rid, model_no, tenant_no, created_at, role, vector)
         SELECT i.rid, ?2, c.tenant_no, i.created_at, i.role, ?4 FROM items i, streams s JOIN contexts c USING (ctx_no)
         WHERE i.rid = ?1 AND s.stream_no = ?3",
    )?;
    for lot in filled {
        let stream_no = lot.stream.cast_signed();
        let through = int(lot.through);
        let moved = move_on.execute(params![
            model_no,
            stream_no,
            through,
            lot.ends,
            lot.news,
            now.as_micros()
        ])?;
        if moved == 0 {
            continue;
        }
        for (seq, vector) in &lot.vectors {
            insert.execute(params![
                rid(stream_no, *seq),
                model_no,
                stream_no,
                vector.as_bytes()
            ])?;
        }
    }
    Ok(())
}

fn lacking(connection: &Connection, model: &Model) -> Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM (
             SELECT 1 FROM embedding_models m JOIN embedding e USING (model_no)
             JOIN items i ON i.rid > (e.stream_no << 32 | e.done_seq) AND i.rid < (e.stream_no + 1) << 32
             WHERE m.name = ?1 AND m.dimensions = ?2 AND e.due_at IS NOT NULL LIMIT ?3)",
    )?;
    let count: i64 = statement.query_row(params![&*model.name, model.dimensions, LAG_ITEMS_MAX], |row| {
        row.get(0)
    })?;
    Ok(count.cast_unsigned())
}

fn nearest(
    connection: &Connection,
    tenant: &TenantId,
    query: &NearestQuery,
    now: Timestamp,
) -> Result<NearestPage> {
    let mut page = NearestPage {
        hits: Vec::new(),
        more: false,
        scanned: 0,
        cut_off: false,
        lag_items: lacking(connection, &query.model)?,
    };
    let mut scan = Scan {
        query,
        best: Best::new(query.ranked()),
        cut_off: false,
    };
    if let Some(id) = &query.search.context {
        let head = rows::head(connection, &ContextKey::new(tenant.clone(), id.clone()), now)?;
        if let Some(model_no) = model_no(connection, &query.model)? {
            scan.within(connection, model_no, &streams::all(connection, &head)?)?;
        }
    } else if let Some(model_no) = model_no(connection, &query.model)?
        && let Some(tenant_no) = rows::tenant_no(connection, tenant)?
    {
        scan.everywhere(connection, model_no, tenant_no)?;
    }
    page.scanned = scan.best.shown();
    page.cut_off = scan.cut_off;
    let search = &query.search;
    let mut skipped = 0;
    for (score, rid) in scan.best.into_sorted() {
        let context = match &search.context {
            Some(id) => Some(id.clone()),
            None => index::owner(connection, rid, now)?,
        };
        let Some(context) = context else { continue };
        let Some(item) = index::item(connection, rid)? else {
            continue;
        };
        if skipped < search.offset {
            skipped += 1;
        } else if page.hits.len() == search.limit as usize {
            page.more = true;
            break;
        } else {
            page.hits.push(Hit {
                context,
                snippet: snippet(&searchable_text(&item.body), &search.query),
                item,
                score: f64::from(score),
            });
        }
    }
    Ok(page)
}

/// A walk through vectors, newest first.
struct Scan<'query> {
    query: &'query NearestQuery,
    best: Best<i64>,
    cut_off: bool,
}

impl Scan<'_> {
    fn everywhere(&mut self, connection: &Connection, model_no: i64, tenant_no: i64) -> Result<()> {
        let mut statement = connection.prepare_cached(
            "SELECT rid, vector FROM vectors
             WHERE model_no = ?1 AND tenant_no = ?2 AND created_at >= ?3 AND created_at < ?4
               AND (?5 IS NULL OR role = ?5)
             ORDER BY created_at DESC, rid DESC LIMIT ?6",
        )?;
        let (since, until) = self.query.times();
        let role = self.query.search.role.map(crate::Role::as_str);
        let limit = i64::from(self.query.scan_max) + 1;
        let mut rows = statement.query(params![model_no, tenant_no, since, until, role, limit])?;
        while let Some(row) = rows.next()? {
            self.look_at(row)?;
        }
        Ok(())
    }

    fn within(&mut self, connection: &Connection, model_no: i64, spans: &[streams::Span]) -> Result<()> {
        let mut statement = connection.prepare_cached(
            "SELECT rid, vector FROM vectors
             WHERE rid BETWEEN ?1 AND ?2 AND model_no = ?3 AND created_at >= ?4 AND created_at < ?5
               AND (?6 IS NULL OR role = ?6)
             ORDER BY rid DESC LIMIT ?7",
        )?;
        let (since, until) = self.query.times();
        let role = self.query.search.role.map(crate::Role::as_str);
        for span in spans.iter().rev() {
            let (first, last) = span.rids();
            let room = u64::from(self.query.scan_max).saturating_sub(self.best.shown()) + 1;
            let mut rows = statement.query(params![first, last, model_no, since, until, role, int(room)])?;
            while let Some(row) = rows.next()? {
                self.look_at(row)?;
            }
            if self.cut_off {
                break;
            }
        }
        Ok(())
    }

    fn look_at(&mut self, row: &Row<'_>) -> Result<()> {
        if self.best.shown() >= u64::from(self.query.scan_max) {
            self.cut_off = true;
            return Ok(());
        }
        let vector = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        // All of a model have its dimensions, so there is always a cosine.
        if let Some(cosine) = self.query.direction.cosine(vector) {
            self.best.show(cosine, row.get(0)?);
        }
        Ok(())
    }
}

/// Removes the vectors of an item that the purge removes.
pub(super) fn forget(connection: &Connection, rid: i64) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM vectors WHERE rid = ?1")?
        .execute([rid])?;
    Ok(())
}

/// Forgets how far a stream was that is gone.
pub(super) fn forget_stream(connection: &Connection, stream_no: i64) -> Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM embedding WHERE stream_no = ?1 AND model_no IN (SELECT model_no FROM embedding_models)
               AND NOT EXISTS (SELECT 1 FROM streams WHERE stream_no = ?1)",
        )?
        .execute([stream_no])?;
    Ok(())
}

/// Removes what is of models that nobody has used for long; answers how many rows that were.
pub(super) fn forget_models(connection: &Connection, now: Timestamp, limit: u32) -> Result<u64> {
    let before = now.saturating_sub(MODEL_KEPT).as_micros();
    connection
        .prepare_cached("UPDATE embedding_models SET name = NULL WHERE used_at < ?1 AND name IS NOT NULL")?
        .execute([before])?;
    let gone: Option<i64> = connection
        .prepare_cached("SELECT model_no FROM embedding_models WHERE name IS NULL LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(model_no) = gone else { return Ok(0) };
    let mut removed = connection
        .prepare_cached(
            "DELETE FROM vectors WHERE rowid IN (SELECT rowid FROM vectors WHERE model_no = ?1 LIMIT ?2)",
        )?
        .execute(params![model_no, limit])? as u64;
    let left = u64::from(limit) - removed;
    removed += connection
        .prepare_cached(
            "DELETE FROM embedding WHERE model_no = ?1 AND stream_no IN
               (SELECT stream_no FROM embedding WHERE model_no = ?1 LIMIT ?2)",
        )?
        .execute(params![model_no, int(left)])? as u64;
    if removed < u64::from(limit) {
        connection
            .prepare_cached("DELETE FROM embedding_models WHERE model_no = ?1")?
            .execute([model_no])?;
        removed += 1;
    }
    Ok(removed)
}
