//! What both faces call. A face knows this trait and nothing behind it.

use std::sync::Arc;

use crate::error::Result;
use crate::id::{ContextId, ContextKey, IdempotencyKey, TenantId};
use crate::semantic::{SemanticPage, SemanticQuery};
use crate::store::{
    Appended, ContextPage, Created, ItemPage, ItemQuery, ListQuery, SearchPage, SearchQuery, SeqRange,
    StoreHealth,
};
use crate::summary::{PutSummary, Summary, SummaryRequest};
use crate::truncate::Strategy;
use crate::{Context, ContextPatch, Head, NewContext, NewItem, Seq, Version, Window, WindowRequest};

/// Where an answer came from (G7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The process's own cache.
    L1,
    /// The shared cache.
    L2,
    /// A read replica.
    Replica,
    /// The store that takes the writes.
    Primary,
    /// A cache entry that could not be validated, served because the caller allowed it.
    Stale,
}

impl Origin {
    /// Stable name, used on both faces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Replica => "replica",
            Self::Primary => "primary",
            Self::Stale => "stale",
        }
    }
}

/// An answer and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

/// Items to append or to put in the place of all.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// In order.
    pub items: Vec<NewItem>,
    /// The version that the context must have; without it appends commute and nobody has to retry (G2).
    pub expected: Option<Version>,
    /// Names this append; a retry adds nothing.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// Which items to drop.
#[derive(Clone, Debug, Default)]
pub struct TruncateRequest {
    /// Items are dropped until the tokens are at most this.
    pub max_tokens: u64,
    /// Which of them go first.
    pub strategy: Strategy,
    /// What the rest is needed for: [`Strategy::Relevance`] needs it, the others refuse it.
    pub query: Option<String>,
    /// The version that the context must have.
    pub expected: Option<Version>,
    /// Only say what would be dropped.
    pub dry_run: bool,
}

/// What a truncation did or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Truncation {
    /// Items dropped.
    pub dropped_items: u64,
    /// Their tokens.
    pub dropped_tokens: u64,
    /// The seqs of which nothing is left among those that the context began with, oldest first, at most
    /// [`Truncation::RANGES_MAX`] ranges. What an earlier truncation left out of the middle counts as well.
    pub dropped_ranges: Vec<SeqRange>,
    /// Whether there are more ranges than these.
    pub more_ranges: bool,
    /// The head after it; unchanged by a dry run.
    pub context: Context,
}

impl Truncation {
    /// Most ranges that are listed.
    pub const RANGES_MAX: usize = 64;
}

/// Every operation on contexts, for one tenant at a time (G8).
///
/// An operation on many is not one transaction: each element has the outcome that it would have by itself, after those
/// before it.
///
/// Cancellation: dropping the future of a read stops it; dropping the future of a write leaves its outcome
/// unknown to the caller, never half done.
#[async_trait::async_trait]
pub trait ContextManager: Send + Sync + std::fmt::Debug {
    /// Creates a context, or finds the one that is there with the same fields.
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Answer<Created>>;
    /// The head of a context. Shared, because whoever asks for the same version gets the same one.
    async fn get(&self, key: &ContextKey) -> Result<Answer<Arc<Head>>>;
    /// As [`ContextManager::get`], if it can be answered without waiting for anything; `None` says nothing about whether
    /// there is such a context.
    fn get_ready(&self, key: &ContextKey) -> Option<Answer<Arc<Head>>> {
        let _ = key;
        None
    }
    /// The heads of several contexts, in the order of `ids`; `None` where [`ContextManager::get`] would answer
    /// `NotFound`.
    async fn get_many(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Answer<Vec<Option<Context>>>>;
    /// Changes a head.
    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Answer<Context>>;
    /// Deletes a context; answers the version of the tombstone.
    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Answer<Version>>;
    /// Deletes several contexts; each outcome is its own, in the order of `deletes`.
    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Answer<Vec<Result<Version>>>;
    /// Appends items.
    async fn append(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>>;
    /// Appends to several contexts; each outcome is its own, in the order of `requests`. Appends to the same context
    /// keep their order.
    async fn append_many(
        &self,
        tenant: &TenantId,
        requests: Vec<(ContextId, AppendRequest)>,
    ) -> Answer<Vec<Result<Appended>>>;
    /// Puts other items in the place of all.
    async fn replace(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>>;
    /// Drops items until the budget holds. Conditional on the version that the choice was made at.
    async fn truncate(&self, key: &ContextKey, request: TruncateRequest) -> Result<Answer<Truncation>>;
    /// Creates a context that shares the items up to `at`, or all of them.
    async fn fork(&self, key: &ContextKey, at: Option<Seq>, new: NewContext) -> Result<Answer<Created>>;
    /// A page of items.
    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<Answer<ItemPage>>;
    /// The part that fits a token budget. Shared, because whoever asks alike gets the same one.
    async fn window(&self, key: &ContextKey, request: WindowRequest) -> Result<Answer<Arc<Window>>>;
    /// As [`ContextManager::window`], if it can be answered without waiting for anything; `None` says nothing about
    /// whether there is one.
    fn window_ready(&self, key: &ContextKey, request: &WindowRequest) -> Option<Answer<Arc<Window>>> {
        let _ = (key, request);
        None
    }
    /// A summary of a range, or of what the context's own window leaves out; `None` if that is nothing. Made without any
    /// model, and kept; a client's own for the same range is preferred.
    async fn summary(&self, key: &ContextKey, request: SummaryRequest) -> Result<Answer<Option<Summary>>>;
    /// Keeps a client's summary of a range.
    async fn put_summary(&self, key: &ContextKey, put: PutSummary) -> Result<Answer<Summary>>;
    /// A page of contexts.
    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<Answer<ContextPage>>;
    /// A page of hits by meaning.
    ///
    /// # Errors
    /// `Invalid` on the field `mode` if no embedder is configured; `EmbedderUnavailable`.
    async fn search_semantic(&self, tenant: &TenantId, query: SemanticQuery) -> Result<Answer<SemanticPage>>;
    /// A page of hits.
    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<Answer<SearchPage>>;
    /// Whether requests can be served now.
    async fn check(&self) -> Result<StoreHealth>;
}

/// A key made of parts that a face has parsed.
impl From<(&TenantId, &ContextId)> for ContextKey {
    fn from((tenant, id): (&TenantId, &ContextId)) -> Self {
        Self::new(tenant.clone(), id.clone())
    }
}

/// A manager, shared by all requests.
pub(crate) type SharedManager = Arc<dyn ContextManager>;
