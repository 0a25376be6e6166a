//! Feeds the search index from the outbox, behind the appends.
//!
//! - **F1** The index never holds up an append: no append writes to it.
//! - **F2** The place in the outbox moves in the transaction that indexes: a batch is indexed once, however many servers
//!   work on it and whenever one dies. Whoever holds the row of `indexing` indexes; the others wait for their turn.
//! - **F3** Rows of the outbox are taken in the order of their transactions, and only those older than every one that
//!   still runs: a transaction that commits late is not passed over.
//! - **F4** The lag can be asked at any time: items committed and not indexed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::link::{Session, Statement};
use super::read::Read;
use super::replicas::Replicas;
use super::rows::{count, get};
use super::transaction::{Outcome, transaction};
use crate::error::Result;
use crate::item::searchable_text;
use crate::search::words;

/// Items that one transaction indexes, at most; a change with more is indexed in one piece all the same.
const BATCH_ITEMS: i64 = 256;
/// Changes that one transaction looks at.
const BATCH_CHANGES: i64 = 64;
/// How long the indexer waits for company after it was told of an append.
const LINGER: Duration = Duration::from_millis(20);
/// How often it looks for what other servers appended and did not index.
const POLL: Duration = Duration::from_millis(500);
/// When to try again after an error.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Changes counted for the lag; a longer backlog is reported as this many changes' items.
const LAG_CHANGES_MAX: i64 = 10_000;

/// Longest word that is indexed, in bytes; Postgres takes 2,046. A longer one is cut, in queries as well.
const WORD_BYTES_MAX: usize = 512;
/// Size of a vector, in bytes as we count; Postgres takes a megabyte.
const VECTOR_BYTES_MAX: usize = 512 * 1024;
/// Positions of one word that Postgres keeps.
const POSITIONS_MAX: usize = 255;
/// The last position that Postgres tells apart.
const POSITION_MAX: usize = 16_383;

/// The task that indexes, and how to tell it of work.
#[derive(Debug)]
pub(super) struct Indexer {
    servers: Arc<Replicas>,
    news: Arc<Notify>,
    ended: CancellationToken,
}

impl Indexer {
    /// Starts the task on the current runtime; it ends with the value.
    pub(super) fn start(servers: Arc<Replicas>) -> Self {
        let indexer = Self {
            servers: servers.clone(),
            news: Arc::new(Notify::new()),
            ended: CancellationToken::new(),
        };
        tokio::spawn(run(servers, indexer.news.clone(), indexer.ended.clone()));
        indexer
    }

    /// Says that something was appended.
    pub(super) fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    /// Waits until everything committed so far is indexed, by whichever server.
    pub(super) async fn settle(&self) -> Result<()> {
        loop {
            self.news.notify_one();
            let session = self.servers.primary().session().await?;
            if lag(&session).await?? == 0 {
                return Ok(());
            }
            drop(session);
            tokio::time::sleep(LINGER).await;
        }
    }

    /// Ends the task; what is not indexed is left to the next start or to another server.
    pub(super) fn close(&self) {
        self.ended.cancel();
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.close();
    }
}

async fn run(servers: Arc<Replicas>, news: Arc<Notify>, ended: CancellationToken) {
    let mut wait = Duration::ZERO;
    loop {
        let told = async {
            if tokio::time::timeout(wait, news.notified()).await.is_ok() {
                tokio::time::sleep(LINGER).await;
            }
        };
        tokio::select! {
            () = ended.cancelled() => return,
            () = told => {}
        }
        wait = match transaction(&servers, |session, _| Box::pin(index_batch(session))).await {
            Ok(true) => Duration::ZERO,
            Ok(false) => POLL,
            Err(error) => {
                // What is not indexed stays in the lag, which the health report shows.
                tracing::debug!(%error, "indexing for search failed; it is tried again");
                RETRY_AFTER
            }
        };
    }
}

static TAKE: Statement = Statement {
    name: "indexing_take",
    sql: "SELECT xid::text, change_no FROM contextkeep.indexing FOR UPDATE SKIP LOCKED",
    types: &[],
};

static CHANGES: Statement = Statement {
    name: "indexing_changes",
    sql: "SELECT xid::text, change_no, stream_nos, first_seqs, last_seqs FROM contextkeep.changes
          WHERE (xid, change_no) > ($1::text::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
          ORDER BY xid, change_no LIMIT $3",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

static BODIES: Statement = Statement {
    name: "indexing_bodies",
    sql: "SELECT i.stream_no, i.seq, i.body, c.tenant
          FROM unnest($1, $2, $3) AS w (stream_no, first_seq, last_seq)
          JOIN contextkeep.streams s ON s.stream_no = w.stream_no
          JOIN contextkeep.contexts c ON c.ctx_no = s.ctx_no
          JOIN contextkeep.items i ON i.stream_no = w.stream_no AND i.seq BETWEEN w.first_seq AND w.last_seq",
    types: &[Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY],
};

static STORE: Statement = Statement {
    name: "indexing_store",
    sql: "INSERT INTO contextkeep.words (stream_no, seq, vector)
          SELECT w.stream_no, w.seq, w.vector::tsvector
          FROM unnest($1, $2, $3) AS w (stream_no, seq, vector)
          ON CONFLICT (stream_no, seq) DO NOTHING",
    types: &[Type::INT8_ARRAY, Type::INT8_ARRAY, Type::TEXT_ARRAY],
};

static MOVE: Statement = Statement {
    name: "indexing_move",
    sql: "UPDATE contextkeep.indexing SET xid = $1::text::xid8, change_no = $2",
    types: &[Type::TEXT, Type::INT8],
};

/// Indexes one batch; answers whether there may be another one.
async fn index_batch(session: &Session) -> Outcome<bool> {
    let place = session.query(&TAKE, &[]).await?;
    let Some(place) = place.first() else {
        return Ok(false);
    };
    let (mut xid, mut change_no): (String, i64) = (get(place, 0)?, get(place, 1)?);
    let changes = session
        .query(&CHANGES, &[&xid, &change_no, &BATCH_CHANGES])
        .await?;
    let (mut streams, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    let mut items = 0;
    for change in &changes {
        if items >= BATCH_ITEMS {
            break;
        }
        let of_change: [Vec<i64>; 3] = [get(change, 2)?, get(change, 3)?, get(change, 4)?];
        let [stream_nos, first_seqs, last_seqs] = of_change;
        for ((stream_no, first), last) in stream_nos.into_iter().zip(first_seqs).zip(last_seqs) {
            if first <= last {
                items += last - first + 1;
                streams.push(stream_no);
                firsts.push(first);
                lasts.push(last);
            }
        }
        (xid, change_no) = (get(change, 0)?, get(change, 1)?);
    }
    if changes.is_empty() {
        return Ok(false);
    }
    if !streams.is_empty() {
        store(session, &streams, &firsts, &lasts).await?;
    }
    session.execute(&MOVE, &[&xid, &change_no]).await?;
    Ok(true)
}

async fn store(session: &Session, streams: &[i64], firsts: &[i64], lasts: &[i64]) -> Outcome<()> {
    let rows = session.query(&BODIES, &[&streams, &firsts, &lasts]).await?;
    let (mut stream_nos, mut seqs, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (stream_no, body, tenant): (i64, &str, &str) = (get(row, 0)?, get(row, 2)?, get(row, 3)?);
        stream_nos.push(stream_no);
        seqs.push(get::<i64>(row, 1)?);
        vectors.push(vector(tenant, stream_no, &searchable_text(body)));
    }
    session.execute(&STORE, &[&stream_nos, &seqs, &vectors]).await?;
    Ok(())
}

static LAG: Statement = Statement {
    name: "indexing_lag",
    sql: "SELECT coalesce(sum(w.last_seq - w.first_seq + 1), 0)::bigint
          FROM (SELECT c.* FROM contextkeep.indexing i, contextkeep.changes c
                WHERE (c.xid, c.change_no) > (i.xid, i.change_no) LIMIT $1) c
          CROSS JOIN LATERAL unnest(c.first_seqs, c.last_seqs) AS w (first_seq, last_seq)",
    types: &[Type::INT8],
};

/// Items committed and not indexed.
pub(super) async fn lag(session: &Session) -> Read<u64> {
    let rows = session.query(&LAG, &[&LAG_CHANGES_MAX]).await?;
    Ok(rows.first().map_or(Ok(0), |row| count(row, 0)))
}

/// The word that stands for a tenant in its vectors.
pub(super) fn tenant_word(tenant: &str) -> String {
    format!("#{tenant}")
}

/// A word as it is indexed and searched.
pub(super) fn word(word: &str) -> &str {
    let mut end = word.len().min(WORD_BYTES_MAX);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    word.get(..end).unwrap_or(word)
}

/// A text as a `tsvector` literal. What does not fit into one is left out, from the end.
fn vector(tenant: &str, stream_no: i64, text: &str) -> String {
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut bytes = 0;
    for (index, found) in words(text).enumerate() {
        let found = word(&found);
        if let Some(positions) = places.get_mut(found) {
            if positions.len() < POSITIONS_MAX {
                positions.push((index + 1).min(POSITION_MAX));
                bytes += 2;
            }
            continue;
        }
        bytes += found.len() + 6;
        if bytes > VECTOR_BYTES_MAX {
            break;
        }
        places.insert(found.to_owned(), vec![(index + 1).min(POSITION_MAX)]);
    }
    let mut vector = format!("'{}' '@{stream_no}'", tenant_word(tenant));
    for (word, positions) in places {
        let positions: Vec<String> = positions.iter().map(usize::to_string).collect();
        vector.extend([" '", &word, "':", &positions.join(",")]);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_has_the_tenant_the_stream_and_the_places_of_words() {
        assert_eq!(
            vector("acme", 7, "To be, or not to be"),
            "'#acme' '@7' 'be':2,6 'not':4 'or':3 'to':1,5"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let many: String = (0..200_000)
            .flat_map(|n| ["w".to_owned(), n.to_string(), " ".to_owned()])
            .collect();
        let vector = vector("acme", 1, &many);
        assert!(vector.len() < 2 * VECTOR_BYTES_MAX, "{}", vector.len());
        assert!(vector.contains("'w0':1"));
        assert_eq!(word(&"é".repeat(1000)).len(), WORD_BYTES_MAX);
    }

    #[test]
    fn a_word_without_end_is_cut_the_same_way_everywhere() {
        let long = "x".repeat(5000);
        assert!(vector("t", 1, &long).contains(&format!("'{}':1", word(&long))));
    }
}
