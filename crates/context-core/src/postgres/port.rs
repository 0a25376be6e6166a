//! The store as the port sees it: each operation says only where it reads or how it writes.

use std::sync::Arc;

use super::{PgContextStore, bury, create, indexer, purge, read, replace, search, summaries, write};
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::semantic::VectorStore;
use crate::store::{
    Append, Appended, ContextPage, ContextStore, Created, ItemPage, ItemQuery, ListQuery, Purged, Replaced,
    Retention, SearchPage, SearchQuery, SeqRange, StoreHealth, Tail, TailQuery,
};
use crate::summary::Summary;
use crate::{Context, ContextPatch, NewContext, Seq, Version};

#[async_trait::async_trait]
impl ContextStore for PgContextStore {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Created> {
        let now = self.clock.now();
        // One id for all tries of the transaction.
        let id = new.id.clone().unwrap_or_else(ContextId::generate);
        let new = &new.with_id(id.clone());
        let (id, durability) = (&id, self.settings.durability);
        let at_once = self
            .write_at_once(|session| async move {
                create::create(&session, tenant, id, new, now, durability).await
            })
            .await?;
        if let Some(created) = at_once {
            return Ok(created);
        }
        self.write(|session, _| Box::pin(write::create(session, tenant, new.clone(), now, None)))
            .await
    }

    async fn head(&self, key: &ContextKey) -> Result<Context> {
        self.ready()?;
        let now = self.clock.now();
        let op = |endpoint| read::head(endpoint, key, now);
        self.reads.context(key, op, |context| context.version).await
    }

    async fn heads(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Vec<Option<Context>>> {
        self.ready()?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        self.reads
            .heads(tenant, ids, |session| async move {
                read::heads(&session, tenant, ids, now).await
            })
            .await
    }

    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Context> {
        let (patch, now) = (&patch, self.clock.now());
        self.write(|session, _| Box::pin(write::update(session, key, patch, expected, now)))
            .await
    }

    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Version> {
        let now = self.clock.now();
        self.write(|session, _| Box::pin(write::delete(session, key, expected, now)))
            .await
    }

    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Vec<Result<Version>> {
        if deletes.is_empty() {
            return Vec::new();
        }
        let (deletes, now) = (&deletes, self.clock.now());
        let durability = self.settings.durability;
        let outcomes = self
            .write_at_once(|session| async move {
                bury::delete_many(&session, tenant, deletes, now, durability).await
            })
            .await;
        outcomes.unwrap_or_else(|error| vec![Err(error); deletes.len()])
    }

    async fn append(&self, key: &ContextKey, append: Append) -> Result<Appended> {
        self.ready()?;
        let (appended, position) = self.appender.append(key, append, self.clock.now()).await?;
        position.note();
        Ok(appended)
    }

    async fn append_many(
        &self,
        tenant: &TenantId,
        appends: Vec<(ContextId, Append)>,
    ) -> Vec<Result<Appended>> {
        if let Err(error) = self.ready() {
            return vec![Err(error); appends.len()];
        }
        let outcomes = self.appender.append_many(tenant, appends, self.clock.now()).await;
        let noted = outcomes.into_iter().map(|outcome| {
            let (appended, position) = outcome?;
            position.note();
            Ok(appended)
        });
        noted.collect()
    }

    async fn replace(&self, key: &ContextKey, append: Append) -> Result<Replaced> {
        let (append, now) = (&append, self.clock.now());
        let replaced = self
            .write(|session, _| Box::pin(replace::replace(session, key, append, now)))
            .await?;
        self.indexer.news().notify_one();
        Ok(replaced)
    }

    async fn rewrite(
        &self,
        key: &ContextKey,
        keep: Vec<SeqRange>,
        expected: Option<Version>,
    ) -> Result<Context> {
        let (keep, now) = (&keep, self.clock.now());
        self.write(|session, _| Box::pin(write::rewrite(session, key, keep, expected, now)))
            .await
    }

    async fn fork(&self, key: &ContextKey, at: Seq, new: NewContext) -> Result<Created> {
        let id = new.id.clone().unwrap_or_else(ContextId::generate);
        let (new, now) = (&new.with_id(id), self.clock.now());
        self.write(|session, _| Box::pin(write::fork(session, key, at, new.clone(), now)))
            .await
    }

    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<ItemPage> {
        self.ready()?;
        let now = self.clock.now();
        let op = |endpoint| read::items(endpoint, key, query, now);
        self.reads.context(key, op, |page| page.version).await
    }

    async fn tail(&self, key: &ContextKey, query: TailQuery) -> Result<Tail> {
        self.ready()?;
        let now = self.clock.now();
        let op = |endpoint| read::tail(endpoint, key, query, now);
        self.reads.context(key, op, |tail| tail.context.version).await
    }

    async fn summaries(&self, key: &ContextKey) -> Result<Vec<Summary>> {
        self.ready()?;
        let now = self.clock.now();
        let op = |endpoint| summaries::all(endpoint, key, now);
        let (_, summaries) = self.reads.context(key, op, |(version, _)| *version).await?;
        Ok(summaries)
    }

    async fn summaries_of(&self, key: &ContextKey, range: SeqRange) -> Result<Vec<Summary>> {
        self.ready()?;
        let now = self.clock.now();
        let op = |endpoint| summaries::of(endpoint, key, range, now);
        let (_, summaries) = self.reads.context(key, op, |(version, _)| *version).await?;
        Ok(summaries)
    }

    async fn keep_summary(&self, key: &ContextKey, summary: Summary, stream: u64) -> Result<Option<Summary>> {
        let now = self.clock.now();
        let summary = &Summary {
            created_at: now,
            ..summary
        };
        self.write(|session, _| Box::pin(summaries::keep(session, key, summary, stream, now)))
            .await
    }

    async fn put_summary(&self, key: &ContextKey, summary: Summary) -> Result<Summary> {
        let now = self.clock.now();
        let summary = &Summary {
            created_at: now,
            ..summary
        };
        self.write(|session, _| Box::pin(summaries::put(session, key, summary, now)))
            .await?;
        Ok(summary.clone())
    }

    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<ContextPage> {
        self.ready()?;
        let (query, now) = (&query, self.clock.now());
        self.reads
            .list(tenant, |session| async move {
                read::list(&session, tenant, query, now).await
            })
            .await
    }

    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<SearchPage> {
        self.ready()?;
        let (query, now) = (&query, self.clock.now());
        let entered = self.searches.enter().await?;
        let page = self
            .reads
            .many(|session| async move { search::search(&session, tenant, query, now).await })
            .await;
        entered.end_search(&page);
        page?
    }

    fn vectors(self: Arc<Self>) -> Option<Arc<dyn VectorStore>> {
        Some(self)
    }

    async fn purge(&self, retention: Retention) -> Result<Purged> {
        let now = self.clock.now();
        self.write(|session, _| Box::pin(purge::purge(session, retention, now)))
            .await
    }

    async fn check(&self) -> Result<StoreHealth> {
        self.ready()?;
        let primary = self.servers.primary_member();
        let lag = primary
            .ask(async |endpoint| indexer::lag(&endpoint.session().await?).await)
            .await
            .inspect_err(|fault| self.servers.notice(&primary.endpoint, fault));
        Ok(StoreHealth {
            kind: "postgres",
            writes_waiting: self.appender.waiting(),
            search_lag_items: lag??,
        })
    }

    async fn settle(&self) -> Result<()> {
        self.ready()?;
        self.indexer.settle().await
    }

    // A promoted standby begins another timeline. Databases of one server may share a Redis as well.
    fn history(&self) -> u64 {
        let database = self.database.get().copied().unwrap_or(0);
        self.servers.epoch().map_or(0, |epoch| {
            epoch.system_identifier.rotate_left(32) ^ u64::from(epoch.timeline) ^ (database << 16)
        })
    }
}
