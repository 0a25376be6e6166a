//! What is nearest: the vectors come in pages, newest first, and are compared here. Postgres has no operator for them
//! without an extension, and an index of one would only be about right.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::indexer;
use super::link::{Session, Statement};
use super::read::{self, Read};
use super::rows::{Head, get, int, item_of};
use super::search::context_of;
use super::vectors;
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::item::searchable_text;
use crate::search::snippet;
use crate::semantic::{Best, Model, NearestPage, NearestQuery};
use crate::store::Hit;
use crate::{Item, Timestamp};

/// Vectors of one page: at 4096 dimensions two megabytes.
const PAGE: i64 = 500;

pub(super) static EVERYWHERE: Statement = Statement {
    name: "nearest_scan",
    sql: "SELECT v.stream_no, v.seq, v.vector, v.created_at FROM contextkeep.vectors v
          WHERE v.model_no = $1 AND v.tenant = $2 AND v.created_at >= $3 AND ($4 IS NULL OR v.role = $4)
            AND (v.created_at, v.stream_no, v.seq) < ($5, $6, $7)
          ORDER BY v.created_at DESC, v.stream_no DESC, v.seq DESC LIMIT $8",
    types: &[
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ],
};

/// In the ranges of streams that a context is made of.
pub(super) static WITHIN: Statement = Statement {
    name: "nearest_scan_context",
    sql: "SELECT v.stream_no, v.seq, v.vector
          FROM contextkeep.spans p
          CROSS JOIN LATERAL (
              SELECT v.stream_no, v.seq, v.vector FROM contextkeep.vectors v
              WHERE v.stream_no = p.source_no AND v.seq BETWEEN greatest(p.first_seq, $3) AND least(p.last_seq, $4)
                AND v.model_no = $1 AND v.created_at >= $5 AND v.created_at < $6 AND ($7 IS NULL OR v.role = $7)
              ORDER BY v.seq DESC LIMIT $8) v
          WHERE p.stream_no = $2 AND p.first_seq <= $4 AND p.last_seq >= $3
          ORDER BY v.seq DESC LIMIT $8",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
    ],
};

/// Items whose context is there.
static SHOWN: Statement = Statement {
    name: "nearest_items",
    sql: concat!(
        "SELECT w.ord, c.id, i.seq, i.created_at, i.importance, i.tokens, i.pinned, i.role, i.kind, i.client_id,
                 i.links, i.body
          FROM unnest($1, $2) WITH ORDINALITY AS w (stream_no, seq, ord)
          JOIN contextkeep.items i ON i.stream_no = w.stream_no AND i.seq = w.seq
          ",
        context_of!("w"),
        "
          ORDER BY w.ord OFFSET $5 LIMIT $6"
    ),
    types: &[
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ],
};

/// Items of a context that is there.
static SHOWN_WITHIN: Statement = Statement {
    name: "nearest_items_context",
    sql: "SELECT w.ord, NULL::text, i.seq, i.created_at, i.importance, i.tokens, i.pinned, i.role, i.kind, i.client_id,
                 i.links, i.body
          FROM unnest($1, $2) WITH ORDINALITY AS w (stream_no, seq, ord)
          JOIN contextkeep.items i ON i.stream_no = w.stream_no AND i.seq = w.seq
          ORDER BY w.ord OFFSET $3 LIMIT $4",
    types: &[Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT8, Type::INT8],
};

/// A page of hits, best first.
pub(super) async fn nearest(
    session: &Session,
    tenant: &TenantId,
    query: &NearestQuery,
    now: Timestamp,
) -> Read<NearestPage> {
    let lag_items = match lag(session, &query.model).await? {
        Ok(items) => items,
        Err(error) => return Ok(Err(error)),
    };
    let head = match &query.search.context {
        None => None,
        Some(id) => {
            let key = ContextKey::new(tenant.clone(), id.clone());
            match read::head_in(session, &key, now).await? {
                Ok(head) => Some(head),
                Err(error) => return Ok(Err(error)),
            }
        }
    };
    let mut scan = Scan {
        query,
        left: i64::from(query.scan_max),
        cut_off: false,
        best: Best::new(query.ranked()),
    };
    match vectors::model_no(session, &query.model).await? {
        Err(error) => return Ok(Err(error)),
        Ok(None) => {}
        Ok(Some(model_no)) => {
            let walked = match &head {
                Some(head) => scan.within(session, model_no, head).await?,
                None => scan.everywhere(session, model_no, tenant).await?,
            };
            if let Err(error) = walked {
                return Ok(Err(error));
            }
        }
    }
    let (scanned, cut_off) = (scan.best.shown(), scan.cut_off);
    let (mut stream_nos, mut seqs, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for (score, (stream_no, seq)) in scan.best.into_sorted() {
        stream_nos.push(stream_no);
        seqs.push(seq);
        scores.push(f64::from(score));
    }
    let (offset, limit) = (i64::from(query.search.offset), i64::from(query.search.limit) + 1);
    let rows = if head.is_some() {
        session
            .query(&SHOWN_WITHIN, &[&stream_nos, &seqs, &offset, &limit])
            .await?
    } else {
        let (tenant, now) = (tenant.as_str(), now.as_micros());
        let params: [&(dyn ToSql + Sync); 6] = [&stream_nos, &seqs, &tenant, &now, &offset, &limit];
        session.query(&SHOWN, &params).await?
    };
    Ok(hits_of(&rows, query, &scores).map(|mut hits| {
        let more = hits.len() > query.search.limit as usize;
        hits.truncate(query.search.limit as usize);
        NearestPage {
            hits,
            more,
            scanned,
            cut_off,
            lag_items,
        }
    }))
}

/// Items that cannot be found by meaning yet.
async fn lag(session: &Session, model: &Model) -> Read<u64> {
    let lacking = vectors::lacking(session, model).await?;
    let unseen = indexer::lag(session).await?;
    Ok(lacking.and_then(|lacking| Ok(lacking + unseen?)))
}

fn hits_of(rows: &[Row], query: &NearestQuery, scores: &[f64]) -> Result<Vec<Hit>> {
    let search = &query.search;
    rows.iter()
        .map(|row| {
            let place = usize::try_from(get::<i64>(row, 0)? - 1).ok();
            let score = place.and_then(|place| scores.get(place)).copied();
            let item: Item = item_of(row, 2)?;
            Ok(Hit {
                context: match &search.context {
                    Some(id) => id.clone(),
                    None => ContextId::parse(get(row, 1)?)?,
                },
                score: score.ok_or_else(|| Error::internal("a hit that was not asked for"))?,
                snippet: snippet(&searchable_text(&item.body), &search.query),
                item,
            })
        })
        .collect()
}

/// A walk through vectors, newest first.
struct Scan<'query> {
    query: &'query NearestQuery,
    left: i64,
    cut_off: bool,
    best: Best<(i64, i64)>,
}

impl Scan<'_> {
    async fn everywhere(&mut self, session: &Session, model_no: i64, tenant: &TenantId) -> Read<()> {
        let (since, until) = self.query.times();
        let role = self.query.search.role.map(crate::Role::as_str);
        let tenant = tenant.as_str();
        let (mut at, mut stream_no, mut seq) = (until, 0_i64, 0_i64);
        loop {
            let limit = self.page();
            let params: [&(dyn ToSql + Sync); 8] =
                [&model_no, &tenant, &since, &role, &at, &stream_no, &seq, &limit];
            let rows = session.query(&EVERYWHERE, &params).await?;
            if let Err(error) = self.look_at(&rows) {
                return Ok(Err(error));
            }
            let Some(last) = self.goes_on(&rows, limit) else {
                return Ok(Ok(()));
            };
            let place = || -> Result<_> { Ok((get(last, 3)?, get(last, 0)?, get(last, 1)?)) };
            (at, stream_no, seq) = match place() {
                Ok(place) => place,
                Err(error) => return Ok(Err(error)),
            };
        }
    }

    async fn within(&mut self, session: &Session, model_no: i64, head: &Head) -> Read<()> {
        let (since, until) = self.query.times();
        let role = self.query.search.role.map(crate::Role::as_str);
        let first = int(head.context.first_seq);
        let mut last = int(head.context.next_seq) - 1;
        loop {
            let limit = self.page();
            let params: [&(dyn ToSql + Sync); 8] = [
                &model_no,
                &head.stream_no,
                &first,
                &last,
                &since,
                &until,
                &role,
                &limit,
            ];
            let rows = session.query(&WITHIN, &params).await?;
            if let Err(error) = self.look_at(&rows) {
                return Ok(Err(error));
            }
            let Some(oldest) = self.goes_on(&rows, limit) else {
                return Ok(Ok(()));
            };
            last = match get::<i64>(oldest, 1) {
                Ok(seq) => seq - 1,
                Err(error) => return Ok(Err(error)),
            };
        }
    }

    /// How many to ask for: one more than may be looked at, to know whether there are more.
    fn page(&self) -> i64 {
        PAGE.min(self.left + 1)
    }

    fn look_at(&mut self, rows: &[Row]) -> Result<()> {
        for row in rows {
            if self.left == 0 {
                self.cut_off = true;
                break;
            }
            self.left -= 1;
            // All of a model have its dimensions, so there is always a cosine.
            if let Some(cosine) = self.query.direction.cosine(get(row, 2)?) {
                self.best.show(cosine, (get(row, 0)?, get(row, 1)?));
            }
        }
        Ok(())
    }

    /// Where the next page begins, if there may be one.
    fn goes_on<'rows>(&self, rows: &'rows [Row], asked: i64) -> Option<&'rows Row> {
        let is_full = i64::try_from(rows.len()).is_ok_and(|count| count >= asked);
        rows.last().filter(|_| is_full && !self.cut_off)
    }
}
