//! The embedded store: `SQLite` in one file, used when no database is configured.
//!
//! One thread writes and commits in groups (`writer`); a few connections read snapshots (`readers`); a
//! thread of its own feeds the full text index (`index`). Nothing that decides anything is kept in memory,
//! so several processes may share the file: `contextkeep ctx` works while the server runs. Any `SQLite` tool
//! can open it; the schema is in `migrations/embedded`.

mod append;
mod database;
#[cfg(feature = "cache")]
mod feed;
mod index;
mod purge;
mod read;
mod readers;
mod rows;
mod streams;
mod summaries;
mod vectors;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::join_all;

use crate::clock::Clock;
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::semantic::VectorStore;
use crate::session::{Stage, timed};
use crate::settings::EmbeddedSettings;
use crate::store::{
    Append, Appended, ContextPage, ContextStore, Created, ItemPage, ItemQuery, ListQuery, Purged, Replaced,
    Retention, SearchPage, SearchQuery, SeqRange, StoreHealth, Tail, TailQuery,
};
use crate::summary::Summary;
use crate::{Context, ContextPatch, NewContext, Seq, Version};

/// See the [module](self).
#[derive(Debug)]
pub struct EmbeddedStore {
    writer: Arc<writer::Writer>,
    readers: readers::Readers,
    backlog: Arc<index::Backlog>,
    indexer: index::Indexer,
    #[cfg(feature = "cache")]
    feed: Arc<feed::Feed>,
    clock: Arc<dyn Clock>,
}

impl EmbeddedStore {
    /// Opens the data file, creating it if it is not there.
    ///
    /// # Errors
    /// `StorageDamaged` if the file is not one of ours or is corrupt, `Unavailable` if it cannot be opened or
    /// another process holds it, each with the path and what to do.
    pub fn open(settings: &EmbeddedSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let database = database::Database::prepare(settings)?;
        let writer = Arc::new(writer::Writer::start(
            database.writer()?,
            settings.write_queue,
            settings.group_commit,
        )?);
        let backlog = index::Backlog::new();
        let indexer = index::Indexer::start(writer.clone(), backlog.clone(), &database.reader()?)
            .map_err(|error| database.name_the_file(error))?;
        let readers = readers::Readers::new(&database, settings.readers)?;
        Ok(Self {
            #[cfg(feature = "cache")]
            feed: Arc::new(feed::Feed::new(database.reader()?, writer.clone())?),
            writer,
            readers,
            backlog,
            indexer,
            clock,
        })
    }

    /// Tells whether other processes have changed the file.
    #[cfg(feature = "cache")]
    pub fn feed(&self) -> Arc<dyn crate::cached::ChangeFeed> {
        self.feed.clone()
    }

    /// Brings the schema up to date, creating the data file if it is not there; answers its version.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn migrate(settings: &EmbeddedSettings) -> Result<i64> {
        database::Database::prepare(settings)?.schema_version()
    }

    /// Looks through the whole file; answers what is wrong with it. Takes as long as reading it.
    pub async fn verify(&self) -> Result<Vec<String>> {
        self.readers.read(database::verify).await
    }

    /// Reads rows as they are, in one snapshot; may take as long as reading all of them.
    #[cfg(feature = "postgres")]
    pub(crate) async fn dump<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.dump(query).await
    }

    /// Finishes the writes that wait, leaves the index for the next start, and closes the file. Blocks for as
    /// long as the writes take. Dropping the store does the same.
    pub fn close(&self) {
        self.indexer.close();
        self.writer.close();
    }

    /// Queues a write at once; the future waits for its commit.
    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        timed(Stage::Commit, self.writer.write(job, |_| ()))
    }

    /// Queues an append at once; the future waits for its commit.
    fn append_with(
        &self,
        job: impl FnOnce(&rusqlite::Connection) -> Result<append::Outcome> + Send + 'static,
    ) -> impl Future<Output = Result<Appended>> + Send {
        let backlog = self.backlog.clone();
        let outcome = self.writer.write(job, move |outcome: &append::Outcome| {
            backlog.add(outcome.stream_no, outcome.new_items);
        });
        async move { Ok(timed(Stage::Commit, outcome).await?.appended) }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait::async_trait]
impl ContextStore for EmbeddedStore {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Created> {
        let (tenant, now) = (tenant.clone(), self.clock.now());
        self.write(move |connection| write::create(connection, &tenant, new, now))
            .await
    }

    async fn head(&self, key: &ContextKey) -> Result<Context> {
        let (key, now) = (key.clone(), self.clock.now());
        self.readers
            .read(move |connection| Ok(rows::head(connection, &key, now)?.context))
            .await
    }

    async fn heads(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Vec<Option<Context>>> {
        let keys: Vec<ContextKey> = ids.iter().map(|id| (tenant, id).into()).collect();
        let now = self.clock.now();
        self.readers
            .read(move |connection| read::heads(connection, &keys, now))
            .await
    }

    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Context> {
        let (key, now) = (key.clone(), self.clock.now());
        self.write(move |connection| write::update(connection, &key, &patch, expected, now))
            .await
    }

    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Version> {
        let (key, now) = (key.clone(), self.clock.now());
        self.write(move |connection| write::delete(connection, &key, expected, now))
            .await
    }

    async fn append(&self, key: &ContextKey, append: Append) -> Result<Appended> {
        let (key, now) = (key.clone(), self.clock.now());
        self.append_with(move |connection| append::append(connection, &key, &append, now))
            .await
    }

    // All take their places in the writer's queue before the first is waited for, so that they are one group.
    async fn append_many(
        &self,
        tenant: &TenantId,
        appends: Vec<(ContextId, Append)>,
    ) -> Vec<Result<Appended>> {
        let now = self.clock.now();
        let begin = |(id, append): (ContextId, Append)| {
            let key = ContextKey::from((tenant, &id));
            self.append_with(move |connection| append::append(connection, &key, &append, now))
        };
        let begun: Vec<_> = appends.into_iter().map(begin).collect();
        join_all(begun).await
    }

    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Vec<Result<Version>> {
        let now = self.clock.now();
        let begin = |(id, expected): (ContextId, Option<Version>)| {
            let key = ContextKey::from((tenant, &id));
            self.write(move |connection| write::delete(connection, &key, expected, now))
        };
        let begun: Vec<_> = deletes.into_iter().map(begin).collect();
        join_all(begun).await
    }

    async fn replace(&self, key: &ContextKey, append: Append) -> Result<Replaced> {
        let (key, now, backlog) = (key.clone(), self.clock.now(), self.backlog.clone());
        let done = self.writer.write(
            move |connection| append::replace(connection, &key, &append, now),
            move |(outcome, _)| backlog.add(outcome.stream_no, outcome.new_items),
        );
        let (outcome, head) = timed(Stage::Commit, done).await?;
        Ok(Replaced {
            appended: outcome.appended,
            head,
        })
    }

    async fn rewrite(
        &self,
        key: &ContextKey,
        keep: Vec<SeqRange>,
        expected: Option<Version>,
    ) -> Result<Context> {
        let (key, now) = (key.clone(), self.clock.now());
        self.write(move |connection| write::rewrite(connection, &key, &keep, expected, now))
            .await
    }

    async fn fork(&self, key: &ContextKey, at: Seq, new: NewContext) -> Result<Created> {
        let (key, now) = (key.clone(), self.clock.now());
        self.write(move |connection| write::fork(connection, &key, at, new, now))
            .await
    }

    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<ItemPage> {
        let (key, now) = (key.clone(), self.clock.now());
        self.readers
            .read(move |connection| read::items(connection, &key, query, now))
            .await
    }

    async fn tail(&self, key: &ContextKey, query: TailQuery) -> Result<Tail> {
        let (key, now) = (key.clone(), self.clock.now());
        self.readers
            .read(move |connection| read::tail(connection, &key, query, now))
            .await
    }

    async fn summaries(&self, key: &ContextKey) -> Result<Vec<Summary>> {
        let (key, now) = (key.clone(), self.clock.now());
        self.readers
            .read(move |connection| summaries::all(connection, &key, now))
            .await
    }

    async fn summaries_of(&self, key: &ContextKey, range: SeqRange) -> Result<Vec<Summary>> {
        let (key, now) = (key.clone(), self.clock.now());
        self.readers
            .read(move |connection| summaries::of(connection, &key, range, now))
            .await
    }

    async fn keep_summary(&self, key: &ContextKey, summary: Summary, stream: u64) -> Result<Option<Summary>> {
        let (key, now) = (key.clone(), self.clock.now());
        let summary = Summary {
            created_at: now,
            ..summary
        };
        self.write(move |connection| summaries::keep(connection, &key, summary, stream, now))
            .await
    }

    async fn put_summary(&self, key: &ContextKey, summary: Summary) -> Result<Summary> {
        let (key, now) = (key.clone(), self.clock.now());
        let summary = Summary {
            created_at: now,
            ..summary
        };
        self.write(move |connection| summaries::put(connection, &key, summary, now))
            .await
    }

    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<ContextPage> {
        let (tenant, now) = (tenant.clone(), self.clock.now());
        self.readers
            .read(move |connection| read::list(connection, &tenant, &query, now))
            .await
    }

    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<SearchPage> {
        let (tenant, now) = (tenant.clone(), self.clock.now());
        // Before the search: what is indexed meanwhile it may not have seen.
        let lag_items = self.backlog.lag();
        let page = self
            .readers
            .read(move |connection| index::search(connection, &tenant, &query, now))
            .await?;
        Ok(SearchPage { lag_items, ..page })
    }

    fn vectors(self: Arc<Self>) -> Option<Arc<dyn VectorStore>> {
        Some(self)
    }

    async fn purge(&self, retention: Retention) -> Result<Purged> {
        let now = self.clock.now();
        self.write(move |connection| purge::purge(connection, retention, now))
            .await
    }

    async fn check(&self) -> Result<StoreHealth> {
        self.readers
            .read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?))
            .await?;
        Ok(StoreHealth {
            kind: "embedded",
            writes_waiting: self.writer.waiting(),
            search_lag_items: self.backlog.lag(),
        })
    }

    async fn settle(&self) -> Result<()> {
        self.backlog.settled().await;
        Ok(())
    }
}
