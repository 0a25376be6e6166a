//! The manager with a memory: the standard one over a [`CachedStore`], and windows that are kept ready. What it answers
//! is what the standard manager would have answered; the tests of [`cached`](crate::cached) hold them together.

use std::sync::Arc;

use crate::background::BackgroundSummaries;
use crate::cached::CachedStore;
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::manager::{Answer, AppendRequest, ContextManager, TruncateRequest, Truncation};
use crate::semantic::{Semantic, SemanticPage, SemanticQuery};
use crate::settings::LimitSettings;
use crate::standard::{StandardContextManager, seen};
use crate::store::{
    Appended, ContextPage, Created, ItemPage, ItemQuery, ListQuery, SearchPage, SearchQuery, StoreHealth,
};
use crate::summary::{PutSummary, Summary, SummaryRequest};
use crate::window::{Window, WindowRequest};
use crate::{Context, ContextPatch, Head, NewContext, Seq, Version};

/// See the [module](self).
#[derive(Debug)]
pub struct OptimizedContextManager {
    standard: StandardContextManager,
    store: CachedStore,
}

impl OptimizedContextManager {
    /// A manager over this store.
    pub fn new(store: CachedStore, limits: LimitSettings) -> Self {
        Self {
            standard: StandardContextManager::new(Arc::new(store.clone()), limits),
            store,
        }
    }

    /// Has summaries that nobody waits for made by these.
    #[must_use]
    pub fn with_background(mut self, background: BackgroundSummaries) -> Self {
        self.standard = self.standard.with_background(background);
        self
    }

    /// Answers searches by meaning from these vectors.
    #[must_use]
    pub fn with_semantic(mut self, semantic: Semantic) -> Self {
        self.standard = self.standard.with_semantic(semantic);
        self
    }
}

#[async_trait::async_trait]
impl ContextManager for OptimizedContextManager {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Answer<Created>> {
        self.standard.create(tenant, new).await
    }

    // As the standard manager, without a copy of its own for each reader.
    async fn get(&self, key: &ContextKey) -> Result<Answer<Arc<Head>>> {
        let head = self.store.shared_head(key).await?;
        Ok(seen(key, head.version(), head))
    }

    fn get_ready(&self, key: &ContextKey) -> Option<Answer<Arc<Head>>> {
        let head = self.store.head_ready(key)?;
        Some(seen(key, head.version(), head))
    }

    async fn get_many(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Answer<Vec<Option<Context>>>> {
        self.standard.get_many(tenant, ids).await
    }

    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Answer<Context>> {
        self.standard.update(key, patch, expected).await
    }

    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Answer<Version>> {
        self.standard.delete(key, expected).await
    }

    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Answer<Vec<Result<Version>>> {
        self.standard.delete_many(tenant, deletes).await
    }

    async fn append(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>> {
        self.standard.append(key, request).await
    }

    async fn append_many(
        &self,
        tenant: &TenantId,
        requests: Vec<(ContextId, AppendRequest)>,
    ) -> Answer<Vec<Result<Appended>>> {
        self.standard.append_many(tenant, requests).await
    }

    async fn replace(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>> {
        self.standard.replace(key, request).await
    }

    async fn truncate(&self, key: &ContextKey, request: TruncateRequest) -> Result<Answer<Truncation>> {
        self.standard.truncate(key, request).await
    }

    async fn fork(&self, key: &ContextKey, at: Option<Seq>, new: NewContext) -> Result<Answer<Created>> {
        self.standard.fork(key, at, new).await
    }

    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<Answer<ItemPage>> {
        self.standard.items(key, query).await
    }

    // Windows with a summary are not kept ready: a summary has no version, so that nobody would tell of a better one. They are
    // made of what is held, and the summary is one lookup in the store.
    async fn window(&self, key: &ContextKey, request: WindowRequest) -> Result<Answer<Arc<Window>>> {
        if let Some(answer) = self.window_ready(key, &request) {
            return Ok(answer);
        }
        let answer = self.standard.window(key, request).await?;
        if !request.summary {
            self.store.keep_window(key, request, &answer.value);
        }
        Ok(answer)
    }

    fn window_ready(&self, key: &ContextKey, request: &WindowRequest) -> Option<Answer<Arc<Window>>> {
        self.store.window_ready(key, request)
    }

    async fn summary(&self, key: &ContextKey, request: SummaryRequest) -> Result<Answer<Option<Summary>>> {
        self.standard.summary(key, request).await
    }

    async fn put_summary(&self, key: &ContextKey, put: PutSummary) -> Result<Answer<Summary>> {
        self.standard.put_summary(key, put).await
    }

    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<Answer<ContextPage>> {
        self.standard.list(tenant, query).await
    }

    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<Answer<SearchPage>> {
        self.standard.search(tenant, query).await
    }

    async fn search_semantic(&self, tenant: &TenantId, query: SemanticQuery) -> Result<Answer<SemanticPage>> {
        self.standard.search_semantic(tenant, query).await
    }

    async fn check(&self) -> Result<StoreHealth> {
        self.standard.check().await
    }
}
