//! Streams and the spans that they are made of.
//!
//! - **E1** The spans of a stream are disjoint and ascending; the last one is its own and open-ended.
//! - **E2** A span names the stream that holds the rows, never one that only points on: reading needs no
//!   recursion, however often a context was forked.
//! - **E3** Rows are reachable exactly when a span covers them; the purge removes the rest.

use rusqlite::{Connection, params};

use super::rows::{Head, SEQ_MAX, int, rid};
use crate::Seq;
use crate::error::{Error, Invalid, Result};
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

    pub(super) fn rids(self) -> (i64, i64) {
        (rid(self.source_no, self.first), rid(self.source_no, self.last))
    }
}

/// Items and tokens of some spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) items: u64,
    pub(super) tokens: u64,
}

/// The spans of a stream that lie inside `range`, ascending.
pub(super) fn spans(connection: &Connection, stream_no: i64, range: SeqRange) -> Result<Vec<Span>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_seq, last_seq, source_no FROM spans
         WHERE stream_no = ?1 AND first_seq <= ?3 AND last_seq >= ?2 ORDER BY first_seq",
    )?;
    let rows = statement.query_map(params![stream_no, int(range.first), int(range.last)], |row| {
        Ok(Span {
            first: row.get::<_, i64>(0)?.cast_unsigned(),
            last: row.get::<_, i64>(1)?.cast_unsigned(),
            source_no: row.get(2)?,
        })
    })?;
    let all: Vec<Span> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(all.into_iter().filter_map(|span| span.within(range)).collect())
}

/// A new stream for a context, made of `shared` and, from `next_seq` on, of its own items.
pub(super) fn create(connection: &Connection, ctx_no: i64, shared: &[Span], next_seq: Seq) -> Result<i64> {
    if shared.len() >= SPANS_MAX {
        return Err(Invalid::new(
            "",
            format!("would make the context of more than {SPANS_MAX} pieces"),
        )
        .hint("replace its items once, which makes it one piece again")
        .into());
    }
    connection
        .prepare_cached("INSERT INTO streams (ctx_no, indexed_rid) VALUES (?1, 0)")?
        .execute([ctx_no])?;
    let stream_no = connection.last_insert_rowid();
    if stream_no >= i64::from(i32::MAX) {
        return Err(Error::internal(
            "the data file has used up its stream numbers; export and import it",
        ));
    }
    connection
        .prepare_cached("UPDATE streams SET indexed_rid = ?2 WHERE stream_no = ?1")?
        .execute(params![stream_no, rid(stream_no, 0)])?;
    let own = Span {
        first: next_seq,
        last: SEQ_MAX,
        source_no: stream_no,
    };
    let mut insert = connection.prepare_cached(
        "INSERT INTO spans (stream_no, first_seq, last_seq, source_no) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for span in shared.iter().chain([&own]) {
        insert.execute(params![
            stream_no,
            int(span.first),
            int(span.last),
            span.source_no
        ])?;
    }
    Ok(stream_no)
}

/// Lets go of a stream: its spans are gone, and what they covered is looked at by the purge.
pub(super) fn release(connection: &Connection, stream_no: i64) -> Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO purge_queue SELECT source_no FROM spans WHERE stream_no = ?1")?
        .execute([stream_no])?;
    connection
        .prepare_cached("INSERT OR IGNORE INTO purge_queue VALUES (?1)")?
        .execute([stream_no])?;
    connection
        .prepare_cached("DELETE FROM spans WHERE stream_no = ?1")?
        .execute([stream_no])?;
    Ok(())
}

/// Items and tokens of spans whose rows are all there. A range's tokens are a difference of running totals,
/// so the cost does not depend on its length.
pub(super) fn sum(connection: &Connection, spans: &[Span]) -> Result<Sum> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT total FROM items WHERE rid = ?2) - (SELECT total - tokens FROM items WHERE rid = ?1)",
    )?;
    let mut sum = Sum::default();
    for span in spans {
        let (first, last) = span.rids();
        let tokens: Option<i64> = statement.query_row([first, last], |row| row.get(0))?;
        let Some(tokens) = tokens else {
            return Err(Error::StorageDamaged {
                detail: format!(
                    "items {} to {} of stream {} are not all there",
                    span.first, span.last, span.source_no
                ),
            });
        };
        sum.items += span.last - span.first + 1;
        sum.tokens += tokens.cast_unsigned();
    }
    Ok(sum)
}

/// The spans of all items that a head has.
pub(super) fn all(connection: &Connection, head: &Head) -> Result<Vec<Span>> {
    if head.context.item_count == 0 {
        return Ok(Vec::new());
    }
    spans(
        connection,
        head.stream_no,
        SeqRange {
            first: head.context.first_seq,
            last: head.context.next_seq - 1,
        },
    )
}
