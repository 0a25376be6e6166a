//! A connection for one caller: transactions, writes, slow reads.

mod explain;

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;

use super::endpoint::Endpoint;
use super::fault::{Fault, Kind};
use super::limit::Limit;
use super::pool::{Pool, Pooled};
#[cfg(test)]
use super::statement::Call;
use super::statement::{Params, Statement};
use super::status::Closed;

/// How long the end of a forgotten transaction may take before its connection is closed instead.
const TIDY_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection for one caller, given back when this is dropped.
///
/// # Cancellation
/// Each future may be dropped at any point. A statement that had begun is then cancelled in the server (by a
/// request that the server answers in its own time), and the connection is closed, not given back. A session
/// that is dropped in a transaction rolls it back before anybody else gets the connection.
pub(crate) struct Session {
    endpoint: Arc<Endpoint>,
    pooled: Option<Pooled>,
    in_transaction: bool,
    /// Something on it was given up or broke: what the connection does now is unknown.
    broken: AtomicBool,
}

impl Session {
    pub(super) const fn new(endpoint: Arc<Endpoint>, pooled: Pooled) -> Self {
        Self {
            endpoint,
            pooled: Some(pooled),
            in_transaction: false,
            broken: AtomicBool::new(false),
        }
    }

    /// The rows of one statement.
    pub(crate) async fn query(
        &self,
        statement: &'static Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Fault> {
        let limit = self.limit();
        self.watched(
            &[statement],
            self.run(limit, pin!(self.link()?.query(statement, params))),
        )
        .await
    }

    /// How many rows one statement changed.
    pub(crate) async fn execute(
        &self,
        statement: &'static Statement,
        params: Params<'_>,
    ) -> Result<u64, Fault> {
        let limit = self.limit();
        self.watched(
            &[statement],
            self.run(limit, pin!(self.link()?.execute(statement, params))),
        )
        .await
    }

    /// Statements in one round trip, in order; the rows of each. Outside of a transaction each is one of its own,
    /// and one that fails does not keep the next from running.
    ///
    /// # Errors
    /// The first that failed.
    #[cfg(test)]
    pub(crate) async fn batch(&self, calls: &[Call<'_>]) -> Result<Vec<Vec<Row>>, Fault> {
        let limit = self.limit();
        let names: Vec<_> = calls.iter().map(|call| call.statement).collect();
        let run = async { self.link()?.each(calls).await?.into_iter().collect() };
        self.watched(&names, self.run(limit, pin!(run))).await
    }

    /// A whole transaction in one round trip: begin, the statements in order, commit; the rows of each.
    ///
    /// # Errors
    /// The first that failed; then nothing was kept, unless [`Fault::is_not_applied`] says that this is unknown.
    #[cfg(test)]
    pub(crate) async fn transact(&mut self, calls: &[Call<'_>]) -> Result<Vec<Vec<Row>>, Fault> {
        let limit = self.limit();
        let begin = self.begin_sql(limit);
        let names: Vec<_> = calls.iter().map(|call| call.statement).collect();
        let run = async {
            let link = self.link()?;
            link.prepare_all(calls).await?;
            // Each sends at its first poll, and `join3` polls in order.
            let (begun, done, committed) =
                futures_util::future::join3(link.simple(&begin), link.each(calls), link.simple("COMMIT"))
                    .await;
            let done = done?;
            if let Err(fault) = begun {
                // Then each statement was a transaction of its own.
                return Err(if done.iter().any(Result::is_ok) {
                    Fault::new(Kind::Lost, format!("a transaction did not begin: {fault}"))
                } else {
                    fault
                });
            }
            // The commit of a failed transaction is a rollback and no error, so the statements are asked first.
            let rows = done.into_iter().collect::<Result<Vec<_>, _>>()?;
            committed?;
            Ok(rows)
        };
        self.watched(&names, self.run(limit, pin!(run))).await
    }

    /// Begins a transaction, whose statements may take as long as the request's deadline and `statement_timeout`
    /// allow, and whose commit waits for what `durability` says.
    pub(crate) async fn begin(&mut self) -> Result<(), Fault> {
        let limit = self.limit();
        let begin = self.begin_sql(limit);
        // Before the answer: if this is given up, the transaction may be open.
        self.in_transaction = true;
        let link = self.link()?;
        self.run(limit, pin!(link.simple(&begin))).await
    }

    /// Commits.
    ///
    /// # Errors
    /// Whether it was committed is unknown unless [`Fault::is_not_applied`]. A transaction in which a statement
    /// failed is rolled back, without an error: look at the statements' own.
    pub(crate) async fn commit(self) -> Result<(), Fault> {
        self.end("COMMIT").await
    }

    /// Rolls back.
    pub(crate) async fn rollback(self) -> Result<(), Fault> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, sql: &'static str) -> Result<(), Fault> {
        let link = self.link()?;
        let ended = self.run(self.limit(), pin!(link.simple(sql))).await;
        if ended.is_ok() {
            self.in_transaction = false;
        }
        ended
    }

    fn limit(&self) -> Limit {
        Limit::start(self.endpoint.settings().statement_timeout)
    }

    fn begin_sql(&self, limit: Limit) -> String {
        let commit = self.endpoint.settings().durability.synchronous_commit();
        format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL synchronous_commit = {commit}",
            limit.statement_timeout_ms()
        )
    }

    fn link(&self) -> Result<&super::wire::Link, Fault> {
        match &self.pooled {
            Some(pooled) if !self.broken.load(Ordering::Acquire) => Ok(pooled),
            _ => Err(Fault::new(
                Kind::Lost,
                "an earlier statement of this session was given up",
            )),
        }
    }

    /// Runs something on the connection; if that is given up, the connection is.
    ///
    /// Pinned by the caller: a future that is passed on by value is kept twice.
    async fn run<T>(
        &self,
        limit: Limit,
        future: Pin<&mut impl Future<Output = Result<T, Fault>>>,
    ) -> Result<T, Fault> {
        limit.begin()?;
        let unfinished = Unfinished {
            session: self,
            finished: false,
        };
        let result = limit.run(Kind::TimedOut, future).await;
        unfinished.finish(&result);
        result
    }

    async fn watched<T>(
        &self,
        statements: &[&'static Statement],
        future: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let started = Instant::now();
        let result = future.await;
        let took = started.elapsed();
        for statement in statements {
            self.endpoint.watch().ran(statement, took, result.is_err());
        }
        self.endpoint.heard(&result);
        result
    }

    /// What is on the connection now is unknown: have it stopped, and never use it again.
    fn give_up(&self) {
        if !self.broken.swap(true, Ordering::AcqRel)
            && let Some(pooled) = &self.pooled
        {
            pooled.cancel();
        }
    }
}

/// Gives the session up unless it is finished.
struct Unfinished<'a> {
    session: &'a Session,
    finished: bool,
}

impl Unfinished<'_> {
    fn finish<T>(mut self, result: &Result<T, Fault>) {
        self.finished = match result.as_ref().map_err(Fault::kind) {
            Err(Kind::TimedOut | Kind::Deadline) => false,
            Err(Kind::Lost) => {
                self.session.broken.store(true, Ordering::Release);
                true
            }
            _ => true,
        };
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.session.give_up();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else { return };
        let pool = self.endpoint.clone();
        if *self.broken.get_mut() {
            let reason = if pooled.is_closed() {
                Closed::Lost
            } else {
                Closed::Abandoned
            };
            pool.pool().discard(pooled, reason);
        } else if !self.in_transaction {
            Pool::give_back(pooled);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                match tokio::time::timeout(TIDY_TIMEOUT, pooled.simple("ROLLBACK")).await {
                    Ok(Ok(())) => Pool::give_back(pooled),
                    _ => pool.pool().discard(pooled, Closed::Abandoned),
                }
            });
        } else {
            pool.pool().discard(pooled, Closed::Abandoned);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("endpoint", &self.endpoint.name())
            .field("in_transaction", &self.in_transaction)
            .finish_non_exhaustive()
    }
}
