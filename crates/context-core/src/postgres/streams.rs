//! Streams and the spans that they are made of. The rules are those of the embedded store:
//!
//! - **E1** The spans of a stream are disjoint and ascending; the last one is its own and open-ended.
//! - **E2** A span names the stream that holds the rows, never one that only points on.
//! - **E3** Rows are reachable exactly when a span covers them; the purge removes the rest. Whoever makes a span over
//!   another stream's rows holds the lock of a head that still covers them, so that the purge cannot come in between.

use tokio_postgres::types::Type;

use super::link::{Session, Statement};
use super::rows::{Head, SEQ_MAX, count, get, int};
use super::transaction::Outcome;
use crate::Seq;
use crate::error::{Error, Invalid};
use crate::store::{SPANS_MAX, SeqRange};

/// A range of seqs and the stream that holds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) source_no: i64,
}

impl Span {
    /// The part of it inside `range`, if any.
    pub(super) fn within(self, range: SeqRange) -> Option<Self> {
        let (first, last) = (self.first.max(range.first), self.last.min(range.last));
        (first <= last).then_some(Self { first, last, ..self })
    }
}

/// Items and tokens of some spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) items: u64,
    pub(super) tokens: u64,
}

static SPANS: Statement = Statement {
    name: "spans",
    sql: "SELECT first_seq, last_seq, source_no FROM contextkeep.spans
          WHERE stream_no = $1 AND first_seq <= $3 AND last_seq >= $2 ORDER BY first_seq",
    types: &[Type::INT8, Type::INT8, Type::INT8],
};

/// The spans of a stream that lie inside `range`, ascending.
pub(super) async fn spans(session: &Session, stream_no: i64, range: SeqRange) -> Outcome<Vec<Span>> {
    let (first, last) = (int(range.first), int(range.last));
    let rows = session.query(&SPANS, &[&stream_no, &first, &last]).await?;
    let mut spans = Vec::with_capacity(rows.len());
    for row in &rows {
        let span = Span {
            first: count(row, 0)?,
            last: count(row, 1)?,
            source_no: get(row, 2)?,
        };
        spans.extend(span.within(range));
    }
    Ok(spans)
}

/// The spans of all items that a head has.
pub(super) async fn all(session: &Session, head: &Head) -> Outcome<Vec<Span>> {
    if head.context.item_count == 0 {
        return Ok(Vec::new());
    }
    let range = SeqRange {
        first: head.context.first_seq,
        last: head.context.next_seq - 1,
    };
    spans(session, head.stream_no, range).await
}

static CREATE: Statement = Statement {
    name: "create_stream",
    sql: "WITH s AS (INSERT INTO contextkeep.streams (ctx_no) VALUES ($1) RETURNING stream_no),
               own AS (INSERT INTO contextkeep.spans (stream_no, first_seq, last_seq, source_no)
                       SELECT stream_no, $2, $3, stream_no FROM s),
               shared AS (INSERT INTO contextkeep.spans (stream_no, first_seq, last_seq, source_no)
                          SELECT s.stream_no, p.first_seq, p.last_seq, p.source_no
                          FROM s, unnest($4, $5, $6) AS p (first_seq, last_seq, source_no))
          SELECT stream_no FROM s",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
    ],
};

/// A new stream for a context, made of `shared` and, from `next_seq` on, of its own items.
pub(super) async fn create(session: &Session, ctx_no: i64, shared: &[Span], next_seq: Seq) -> Outcome<i64> {
    if shared.len() >= SPANS_MAX {
        let problem = format!("would make the context of more than {SPANS_MAX} pieces");
        return Err(Error::from(
            Invalid::new("", problem).hint("replace its items once, which makes it one piece again"),
        )
        .into());
    }
    let firsts: Vec<i64> = shared.iter().map(|span| int(span.first)).collect();
    let lasts: Vec<i64> = shared.iter().map(|span| int(span.last)).collect();
    let sources: Vec<i64> = shared.iter().map(|span| span.source_no).collect();
    let rows = session
        .query(
            &CREATE,
            &[&ctx_no, &int(next_seq), &SEQ_MAX, &firsts, &lasts, &sources],
        )
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::internal("a new stream has no number"))?;
    Ok(get(row, 0)?)
}

static RELEASE: Statement = Statement {
    name: "release_stream",
    sql: "WITH gone AS (DELETE FROM contextkeep.spans WHERE stream_no = $1 RETURNING source_no)
          INSERT INTO contextkeep.purge_queue (stream_no)
          SELECT source_no FROM gone UNION SELECT $1 ON CONFLICT DO NOTHING",
    types: &[Type::INT8],
};

/// Lets go of a stream: its spans are gone, and what they covered is looked at by the purge.
pub(super) async fn release(session: &Session, stream_no: i64) -> Outcome<()> {
    session.execute(&RELEASE, &[&stream_no]).await?;
    Ok(())
}

static SUM: Statement = Statement {
    name: "sum_of_spans",
    sql: "SELECT (SELECT i.total FROM contextkeep.items i WHERE i.stream_no = p.source_no AND i.seq = p.last_seq)
               - (SELECT i.total - i.tokens FROM contextkeep.items i
                  WHERE i.stream_no = p.source_no AND i.seq = p.first_seq)
          FROM unnest($1, $2, $3) WITH ORDINALITY AS p (first_seq, last_seq, source_no, ord) ORDER BY p.ord",
    types: &[Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY],
};

/// Items and tokens of spans whose rows are all there. A range's tokens are a difference of running totals, so the
/// cost does not depend on its length.
pub(super) async fn sum(session: &Session, spans: &[Span]) -> Outcome<Sum> {
    let firsts: Vec<i64> = spans.iter().map(|span| int(span.first)).collect();
    let lasts: Vec<i64> = spans.iter().map(|span| int(span.last)).collect();
    let sources: Vec<i64> = spans.iter().map(|span| span.source_no).collect();
    let rows = session.query(&SUM, &[&firsts, &lasts, &sources]).await?;
    let mut sum = Sum::default();
    for (span, row) in spans.iter().zip(&rows) {
        let Some(tokens) = get::<Option<i64>>(row, 0)? else {
            return Err(Error::StorageDamaged {
                detail: format!(
                    "items {} to {} of stream {} are not all there",
                    span.first, span.last, span.source_no
                ),
            }
            .into());
        };
        sum.items += span.last - span.first + 1;
        sum.tokens += tokens.cast_unsigned();
    }
    Ok(sum)
}
