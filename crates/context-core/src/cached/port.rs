//! The store as the port sees it: what memory may answer, what is asked behind it, and what is told (K1, K2).

use std::sync::Arc;

use super::tails::Standing;
use super::{CachedStore, as_old_as, note, origin_of, takes_anything};
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::manager::Origin;
use crate::semantic::VectorStore;
use crate::session::{Session, Stage, timed};
use crate::store::{
    Append, Appended, ContextPage, ContextStore, Created, ItemPage, ItemQuery, ListQuery, Purged, Replaced,
    Retention, SearchPage, SearchQuery, SeqRange, StoreHealth, Tail, TailQuery,
};
use crate::summary::Summary;
use crate::{Context, ContextPatch, NewContext, Seq, Version};

#[async_trait::async_trait]
impl ContextStore for CachedStore {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Created> {
        self.create_and_tell(tenant.clone(), new).await
    }

    async fn head(&self, key: &ContextKey) -> Result<Context> {
        self.shared_head(key).await.map(|head| Context::clone(&head))
    }

    async fn heads(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Vec<Option<Context>>> {
        let inner = &*self.0;
        let keys: Vec<ContextKey> = ids.iter().map(|id| (tenant, id).into()).collect();
        let floors: Option<Vec<Version>> = keys.iter().map(|key| inner.floor(key)).collect();
        let Some(floors) = floors else {
            return inner.store.heads(tenant, ids).await;
        };
        let allowed = inner.allowed();
        let found = inner.heads.get_many(&keys, &floors, &allowed);
        let Some(found) = timed(Stage::Cache, found).await else {
            return inner.store.heads(tenant, ids).await;
        };
        let mut heads = Vec::with_capacity(found.len());
        for found in &found {
            note(found, origin_of(found));
            heads.push(inner.there(found).ok().map(|head| Context::clone(&head)));
        }
        Ok(heads)
    }

    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Context> {
        self.update_and_tell(key.clone(), patch, expected).await
    }

    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Version> {
        self.delete_and_tell(key.clone(), expected).await
    }

    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Vec<Result<Version>> {
        self.delete_many_and_tell(tenant.clone(), deletes).await
    }

    async fn append(&self, key: &ContextKey, append: Append) -> Result<Appended> {
        self.append_and_tell(key.clone(), append).await
    }

    async fn append_many(
        &self,
        tenant: &TenantId,
        appends: Vec<(ContextId, Append)>,
    ) -> Vec<Result<Appended>> {
        self.append_many_and_tell(tenant.clone(), appends).await
    }

    async fn replace(&self, key: &ContextKey, append: Append) -> Result<Replaced> {
        self.replace_and_tell(key.clone(), append).await
    }

    async fn rewrite(
        &self,
        key: &ContextKey,
        keep: Vec<SeqRange>,
        expected: Option<Version>,
    ) -> Result<Context> {
        self.rewrite_and_tell(key.clone(), keep, expected).await
    }

    async fn fork(&self, key: &ContextKey, at: Seq, new: NewContext) -> Result<Created> {
        self.fork_and_tell(key.clone(), at, new).await
    }

    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<ItemPage> {
        let inner = &*self.0;
        if let Some(read) = inner.reading(key)
            && let Some(tails) = inner.tails()
            // A page is answered from what is held, and is no reason to hold anything: most pages are of old items.
            && let Some(found) = inner.heads.hit(key, &read)
        {
            let head = inner.there(&found)?;
            if let Standing::Current(page) = tails.with(inner.history(), key, &head, |held| held.page(&query))
            {
                note(&found, Origin::L1);
                return Ok(page);
            }
            if !takes_anything() {
                let page = Session::at_least(key, head.version, inner.store.items(key, query)).await?;
                as_old_as(&found);
                return Ok(page);
            }
        }
        inner.store.items(key, query).await
    }

    async fn tail(&self, key: &ContextKey, query: TailQuery) -> Result<Tail> {
        let inner = &*self.0;
        // A reader without a budget reads everything, which is not for keeping.
        let bounded = query.max_tokens != Some(u64::MAX);
        if let Some(read) = inner.reading(key).filter(|_| bounded) {
            let budget = |head: &Context| query.tokens_max(head);
            let tail = inner
                .through(key, &read, budget, |held| held.tail(&query))
                .await?;
            if let Some(tail) = tail {
                return Ok(tail);
            }
        }
        inner.store.tail(key, query).await
    }

    async fn summaries(&self, key: &ContextKey) -> Result<Vec<Summary>> {
        self.0.store.summaries(key).await
    }

    async fn summaries_of(&self, key: &ContextKey, range: SeqRange) -> Result<Vec<Summary>> {
        self.0.store.summaries_of(key, range).await
    }

    async fn put_summary(&self, key: &ContextKey, summary: Summary) -> Result<Summary> {
        self.0.store.put_summary(key, summary).await
    }

    async fn keep_summary(&self, key: &ContextKey, summary: Summary, stream: u64) -> Result<Option<Summary>> {
        self.0.store.keep_summary(key, summary, stream).await
    }

    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<ContextPage> {
        self.0.store.list(tenant, query).await
    }

    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<SearchPage> {
        self.0.store.search(tenant, query).await
    }

    fn vectors(self: Arc<Self>) -> Option<Arc<dyn VectorStore>> {
        self.0.store.clone().vectors()
    }

    async fn purge(&self, retention: Retention) -> Result<Purged> {
        self.0.store.purge(retention).await
    }

    async fn check(&self) -> Result<StoreHealth> {
        self.0.store.check().await
    }

    async fn settle(&self) -> Result<()> {
        self.0.store.settle().await
    }

    fn history(&self) -> u64 {
        self.0.store.history()
    }
}
