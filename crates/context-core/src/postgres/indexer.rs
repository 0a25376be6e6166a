//! Feeds the search index from the outbox, behind the appends.
//!
//! - **F1** The index never holds up an append: no append writes to it.
//! - **F2** The place in the outbox moves in the transaction that indexes: a batch is indexed once, however many servers
//!   work on it and whenever one dies. Whoever holds the row of `indexing` indexes; the others wait for their turn.
//! - **F3** Rows of the outbox are taken in the order of their transactions, and only those older than every one that
//!   still runs: a transaction that commits late is not passed over.
//! - **F4** The lag can be asked at any time: items committed and not indexed.
//! - **F5** Indexing gives way to what it follows: a burst of appends has most of the machine, and the index catches up
//!   behind it. When it has been behind for [`PATIENCE`], it works without rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::link::{Session, Statement};
use super::read::Read;
use super::replicas::Replicas;
use super::rows::{count, get};
use super::transaction::{Outcome, transaction};
use super::vector::Vector;
use super::vectors;
use crate::error::Result;
use crate::item::searchable_text;

/// Items that one transaction indexes, at most; a change with more is indexed in one piece all the same.
const BATCH_ITEMS: i64 = 256;
/// Changes that one transaction looks at: a few at first, which are enough where each has many items.
const BATCH_CHANGES: [i64; 2] = [4, 60];
/// How long the indexer waits for company after it was told of an append.
const LINGER: Duration = Duration::from_millis(20);
/// How often it looks for what other servers appended and did not index.
const POLL: Duration = Duration::from_millis(500);
/// When to try again after an error.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A batch is followed by a rest of so many times as long, at most [`REST_MAX`]: an eighth of one core is for the index.
const REST: u32 = 7;
const REST_MAX: Duration = Duration::from_secs(1);
/// How long it may have been behind and still rest.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes counted for the lag; a longer backlog is reported as this many changes' items.
const LAG_CHANGES_MAX: i64 = 10_000;

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
    let mut behind_since = None;
    loop {
        let begun = Instant::now();
        let pause = match index_some(&servers).await {
            Ok(true) => {
                let behind = behind_since.get_or_insert(begun).elapsed();
                Pause::Rest(rest(behind, begun.elapsed()))
            }
            Ok(false) => {
                behind_since = None;
                Pause::UntilNews(POLL)
            }
            Err(error) => {
                // What is not indexed stays in the lag, which the health report shows.
                tracing::debug!(%error, "indexing for search failed; it is tried again");
                Pause::Rest(RETRY_AFTER)
            }
        };
        tokio::select! {
            () = ended.cancelled() => return,
            () = pause.over(&news) => {}
        }
    }
}

/// What comes between two batches.
enum Pause {
    /// There is more to do.
    Rest(Duration),
    /// There is nothing to do: until an append here is announced, or for so long, because others append as well.
    UntilNews(Duration),
}

impl Pause {
    async fn over(self, news: &Notify) {
        match self {
            Self::Rest(time) => tokio::time::sleep(time).await,
            Self::UntilNews(time) => {
                if tokio::time::timeout(time, news.notified()).await.is_ok() {
                    tokio::time::sleep(LINGER).await;
                }
            }
        }
    }
}

/// How long to leave the machine to others after a batch that took so long (F5).
fn rest(behind: Duration, took: Duration) -> Duration {
    if behind < PATIENCE {
        (took * REST).min(REST_MAX)
    } else {
        Duration::ZERO
    }
}

/// Indexes a batch if there is one; answers whether there may be another one. Looking costs an idle server nothing but
/// a read; taking the row of `indexing` would be a write.
async fn index_some(servers: &Arc<Replicas>) -> Result<bool> {
    let pending = servers.primary().query(&PENDING, &[]).await?;
    if !pending.first().map_or(Ok(false), |row| get(row, 0))? {
        return Ok(false);
    }
    transaction(servers, |session, _| Box::pin(index_batch(session))).await
}

static PENDING: Statement = Statement {
    name: "indexing_pending",
    sql: "SELECT EXISTS (SELECT 1 FROM contextkeep.indexing i JOIN contextkeep.changes c
                         ON (c.xid, c.change_no) > (i.xid, i.change_no)
                         WHERE c.xid < pg_snapshot_xmin(pg_current_snapshot()))",
    types: &[],
};

/// The index and its place in the outbox are lost or kept together, and what is lost is indexed again: no commit here
/// has to wait for a disk or a standby.
static TAKE: Statement = Statement {
    name: "indexing_take",
    sql: "SELECT i.xid::text, i.change_no, set_config('synchronous_commit', 'off', true)
          FROM contextkeep.indexing i FOR UPDATE SKIP LOCKED",
    types: &[],
};

/// Ordered by the column and not by what is selected under its name: texts of numbers have another order (F3), and no
/// index.
pub(super) static CHANGES: Statement = Statement {
    name: "indexing_changes",
    sql: "SELECT c.xid::text, c.change_no, c.ctx_nos, c.stream_nos, c.first_seqs, c.last_seqs
          FROM contextkeep.changes c
          WHERE (c.xid, c.change_no) > ($1::text::xid8, $2) AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
          ORDER BY c.xid, c.change_no LIMIT $3",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

/// The plan is pinned to lookups, because the tables may have no statistics yet when a server makes it.
pub(super) static BODIES: Statement = Statement {
    name: "indexing_bodies",
    sql: "SELECT w.stream_no, i.seq, i.body, c.tenant
          FROM unnest($1, $2, $3, $4) AS w (ctx_no, stream_no, first_seq, last_seq)
          CROSS JOIN LATERAL (SELECT c.tenant FROM contextkeep.contexts c WHERE c.ctx_no = w.ctx_no LIMIT 1) c
          CROSS JOIN LATERAL (
              SELECT i.seq, i.body FROM contextkeep.items i
              WHERE i.stream_no = w.stream_no AND i.seq BETWEEN w.first_seq AND w.last_seq ORDER BY i.seq OFFSET 0
          ) i",
    types: &[
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
    ],
};

static STORE: Statement = Statement {
    name: "indexing_store",
    sql: "INSERT INTO contextkeep.words (stream_no, seq, vector)
          SELECT w.stream_no, w.seq, w.vector FROM unnest($1, $2, $3) AS w (stream_no, seq, vector)
          ON CONFLICT (stream_no, seq) DO NOTHING",
    types: &[Type::INT8_ARRAY, Type::INT8_ARRAY, Type::TS_VECTOR_ARRAY],
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
    let mut new = NewItems::default();
    let mut changes = 0;
    for limit in BATCH_CHANGES {
        let rows = session.query(&CHANGES, &[&xid, &change_no, &limit]).await?;
        for change in &rows {
            if new.count >= BATCH_ITEMS {
                break;
            }
            new.add(change)?;
            (xid, change_no) = (get(change, 0)?, get(change, 1)?);
            changes += 1;
        }
        if new.count >= BATCH_ITEMS || i64::try_from(rows.len()).is_ok_and(|found| found < limit) {
            break;
        }
    }
    if changes == 0 {
        return Ok(false);
    }
    if new.count > 0 {
        store(session, &new).await?;
    }
    session.execute(&MOVE, &[&xid, &change_no]).await?;
    Ok(true)
}

/// Ranges of items that changes added.
#[derive(Default)]
struct NewItems {
    ctx_nos: Vec<i64>,
    stream_nos: Vec<i64>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
    count: i64,
}

impl NewItems {
    fn add(&mut self, change: &tokio_postgres::Row) -> Outcome<()> {
        let [ctx_nos, stream_nos, firsts, lasts]: [Vec<i64>; 4] =
            [get(change, 2)?, get(change, 3)?, get(change, 4)?, get(change, 5)?];
        let ranges = ctx_nos
            .into_iter()
            .zip(stream_nos)
            .zip(firsts.into_iter().zip(lasts));
        for ((ctx_no, stream_no), (first, last)) in ranges {
            if first <= last {
                self.count += last - first + 1;
                self.ctx_nos.push(ctx_no);
                self.stream_nos.push(stream_no);
                self.firsts.push(first);
                self.lasts.push(last);
            }
        }
        Ok(())
    }
}

async fn store(session: &Session, new: &NewItems) -> Outcome<()> {
    let rows = session
        .query(&BODIES, &[&new.ctx_nos, &new.stream_nos, &new.firsts, &new.lasts])
        .await?;
    let (mut stream_nos, mut seqs, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (stream_no, body, tenant): (i64, &str, &str) = (get(row, 0)?, get(row, 2)?, get(row, 3)?);
        stream_nos.push(stream_no);
        seqs.push(get::<i64>(row, 1)?);
        words.push(Vector::of(tenant, stream_no, &searchable_text(body)));
    }
    session.execute(&STORE, &[&stream_nos, &seqs, &words]).await?;
    vectors::mark(session, &new.stream_nos).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_until_it_has_been_behind_for_long() {
        let took = Duration::from_millis(20);
        assert_eq!(rest(Duration::ZERO, took), Duration::from_millis(140));
        assert_eq!(rest(Duration::ZERO, PATIENCE), REST_MAX);
        assert_eq!(rest(PATIENCE, took), Duration::ZERO);
    }
}
