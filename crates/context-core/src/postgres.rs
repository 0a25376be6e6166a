//! The Postgres store: heads that stay small, items that are never rewritten, appends that are committed in groups.
//!
//! Reads of a head or a window are one statement each, pipelined over a few shared connections; what may take long
//! (lists, searches, transactions) has a connection of its own. The schema and the functions are in
//! `migrations/postgres`.

mod append;
mod bury;
mod create;
#[cfg(feature = "cache")]
mod feed;
mod gate;
mod group;
mod indexer;
pub mod insight;
pub(crate) mod link;
mod migrate;
mod nearest;
mod port;
mod purge;
mod read;
#[cfg(feature = "cache")]
mod relaying;
mod replace;
pub(crate) mod replicas;
mod routed;
mod rows;
mod search;
mod streams;
mod summaries;
mod transaction;
mod vector;
mod vectors;
mod write;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::append::{Appender, GroupSettings};
use self::gate::Gate;
use self::indexer::Indexer;
use self::insight::{Insight, Recorder};
use self::link::{Address, Endpoint, LinkSettings, Session, Statement};
use self::replicas::Replicas;
use self::routed::Reads;
use self::transaction::{Outcome, Outlives, statement, transaction};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::settings::{DatabaseSettings, Durability, PostgresSettings};

/// When to try again after Postgres did not do it for now.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for the first look at a database. Somebody who starts a server beside a busy one would rather wait.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);
/// First and longest pause between two tries to prepare a database that is not there yet.
const PREPARE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

static DESCRIBE: Statement = Statement {
    name: "describe",
    sql: "SELECT current_setting('server_version')",
    types: &[],
};

/// A database has another number in each server, and keeps it however it is called on the way there.
static DATABASE: Statement = Statement {
    name: "database",
    sql: "SELECT oid::bigint FROM pg_database WHERE datname = current_database()",
    types: &[],
};

/// One server, with the pool that the settings describe.
fn endpoint(
    name: impl Into<Arc<str>>,
    key: &str,
    settings: &DatabaseSettings,
    recorder: &Arc<Recorder>,
) -> Result<Arc<Endpoint>> {
    let name = name.into();
    let dsn = settings
        .dsn
        .as_ref()
        .ok_or_else(|| crate::Invalid::new(key.to_owned(), "is not set"))?;
    let address = Address::parse(key, dsn, settings.ca_file.as_deref(), settings.connect_timeout)?;
    let watch = recorder.at(name.clone());
    Endpoint::new(name, address, LinkSettings::from(settings), watch)
}

/// See the [module](self).
#[derive(Debug)]
pub struct PgContextStore {
    servers: Arc<Replicas>,
    reads: Reads,
    appender: Appender,
    indexer: Indexer,
    /// In front of searches.
    searches: Gate,
    recorder: Arc<Recorder>,
    clock: Arc<dyn Clock>,
    ready: watch::Sender<Result<()>>,
    settings: DatabaseSettings,
    /// Known once the store is prepared.
    database: OnceLock<u64>,
    closed: CancellationToken,
}

impl PgContextStore {
    /// A store over the database that `settings.database.dsn` names and its replicas. Connects to nothing: until
    /// [`PgContextStore::prepare`] has succeeded, every operation answers `Unavailable`.
    ///
    /// Has to be called on a runtime, on which it starts the tasks that commit appends, feed the search index and look
    /// at the servers.
    ///
    /// # Errors
    /// `Invalid` if a DSN cannot be read.
    pub fn new(settings: &PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let database = &settings.database;
        let (recorder, samples) = Recorder::new(&settings.monitoring, clock.clone());
        let primary = endpoint("primary", "context_manager.database.dsn", database, &recorder)?;
        let replicas = settings
            .replicas
            .iter()
            .enumerate()
            .map(|(index, replica)| {
                let key = format!("context_manager.read_replicas.{index}.dsn");
                let name = format!("replica-{}", index + 1);
                endpoint(name, &key, &replica.over(database), &recorder)
            })
            .collect::<Result<Vec<_>>>()?;
        let replicated = !replicas.is_empty();
        let routing = settings.routing.clone();
        let servers = Replicas::new(primary, replicas, database, routing, &settings.breaker)?;
        recorder.explain(&servers, samples);
        let indexer = Indexer::start(servers.clone());
        let news = indexer.news();
        let groups = GroupSettings {
            lanes: database.write_lanes as usize,
            queue: u64::from(database.write_queue),
            queue_bytes: database.write_queue_size.as_u64(),
            group: database.group_commit as usize,
            positions: replicated,
            synchronous_commit: database.durability.synchronous_commit(),
        };
        let committed: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(move |_| news.notify_one());
        let appender = Appender::new(&servers, groups, &committed);
        let waiting = Error::Unavailable {
            detail: "the database was not reached yet".into(),
            retry_after: RETRY_AFTER,
        };
        Ok(Self {
            reads: Reads {
                servers: servers.clone(),
                bound: settings.bound,
                replicated,
            },
            servers,
            appender,
            indexer,
            searches: Gate::of_searches(&settings.breaker, database.max_open_conns, database.pool_timeout)?,
            recorder,
            clock,
            ready: watch::Sender::new(Err(waiting)),
            settings: database.clone(),
            database: OnceLock::new(),
            closed: CancellationToken::new(),
        })
    }

    /// Connects, brings the schema up to date or checks that it is, and lets operations through. Doing it again does
    /// no harm.
    ///
    /// # Errors
    /// `Unavailable` if the database does not answer, is a standby, or has another schema; `Invalid` if `durability`
    /// asks for standbys and the server has none. Each says what to do.
    pub async fn prepare(&self) -> Result<()> {
        let outcome = self.try_to_prepare().await;
        drop(self.ready.send_replace(outcome.clone()));
        outcome
    }

    async fn try_to_prepare(&self) -> Result<()> {
        self.servers.start();
        let probe = self.servers.primary().check(CHECK_PATIENCE).await?;
        if probe.in_recovery {
            return Err(Error::Unavailable {
                detail: format!(
                    "{} is a standby and takes no writes; context_manager.database.dsn has to name the primary",
                    self.servers.primary().address()
                ),
                retry_after: RETRY_AFTER,
            });
        }
        if self.settings.durability == Durability::Replicated && !probe.has_synchronous_standbys {
            return Err(crate::Invalid::new(
                "context_manager.database.durability",
                "is replicated, but the server's synchronous_standby_names is empty, so that no commit waits for a standby",
            )
            .hint("name the standbys there, or set durability to local")
            .into());
        }
        let rows = self.servers.primary().query(&DATABASE, &[]).await?;
        let number = rows.first().map_or(Ok(0), |row| rows::count(row, 0))?;
        self.database.get_or_init(|| number);
        if self.settings.migrate {
            self.migrate().await.map(drop)
        } else {
            let client = self.servers.primary().alone().await?;
            migrate::check(&client).await
        }
    }

    /// Goes on preparing in the background until it succeeds.
    pub fn prepare_in_background(self: &Arc<Self>) {
        let store = Arc::downgrade(self);
        let closed = self.closed.clone();
        tokio::spawn(async move {
            let (mut pause, longest) = PREPARE_PAUSE;
            loop {
                let Some(store) = store.upgrade() else { return };
                match store.prepare().await {
                    Ok(()) => {
                        tracing::info!(database = %store.servers.primary().address(), "the database is ready");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the database is not ready; it is tried again");
                    }
                }
                drop(store);
                tokio::select! {
                    () = closed.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(longest);
            }
        });
    }

    /// Brings the schema up to date; answers its version. Any number of servers may do it at once.
    ///
    /// # Errors
    /// As [`PgContextStore::prepare`].
    pub async fn migrate(&self) -> Result<i64> {
        let primary = self.servers.primary();
        let holder = primary.alone().await?;
        let mut client = primary.alone().await?;
        migrate::migrate(&holder, &mut client).await
    }

    /// Tells what other processes have changed.
    #[cfg(feature = "cache")]
    pub fn feed(&self) -> Arc<dyn crate::cached::ChangeFeed> {
        Arc::new(feed::Feed::new(self.servers.clone()))
    }

    /// What the cache that servers share has to be told, for a [`Relay`](crate::cached::relay::Relay). `life`: how long
    /// what is in that cache, or came from it, is served at most.
    #[cfg(feature = "cache")]
    pub fn outbox(&self, life: Duration) -> Arc<dyn crate::cached::relay::Outbox> {
        Arc::new(relaying::PgOutbox::new(
            self.servers.clone(),
            self.clock.clone(),
            self.ready.subscribe(),
            life,
        ))
    }

    /// Who answers, for people: version, schema, standbys.
    ///
    /// # Errors
    /// As any read.
    pub async fn describe(&self) -> Result<String> {
        let rows = self.servers.primary().query(&DESCRIBE, &[]).await?;
        let server: String = rows.first().map_or(Ok(String::new()), |row| rows::get(row, 0))?;
        Ok(format!(
            "PostgreSQL {server} at {}, schema version {}",
            self.servers.primary().address(),
            migrate::version()
        ))
    }

    /// A connection for something long, outside of the pool.
    #[cfg(feature = "embedded")]
    pub(crate) async fn alone(&self) -> Result<deadpool_postgres::ClientWrapper> {
        self.ready()?;
        Ok(self.servers.primary().alone().await?)
    }

    /// Tells the indexer that there is something to do.
    #[cfg(feature = "embedded")]
    pub(crate) fn look_for_work(&self) {
        self.indexer.news().notify_one();
    }

    /// What is known of its servers, its connections and its statements. Asks no server anything.
    pub fn insight(&self) -> Insight {
        let searches = self.searches.status();
        self.recorder
            .insight(&self.servers, self.appender.waiting(), searches)
    }

    /// Stops the tasks and closes the connections. What was accepted before is finished first, or its callers learn
    /// that its outcome is unknown.
    pub async fn close(&self) {
        self.closed.cancel();
        self.indexer.close();
        self.servers.close().await;
    }

    fn ready(&self) -> Result<()> {
        self.ready.borrow().clone()
    }

    /// Runs a write, and notes what covers it in the client's session.
    async fn write<'a, T>(
        &self,
        job: impl for<'s> Fn(&'s Session, Outlives<'s, 'a>) -> BoxFuture<'s, Outcome<T>> + Send + Sync,
    ) -> Result<T> {
        self.ready()?;
        let value = transaction(&self.servers, job).await?;
        self.note_write().await;
        Ok(value)
    }

    /// As [`PgContextStore::write`], for a write of one statement.
    async fn write_at_once<T, Running>(&self, job: impl Fn(Session) -> Running + Send + Sync) -> Result<T>
    where
        Running: Future<Output = Outcome<T>> + Send,
    {
        self.ready()?;
        let value = statement(&self.servers, job).await?;
        self.note_write().await;
        Ok(value)
    }

    async fn note_write(&self) {
        if self.reads.replicated && crate::session::Session::current().is_some() {
            routed::position(&self.servers, &self.servers.primary())
                .await
                .note();
        }
    }
}
