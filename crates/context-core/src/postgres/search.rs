//! Full text search over the vectors that [`super::indexer`] makes.
//!
//! A vector's words are ours ([`crate::search`]), not those of one of Postgres' dictionaries, so that a query means the
//! same on both stores. Postgres keeps 16,383 positions of a text: a phrase further behind is not found.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::link::{Session, Statement};
use super::read::Read;
use super::rows::{get, item_of};
use super::{indexer, read, vector};
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::item::searchable_text;
use crate::search::{Query, Term, snippet};
use crate::store::{Hit, SearchPage, SearchQuery};
use crate::{Item, Timestamp};

/// Hits are ranked before it is known which of them can be seen: this many more are ranked than the page needs, for
/// those whose context is gone.
const RESERVE: i64 = 256;

/// The best of the hits that the page is made of, of which as many as parameter `$2` are ranked.
macro_rules! ranked {
    ($admitted:literal) => {
        concat!(
            "SELECT w.stream_no, w.seq, ts_rank_cd(w.vector, $1::text::tsquery)::double precision AS score
             FROM contextkeep.words w WHERE w.vector @@ $1::text::tsquery",
            $admitted,
            " ORDER BY 3 DESC, w.stream_no DESC, w.seq DESC LIMIT $2"
        )
    };
}

/// The context in which an item of these columns is shown to the tenant `$3` at the time `$4`: the one that it was appended
/// to, else one that was forked from it.
macro_rules! context_of {
    ($row:literal) => {
        concat!(
            "CROSS JOIN LATERAL (
              SELECT c.id FROM contextkeep.spans p
              JOIN contextkeep.streams s ON s.stream_no = p.stream_no
              JOIN contextkeep.heads h ON h.ctx_no = s.ctx_no AND h.stream_no = p.stream_no
              JOIN contextkeep.contexts c ON c.ctx_no = h.ctx_no
              WHERE p.source_no = ",
            $row,
            ".stream_no AND p.first_seq <= ",
            $row,
            ".seq AND p.last_seq >= ",
            $row,
            ".seq AND c.tenant = $3
                AND h.deleted_at IS NULL AND (h.expires_at IS NULL OR h.expires_at > $4)
              ORDER BY p.stream_no <> p.source_no, c.ctx_no LIMIT 1
          ) c"
        )
    };
}
pub(super) use context_of;

/// Hits whose context is there.
macro_rules! everywhere {
    ($admitted:literal) => {
        concat!(
            "WITH found AS MATERIALIZED (",
            ranked!($admitted),
            ")
          SELECT c.id, f.score, i.seq, i.created_at, i.importance, i.tokens, i.pinned, i.role, i.kind, i.client_id,
                 i.links, i.body
          FROM found f
          JOIN contextkeep.items i ON i.stream_no = f.stream_no AND i.seq = f.seq
          ",
            context_of!("f"),
            "
          WHERE ($5 IS NULL OR i.role = $5) AND i.created_at >= $8 AND i.created_at < $9
          ORDER BY f.score DESC, f.stream_no DESC, f.seq DESC OFFSET $6 LIMIT $7"
        )
    };
}

const EVERYWHERE_TYPES: &[Type] = &[
    Type::TEXT,
    Type::INT8,
    Type::TEXT,
    Type::INT8,
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
];

static EVERYWHERE: Statement = Statement {
    name: "search",
    sql: everywhere!(""),
    types: EVERYWHERE_TYPES,
};

/// With a filter: what it leaves out must not use up the reserve, so it is left out before.
static FILTERED: Statement = Statement {
    name: "search_filtered",
    sql: everywhere!(
        " AND EXISTS (SELECT 1 FROM contextkeep.items i WHERE i.stream_no = w.stream_no AND i.seq = w.seq
                        AND ($5 IS NULL OR i.role = $5) AND i.created_at >= $8 AND i.created_at < $9)"
    ),
    types: EVERYWHERE_TYPES,
};

/// Hits in one context: in the ranges of streams that it is made of.
static WITHIN: Statement = Statement {
    name: "search_context",
    sql: "WITH spans AS MATERIALIZED (
              SELECT p.source_no, greatest(p.first_seq, $3) AS low, least(p.last_seq, $4) AS high
              FROM contextkeep.spans p WHERE p.stream_no = $2 AND p.first_seq <= $4 AND p.last_seq >= $3
          ), wanted AS MATERIALIZED (
              SELECT $1::text::tsquery && coalesce(
                  (SELECT string_agg(DISTINCT '''@' || source_no || '''', ' | ') FROM spans)::tsquery, ''::tsquery
              ) AS query
          )
          SELECT NULL::text, ts_rank_cd(w.vector, $1::text::tsquery)::double precision AS score,
                 i.seq, i.created_at, i.importance, i.tokens, i.pinned, i.role, i.kind, i.client_id, i.links, i.body
          FROM wanted q
          JOIN contextkeep.words w ON w.vector @@ q.query
          JOIN contextkeep.items i ON i.stream_no = w.stream_no AND i.seq = w.seq
          WHERE EXISTS (SELECT 1 FROM spans s WHERE s.source_no = w.stream_no AND w.seq BETWEEN s.low AND s.high)
            AND ($5 IS NULL OR i.role = $5) AND i.created_at >= $8 AND i.created_at < $9
          ORDER BY 2 DESC, w.stream_no DESC, w.seq DESC OFFSET $6 LIMIT $7",
    types: &[
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ],
};

/// A page of hits, best first.
pub(super) async fn search(
    session: &Session,
    tenant: &TenantId,
    query: &SearchQuery,
    now: Timestamp,
) -> Read<SearchPage> {
    let wanted = tsquery(&query.query, tenant);
    let role = query.role.map(crate::Role::as_str);
    let since = query.since.map_or(i64::MIN, Timestamp::as_micros);
    let until = query.until.map_or(i64::MAX, Timestamp::as_micros);
    let (offset, limit) = (i64::from(query.offset), i64::from(query.limit) + 1);
    // Before the search: what is indexed meanwhile it may not have seen.
    let lag_items = indexer::lag(session).await?;
    let rows = if let Some(id) = &query.context {
        let key = ContextKey::new(tenant.clone(), id.clone());
        let head = match read::head_in(session, &key, now).await? {
            Ok(head) => head,
            Err(error) => return Ok(Err(error)),
        };
        let (first, last) = (head.context.first_seq, head.context.next_seq);
        let params: [&(dyn ToSql + Sync); 9] = [
            &wanted,
            &head.stream_no,
            &super::rows::int(first),
            &(super::rows::int(last) - 1),
            &role,
            &offset,
            &limit,
            &since,
            &until,
        ];
        session.query(&WITHIN, &params).await?
    } else {
        let ranked = (offset + limit) * 4 + RESERVE;
        let params: [&(dyn ToSql + Sync); 9] = [
            &wanted,
            &ranked,
            &tenant.as_str(),
            &now.as_micros(),
            &role,
            &offset,
            &limit,
            &since,
            &until,
        ];
        let is_filtered = role.is_some() || query.since.is_some() || query.until.is_some();
        let statement = if is_filtered { &FILTERED } else { &EVERYWHERE };
        session.query(statement, &params).await?
    };
    Ok(lag_items.and_then(|lag_items| page_of(&rows, query, lag_items)))
}

fn page_of(rows: &[Row], query: &SearchQuery, lag_items: u64) -> Result<SearchPage> {
    let mut hits = rows
        .iter()
        .map(|row| {
            let context = match &query.context {
                Some(id) => id.clone(),
                None => ContextId::parse(get(row, 0)?)?,
            };
            let item: Item = item_of(row, 2)?;
            let snippet = snippet(&searchable_text(&item.body), &query.query);
            Ok(Hit {
                context,
                score: get(row, 1)?,
                item,
                snippet,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let more = hits.len() > query.limit as usize;
    hits.truncate(query.limit as usize);
    Ok(SearchPage {
        hits,
        more,
        lag_items,
    })
}

/// The query in Postgres' words. Terms are made of letters and digits only, so quoting is enough.
fn tsquery(query: &Query, tenant: &TenantId) -> String {
    let group = |terms: &[Term]| terms.iter().map(phrase).collect::<Vec<_>>().join(" | ");
    let mut wanted = format!("'{}'", vector::tenant_word(tenant.as_str()));
    for terms in &query.required {
        wanted.extend([" & (", &group(terms), ")"]);
    }
    for term in &query.excluded {
        wanted.extend([" & !(", &phrase(term), ")"]);
    }
    wanted
}

fn phrase(term: &Term) -> String {
    let mut words: Vec<String> = term
        .words
        .iter()
        .map(|word| format!("'{}'", vector::word(word)))
        .collect();
    if term.prefix
        && let Some(last) = words.last_mut()
    {
        last.push_str(":*");
    }
    words.join(" <-> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_put_into_postgres_words() {
        let query = Query::parse("flight \"to paris\" rom* OR oslo -train").unwrap();
        assert_eq!(
            tsquery(&query, &TenantId::parse("acme").unwrap()),
            "'#acme' & ('flight') & ('to' <-> 'paris') & ('rom':* | 'oslo') & !('train')"
        );
    }
}
