//! Full text search: an FTS5 index that is fed by a thread of its own, behind the appends.
//!
//! - **F1** The index never holds up an append: it is written in batches of [`BATCH`] items, one batch at a
//!   time, each a job like any other in the writer's queue.
//! - **F2** `indexed_rid` of a stream moves in the transaction that indexes, so that a batch is indexed once
//!   even if two processes work on the same file or one dies in between.
//! - **F3** The lag is known at any time: items acknowledged and not indexed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;

use super::rows::{self, ITEM_COLUMNS, int, item_of, rid, seq_of, stream_of};
use super::writer::Writer;
use super::{streams, vectors};
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::item::searchable_text;
use crate::search::{Query, Term, snippet};
use crate::store::{Hit, SearchPage, SearchQuery};
use crate::{Item, Timestamp};

/// Items that one transaction indexes: about two milliseconds in which appends wait.
const BATCH: u32 = 32;
/// When to try a stream again whose indexing failed: the disk was full, or another process held the file.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long the indexer waits for company before it indexes less than a batch.
const LINGER: Duration = Duration::from_millis(20);

/// Which streams have items that are not indexed, and how many these are.
#[derive(Debug)]
pub(super) struct Backlog {
    state: Mutex<State>,
    changed: Condvar,
    lag: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Streams to look at.
    queue: BTreeSet<i64>,
    /// Items of each stream that are not indexed.
    unindexed: BTreeMap<i64, u64>,
    closed: bool,
}

impl Backlog {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            lag: watch::Sender::new(0),
        })
    }

    /// Notes items that were committed to a stream.
    pub(super) fn add(&self, stream_no: i64, items: u64) {
        if items > 0 {
            let mut state = self.lock();
            *state.unindexed.entry(stream_no).or_default() += items;
            state.queue.insert(stream_no);
            self.lag.send_modify(|lag| *lag += items);
            self.changed.notify_one();
        }
    }

    /// Notes what a batch indexed; none means that nothing is left in the stream. Called where appends are
    /// noted, on the writer's thread, so that the two cannot overtake each other.
    ///
    /// Another process may have indexed what was noted here, or appended what is indexed here: the count of a
    /// stream never goes below zero, and an empty batch ends it.
    pub(super) fn indexed(&self, stream_no: i64, items: u64) {
        let mut state = self.lock();
        let Some(unindexed) = state.unindexed.get_mut(&stream_no) else {
            return;
        };
        let gone = if items == 0 {
            *unindexed
        } else {
            items.min(*unindexed)
        };
        *unindexed -= gone;
        if *unindexed == 0 {
            state.unindexed.remove(&stream_no);
        }
        self.lag.send_modify(|lag| *lag -= gone);
    }

    /// Items acknowledged and not indexed.
    pub(super) fn lag(&self) -> u64 {
        *self.lag.borrow()
    }

    /// Waits until there are none.
    pub(super) async fn settled(&self) {
        // The sender lives as long as `self`, so the wait ends only by reaching zero.
        drop(self.lag.subscribe().wait_for(|lag| *lag == 0).await);
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The next stream to look at; `None` when closed.
    fn next(&self) -> Option<i64> {
        let nothing_to_do = |state: &mut State| !state.closed && state.queue.is_empty();
        let state = self.changed.wait_while(self.lock(), nothing_to_do);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        // Appends that come one by one are indexed together: each batch is a commit of its own.
        let few =
            |state: &mut State| !state.closed && state.unindexed.values().sum::<u64>() < u64::from(BATCH);
        let waited = self.changed.wait_timeout_while(state, LINGER, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            None
        } else {
            state.queue.pop_first()
        }
    }

    /// Puts a stream back and waits a while, or until the store is closed.
    fn put_back(&self, stream_no: i64) {
        let mut state = self.lock();
        state.queue.insert(stream_no);
        let waited = self
            .changed
            .wait_timeout_while(state, RETRY_AFTER, |state| !state.closed);
        drop(waited);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that feeds the index.
#[derive(Debug)]
pub(super) struct Indexer {
    backlog: Arc<Backlog>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Indexer {
    /// Starts the thread; it first looks for what an earlier process left unindexed.
    pub(super) fn start(writer: Arc<Writer>, backlog: Arc<Backlog>, reader: &Connection) -> Result<Self> {
        for (stream_no, items) in unindexed(reader)? {
            backlog.add(stream_no, items);
        }
        let queue = backlog.clone();
        let thread = std::thread::Builder::new()
            .name("contextkeep-indexer".into())
            .spawn(move || {
                while let Some(stream_no) = queue.next() {
                    index_stream(&writer, &queue, stream_no);
                }
            })
            .map_err(|error| crate::Error::internal(format!("starting the indexer: {error}")))?;
        Ok(Self {
            backlog,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Stops after the batch at hand; the rest is indexed at the next start.
    pub(super) fn close(&self) {
        self.backlog.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the indexer of the embedded store panicked");
        }
    }
}

fn index_stream(writer: &Writer, backlog: &Arc<Backlog>, stream_no: i64) {
    loop {
        let noted = backlog.clone();
        let batch = writer.write_blocking(
            move |connection| index_batch(connection, stream_no),
            move |items| noted.indexed(stream_no, *items),
        );
        match batch {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                // The items stay in the lag, which the health report shows.
                tracing::warn!(%error, stream_no, "indexing for search failed; it is tried again");
                return backlog.put_back(stream_no);
            }
        }
        if backlog.lock().closed {
            return;
        }
    }
}

fn unindexed(connection: &Connection) -> Result<Vec<(i64, u64)>> {
    let mut statement = connection.prepare(
        "SELECT s.stream_no, (SELECT count(*) FROM items i WHERE i.rid > s.indexed_rid AND i.rid < (s.stream_no + 1) << 32)
         FROM streams s
         WHERE EXISTS (SELECT 1 FROM items i WHERE i.rid > s.indexed_rid AND i.rid < (s.stream_no + 1) << 32)",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Indexes the next items of a stream; answers how many.
fn index_batch(connection: &Connection, stream_no: i64) -> Result<u64> {
    let from: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT s.indexed_rid, c.tenant_no FROM streams s JOIN contexts c USING (ctx_no) WHERE s.stream_no = ?1",
        )?
        .query_row([stream_no], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((indexed, tenant_no)) = from else {
        return Ok(0);
    };
    let mut select = connection
        .prepare_cached("SELECT rid, body FROM items WHERE rid > ?1 AND rid < ?2 ORDER BY rid LIMIT ?3")?;
    let mut insert =
        connection.prepare_cached("INSERT INTO search (rowid, scope, body) VALUES (?1, ?2, ?3)")?;
    let mut rows = select.query(params![indexed, rid(stream_no + 1, 0), BATCH])?;
    let (mut last, mut items) = (indexed, 0);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        insert.execute(params![
            last,
            scope(tenant_no),
            searchable_text(&row.get::<_, String>(1)?)
        ])?;
        items += 1;
    }
    if items > 0 {
        connection
            .prepare_cached("UPDATE streams SET indexed_rid = ?2 WHERE stream_no = ?1")?
            .execute([stream_no, last])?;
        vectors::mark(connection, stream_no)?;
    }
    Ok(items)
}

fn scope(tenant_no: i64) -> String {
    format!("t{tenant_no}")
}

/// A page of hits. Hits whose context is gone but not purged yet are passed over.
pub(super) fn search(
    connection: &Connection,
    tenant: &TenantId,
    query: &SearchQuery,
    now: Timestamp,
) -> Result<SearchPage> {
    let mut page = SearchPage {
        hits: Vec::new(),
        more: false,
        lag_items: 0,
    };
    let spans = match &query.context {
        None => None,
        Some(id) => {
            let head = rows::head(connection, &ContextKey::new(tenant.clone(), id.clone()), now)?;
            Some(streams::all(connection, &head)?)
        }
    };
    let Some(tenant_no) = rows::tenant_no(connection, tenant)? else {
        return Ok(page);
    };
    let matching = match_expression(&query.query, tenant_no);
    let ranges = spans.as_ref().map_or_else(
        || vec![(i64::MIN, i64::MAX)],
        |spans| spans.iter().map(|span| span.rids()).collect(),
    );
    let mut skipped = 0;
    for (rid, score) in ranked(connection, &matching, &ranges, query)? {
        let context = match &query.context {
            Some(id) => Some(id.clone()),
            None => owner(connection, rid, now)?,
        };
        let Some(context) = context else { continue };
        let Some(item) = item(connection, rid)?.filter(|item| query.admits(item)) else {
            continue;
        };
        if skipped < query.offset {
            skipped += 1;
        } else if page.hits.len() == query.limit as usize {
            page.more = true;
            break;
        } else {
            let snippet = snippet(&searchable_text(&item.body), &query.query);
            page.hits.push(Hit {
                context,
                item,
                score,
                snippet,
            });
        }
    }
    Ok(page)
}

/// Rowids of hits, best first; enough of them that the page can be filled in all but odd cases.
fn ranked(
    connection: &Connection,
    matching: &str,
    ranges: &[(i64, i64)],
    query: &SearchQuery,
) -> Result<Vec<(i64, f64)>> {
    // Hits that are passed over (those of a deleted context) come out of this reserve.
    let role = query.role.map(crate::Role::as_str);
    let since = query.since.map_or(i64::MIN, Timestamp::as_micros);
    let until = query.until.map_or(i64::MAX, Timestamp::as_micros);
    let wanted = (i64::from(query.offset) + i64::from(query.limit) + 1) * 4 + 256;
    // What a filter leaves out must not use up the reserve, so it is left out before.
    let admitted = if query.role.is_none() && query.since.is_none() && query.until.is_none() {
        ""
    } else {
        " AND EXISTS (SELECT 1 FROM items i WHERE i.rid = search.rowid AND (?5 IS NULL OR i.role = ?5)
                        AND i.created_at >= ?6 AND i.created_at < ?7)"
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT rowid, -bm25(search) AS score FROM search WHERE search MATCH ?1 AND rowid BETWEEN ?2 AND ?3{admitted}
         ORDER BY score DESC, rowid DESC LIMIT ?4"
    ))?;
    let mut hits: Vec<(i64, f64)> = Vec::new();
    for (first, last) in ranges {
        let mut values: Vec<&dyn ToSql> = vec![&matching, first, last, &wanted];
        if !admitted.is_empty() {
            values.extend([&role as &dyn ToSql, &since, &until]);
        }
        let rows = statement.query_map(values.as_slice(), |row| Ok((row.get(0)?, row.get(1)?)))?;
        hits.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    if ranges.len() > 1 {
        hits.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
    }
    Ok(hits)
}

/// A context that shows this row: the one that it was appended to, else one that was forked from it.
pub(super) fn owner(connection: &Connection, rid: i64, now: Timestamp) -> Result<Option<ContextId>> {
    let (source_no, seq) = (stream_of(rid), int(seq_of(rid)));
    let id: Option<String> = connection
        .prepare_cached(
            "SELECT c.id FROM spans p JOIN heads h ON h.stream_no = p.stream_no JOIN contexts c ON c.ctx_no = h.ctx_no
             WHERE p.source_no = ?1 AND p.first_seq <= ?2 AND p.last_seq >= ?2
               AND c.deleted_at IS NULL AND (c.expires_at IS NULL OR c.expires_at > ?3)
             ORDER BY p.stream_no <> p.source_no, c.ctx_no LIMIT 1",
        )?
        .query_row(params![source_no, seq, now.as_micros()], |row| row.get(0))
        .optional()?;
    id.map(|id| ContextId::parse(&id)).transpose()
}

pub(super) fn item(connection: &Connection, rid: i64) -> Result<Option<Item>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.rid = ?1"))?;
    Ok(statement.query_row([rid], item_of).optional()?)
}

/// The query in FTS5's words. Terms are made of letters and digits only, so quoting is enough.
fn match_expression(query: &Query, tenant_no: i64) -> String {
    let group = |terms: &[Term]| terms.iter().map(phrase).collect::<Vec<_>>().join(" OR ");
    let required = query
        .required
        .iter()
        .map(|terms| format!("({})", group(terms)))
        .collect::<Vec<_>>()
        .join(" AND ");
    let wanted = format!("(scope : \"{}\" AND body : ({required}))", scope(tenant_no));
    query.excluded.iter().fold(wanted, |wanted, term| {
        format!("({wanted} NOT body : ({}))", phrase(term))
    })
}

fn phrase(term: &Term) -> String {
    format!(
        "\"{}\"{}",
        term.words.join(" "),
        if term.prefix { " *" } else { "" }
    )
}

/// Takes a row out of the index; the purge calls it for rows that it removes.
pub(super) fn forget(connection: &Connection, rid: i64) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM search WHERE rowid = ?1")?
        .execute([rid])?;
    Ok(())
}
