//! One connection and the statements on it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
#[cfg(test)]
use futures_util::future::{join, join_all};
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use super::connect::Connector;
use super::fault::{Fault, Kind};
#[cfg(test)]
use super::statement::Call;
use super::statement::{Params, Statement};

/// One connection.
pub(super) struct Link {
    /// Unique within its endpoint.
    pub(super) id: u64,
    client: ClientWrapper,
    /// It was shown to be a server's own session, or that was said.
    prepares: bool,
    born: Instant,
    expires: Option<Instant>,
    /// When it was last given back, in microseconds since its birth.
    idle_since: AtomicU64,
    connector: Arc<Connector>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(
        id: u64,
        client: ClientWrapper,
        prepares: bool,
        expires: Option<Instant>,
        connector: Arc<Connector>,
    ) -> Self {
        Self {
            id,
            client,
            prepares,
            born: Instant::now(),
            expires,
            idle_since: AtomicU64::new(0),
            connector,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether it is older than a connection may be.
    pub(super) fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= Instant::now())
    }

    /// It is unused from now on.
    pub(super) fn rest(&self) {
        let since = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.idle_since.store(since, Ordering::Relaxed);
    }

    /// When it was last given back.
    pub(super) fn idle_since(&self) -> Instant {
        self.born + Duration::from_micros(self.idle_since.load(Ordering::Relaxed))
    }

    /// How long it has been unused.
    pub(super) fn idle_for(&self) -> Duration {
        self.idle_since().elapsed()
    }

    /// Asks the server to stop what runs on it. It must not be used again.
    pub(super) fn cancel(&self) {
        self.connector.cancel(&self.client);
    }

    /// The rows of one statement.
    pub(super) async fn query(
        &self,
        statement: &'static Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Fault> {
        let rows = if self.prepares() {
            let prepared = self.prepared(statement).await?;
            self.client.query(&prepared, params).await
        } else {
            let params = typed(statement, params)?;
            self.client.query_typed(statement.sql, &params).await
        };
        rows.map_err(|error| self.noticed(&error))
    }

    /// How many rows one statement changed.
    pub(super) async fn execute(
        &self,
        statement: &'static Statement,
        params: Params<'_>,
    ) -> Result<u64, Fault> {
        let count = if self.prepares() {
            let prepared = self.prepared(statement).await?;
            self.client.execute(&prepared, params).await
        } else {
            let params = typed(statement, params)?;
            self.client.execute_typed(statement.sql, &params).await
        };
        count.map_err(|error| self.noticed(&error))
    }

    /// Two statements in one flush; the second runs, and takes its snapshot, after the first is done.
    #[cfg(test)]
    pub(super) async fn pair(
        &self,
        first: Call<'_>,
        second: Call<'_>,
    ) -> Result<(Vec<Row>, Vec<Row>), Fault> {
        self.prepare_all(&[first, second]).await?;
        // Futures of the client send at their first poll, and `join` polls in order.
        let (first, second) = join(
            self.query(first.statement, first.params),
            self.query(second.statement, second.params),
        )
        .await;
        Ok((first?, second?))
    }

    /// Statements in one flush, each on its own: one that fails does not keep the next from running, unless a
    /// transaction does.
    #[cfg(test)]
    pub(super) async fn each(&self, calls: &[Call<'_>]) -> Result<Vec<Result<Vec<Row>, Fault>>, Fault> {
        self.prepare_all(calls).await?;
        // Loops, not `map`: a closure here would keep the future from being `Send`.
        let mut running = Vec::with_capacity(calls.len());
        for call in calls {
            running.push(self.query(call.statement, call.params));
        }
        Ok(join_all(running).await)
    }

    /// The first value that a script answers. Says nothing to the rest of the endpoint, whatever it answers.
    pub(super) async fn explain(&self, script: &str) -> Result<Option<String>, Fault> {
        let messages = self
            .client
            .simple_query(script)
            .await
            .map_err(|error| Fault::from(&error))?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Statements without parameters or rows, separated by semicolons, in one message.
    pub(super) async fn simple(&self, sql: &str) -> Result<(), Fault> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(|error| self.noticed(&error))
    }

    /// Prepares what is not prepared yet, so that what follows needs no answer before it can be sent.
    #[cfg(test)]
    pub(super) async fn prepare_all(&self, calls: &[Call<'_>]) -> Result<(), Fault> {
        if self.prepares() {
            let mut preparing = Vec::with_capacity(calls.len());
            for call in calls {
                preparing.push(self.prepared(call.statement));
            }
            for prepared in join_all(preparing).await {
                prepared?;
            }
        }
        Ok(())
    }

    fn prepares(&self) -> bool {
        self.prepares && !self.connector.is_behind_pooler()
    }

    async fn prepared(&self, statement: &'static Statement) -> Result<tokio_postgres::Statement, Fault> {
        let prepared = self
            .client
            .prepare_typed_cached(statement.sql, statement.types)
            .await;
        prepared.map_err(|error| self.noticed(&error))
    }

    /// The fault, after acting on what it says of prepared statements.
    fn noticed(&self, error: &tokio_postgres::Error) -> Fault {
        let fault = Fault::from(error);
        match fault.kind() {
            Kind::Pooler => {
                self.connector.found_pooler();
                self.client.statement_cache.clear();
            }
            // The schema has changed under a prepared statement.
            Kind::Conflict if fault.sqlstate() == Some("0A000") => self.client.statement_cache.clear(),
            _ => {}
        }
        fault
    }
}

fn typed<'a>(
    statement: &'static Statement,
    params: Params<'a>,
) -> Result<Vec<(&'a (dyn ToSql + Sync), Type)>, Fault> {
    if params.len() != statement.types.len() {
        let (given, wanted) = (params.len(), statement.types.len());
        let detail = format!(
            "statement {} has {wanted} parameters and was given {given}",
            statement.name
        );
        return Err(Fault::new(Kind::Internal, detail));
    }
    Ok(params
        .iter()
        .copied()
        .zip(statement.types.iter().cloned())
        .collect())
}
