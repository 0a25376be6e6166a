//! The port that every store implements. One contract suite (`contract`, feature `test-util`) runs against all of them.
//!
//! What an implementation MUST keep, numbered so that tests can cite it:
//!
//! - **S1** An operation that answered `Ok` survives the death of the process (G1).
//! - **S2** Each committed change adds exactly one to the context's version; a refused one adds nothing.
//! - **S3** Seqs of a context are 1, 2, 3 … without gaps in append order and are never used twice, not even
//!   after `rewrite` or `replace` (G3).
//! - **S4** An append with a known idempotency key, or whose items all have known client ids, adds nothing
//!   and answers what the first one answered (G2). A client id is known as long as its context is there, whatever has
//!   become of the item: truncated, replaced, purged. It names the item that was stored with it last: an append never
//!   takes over a known one, a replacement does. An item is compared with the one that its client id names, as JSON and
//!   not byte by byte, as long as the store has that one, which may be out of the context's reach: until a purge has
//!   removed it, which it does not while a fork shares it. After that the client id alone decides, and an item of other
//!   content is answered like a retry. Client ids belong to one context: a fork knows none of its parent's.
//! - **S5** An operation on a key sees and changes nothing of another tenant or context (G8).
//! - **S6** A deleted or expired context answers like one that never was; its id may be used again, with a
//!   version above all versions before (G6).
//! - **S7** An item comes back byte for byte.
//! - **S8** The cost of `append` and of `tail` does not depend on the length of the context.
//!
//! - **S9** An operation on many (`heads`, `append_many`, `delete_many`) means what its elements mean one after the
//!   other, in order: S1 to S8 hold for each, one that is refused touches none of the others, and all together are not
//!   one transaction: others may see and change what lies between two elements.
//!
//! Cancellation: dropping the future of a write neither undoes nor blocks it; the caller just does not learn
//! its outcome, and finds out by repeating it with the same key. Of a write of many, elements that have not begun may
//! then be left undone.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::id::{ClientId, ContextId, ContextKey, IdempotencyKey, TenantId};
use crate::item::Kind;
use crate::search::Query;
use crate::semantic::VectorStore;
use crate::summary::Summary;
use crate::{Context, ContextPatch, Item, NewContext, NewItem, Role, Seq, Timestamp, Tokenizer, Version};

/// Items that one segment of a stream holds.
pub const SEGMENT_ITEMS: u64 = 64;

/// Most pieces that a stream may be made of: how often a context can be truncated or forked from a fork
/// before its items have to be replaced.
pub const SPANS_MAX: usize = 1024;

/// Where contexts and items are kept. See the module for what an implementation must keep.
#[async_trait::async_trait]
pub trait ContextStore: Send + Sync + std::fmt::Debug {
    /// Creates a context, or finds the one that is there with the same fields.
    ///
    /// # Errors
    /// `ContextDiffers` if the id is taken by a context with other fields.
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Created>;

    /// The head of a context.
    async fn head(&self, key: &ContextKey) -> Result<Context>;

    /// The heads of several contexts, in the order of `ids`; `None` where [`ContextStore::head`] would answer
    /// `NotFound`. The same id may stand several times.
    ///
    /// # Errors
    /// Those of a read, for all of them together. `SessionLost` if one of them is behind what the session has seen.
    async fn heads(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Vec<Option<Context>>> {
        let mut heads = Vec::with_capacity(ids.len());
        for id in ids {
            heads.push(match self.head(&(tenant, id).into()).await {
                Ok(context) => Some(context),
                Err(Error::NotFound) => None,
                Err(error) => return Err(error),
            });
        }
        Ok(heads)
    }

    /// Changes a head.
    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Context>;

    /// Deletes a context and answers the version of its tombstone. Its items are purged later.
    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Version>;

    /// Deletes several contexts; each outcome is what [`ContextStore::delete`] would answer, in the order of
    /// `deletes` (S9). A context that stands twice is gone for whatever comes after its deletion.
    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Vec<Result<Version>> {
        let mut outcomes = Vec::with_capacity(deletes.len());
        for (id, expected) in deletes {
            outcomes.push(self.delete(&(tenant, &id).into(), expected).await);
        }
        outcomes
    }

    /// Appends items.
    ///
    /// # Errors
    /// `TokenizerMismatch` if the counts were made with another tokenizer; `VersionMismatch`,
    /// `IdempotencyKeyReused`, `ClientIdReused`. Neighbours in the same commit are not affected.
    async fn append(&self, key: &ContextKey, append: Append) -> Result<Appended>;

    /// Appends to several contexts; each outcome is what [`ContextStore::append`] would answer, in the order of
    /// `appends` (S9). Appends to the same context keep their order.
    async fn append_many(
        &self,
        tenant: &TenantId,
        appends: Vec<(ContextId, Append)>,
    ) -> Vec<Result<Appended>> {
        let mut outcomes = Vec::with_capacity(appends.len());
        for (id, append) in appends {
            outcomes.push(self.append(&(tenant, &id).into(), append).await);
        }
        outcomes
    }

    /// Puts other items in the place of all. Seqs go on, they do not start again. Items may bear client ids that were used
    /// before; from then on these name the new items (S4).
    ///
    /// # Errors
    /// Those of [`ContextStore::append`] but `ClientIdReused`.
    async fn replace(&self, key: &ContextKey, append: Append) -> Result<Replaced>;

    /// Keeps only the given ranges of seqs, ascending and disjoint. Nothing is copied.
    async fn rewrite(
        &self,
        key: &ContextKey,
        keep: Vec<SeqRange>,
        expected: Option<Version>,
    ) -> Result<Context>;

    /// Creates a context that shares the items of `key` up to `at`, and remembers that it does. Nothing is copied.
    async fn fork(&self, key: &ContextKey, at: Seq, new: NewContext) -> Result<Created>;

    /// A page of items in order.
    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<ItemPage>;

    /// The head, the items that are in every window, and the newest items up to a budget, of one moment.
    async fn tail(&self, key: &ContextKey, query: TailQuery) -> Result<Tail>;

    /// The summaries that were kept, by kind and range; at most [`PER_CONTEXT_MAX`](crate::summary::PER_CONTEXT_MAX).
    async fn summaries(&self, key: &ContextKey) -> Result<Vec<Summary>>;

    /// Those of [`ContextStore::summaries`] that are of exactly this range: at most one of each kind.
    async fn summaries_of(&self, key: &ContextKey, range: SeqRange) -> Result<Vec<Summary>> {
        let mut all = self.summaries(key).await?;
        all.retain(|one| one.range == range);
        Ok(all)
    }

    /// Keeps a summary, written now, in the place of the one of this kind and range; answers it with its time. When there are too many, the one that was written
    /// longest ago goes. It is not a change of the context: its version stays. A truncation leaves summaries; a
    /// replacement and the context's end take them along.
    async fn put_summary(&self, key: &ContextKey, summary: Summary) -> Result<Summary>;

    /// Keeps a summary that was made of the items of a stream, [`Context::stream`]: as [`ContextStore::put_summary`], but
    /// the one of this kind and range that is there stays, and is the answer. `None` if the context has another stream by
    /// now, so that nobody knows whether it still is of these items; nothing is kept then.
    async fn keep_summary(&self, key: &ContextKey, summary: Summary, stream: u64) -> Result<Option<Summary>>;

    /// A page of contexts, newest first.
    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<ContextPage>;

    /// A page of hits, best first. The index lags behind appends; the page says by how much.
    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<SearchPage>;

    /// The vectors beside the items, for searches by meaning; `None` if this store keeps none.
    fn vectors(self: Arc<Self>) -> Option<Arc<dyn VectorStore>> {
        None
    }

    /// Removes what expired and what can no longer be reached, a bounded batch at a time; `Purged::more`
    /// says whether to call again.
    async fn purge(&self, retention: Retention) -> Result<Purged>;

    /// Whether the store answers, by asking it, and lets calls in.
    async fn check(&self) -> Result<StoreHealth>;

    /// Waits until everything acknowledged so far is in the search index.
    async fn settle(&self) -> Result<()>;

    /// Names the history that the versions belong to: another one may have given the same version to something else, as
    /// when a standby was promoted that had not received everything. Whoever remembers versions forgets those of
    /// another history.
    fn history(&self) -> u64 {
        0
    }
}

/// What `create` and `fork` answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Created {
    /// The head as it is now.
    pub context: Context,
    /// False if it was there already.
    pub is_new: bool,
    /// Of a fork that is new: [`Context::stream`] of its parent, as it was when the items were shared.
    pub parent_stream: Option<u64>,
}

/// Items to append, counted with `tokenizer`.
#[derive(Clone, Debug)]
pub struct Append {
    /// In order; never empty for `append`.
    pub items: Arc<[NewItem]>,
    /// What their counts were made with.
    pub tokenizer: Tokenizer,
    /// The version that the context must have.
    pub expected: Option<Version>,
    /// Names this append.
    pub idempotency: Option<Idempotency>,
}

/// A key and the fingerprint of the request that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the client.
    pub key: IdempotencyKey,
    /// SHA-256 over what was asked.
    pub fingerprint: [u8; 32],
}

/// What an append answers. The same for a retry as for the first time (G2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Seq of the first item.
    pub first_seq: Seq,
    /// Seq of the last item.
    pub last_seq: Seq,
    /// Tokens of these items.
    pub tokens: u64,
    /// The context's version after it.
    pub version: Version,
    /// Whether the context was over its budget after it.
    pub over_budget: bool,
    /// Whether it had been stored before. Not part of the answer to a client.
    pub replayed: bool,
    /// When the items were created, where the store can tell without asking: the head's `updated_at` is then this, or
    /// what it was before if that is later. Not part of the answer to a client.
    pub at: Option<Timestamp>,
}

/// What became of a replacement.
#[derive(Clone, Debug, PartialEq)]
pub struct Replaced {
    /// What a client is told of the new items.
    pub appended: Appended,
    /// The head that it made, unless it had been done before.
    pub head: Option<Context>,
}

/// Seqs from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The first.
    pub first: Seq,
    /// The last; not below `first`.
    pub last: Seq,
}

/// Which way a page of items goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// Asks for a page of items.
#[derive(Clone, Copy, Debug)]
pub struct ItemQuery {
    /// Only items after this seq.
    pub after: Seq,
    /// Only items before this seq.
    pub before: Seq,
    /// Which way.
    pub order: Order,
    /// Most items.
    pub limit: u32,
    /// Stop before the bodies are more than this, but give at least one item.
    pub bytes_max: u64,
}

/// A page of items.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemPage {
    /// The context's version at that moment.
    pub version: Version,
    /// The items.
    pub items: Vec<Item>,
    /// Whether there are more in this direction.
    pub more: bool,
}

/// Asks for what a window is made of.
#[derive(Clone, Copy, Debug)]
pub struct TailQuery {
    /// Stop before the run's tokens are more than this; the context's own budget if absent.
    pub max_tokens: Option<u64>,
    /// Tokens taken off the budget.
    pub reserve: u64,
    /// Stop after so many items.
    pub items_max: u32,
    /// Stop before the run's bodies are more than this. Those of the instructions and pinned items before it may be as
    /// much; if they are more, the answer is `TooLarge`, because they can't be left out.
    pub bytes_max: u64,
}

impl TailQuery {
    /// What is answered where the bodies of what is kept before the run are more than allowed.
    #[cfg(any(feature = "embedded", feature = "postgres", test, feature = "test-util"))]
    pub(crate) fn kept_too_large(&self, bytes: u64) -> Error {
        Error::TooLarge {
            what: "what every window of the context holds, its instructions and pinned items, in bytes"
                .into(),
            actual: bytes,
            limit: self.bytes_max,
        }
    }

    /// The budget, once the context is known.
    pub fn tokens_max(&self, context: &Context) -> u64 {
        self.max_tokens
            .unwrap_or(context.max_tokens)
            .saturating_sub(self.reserve)
    }
}

/// What a window is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// The head at that moment.
    pub context: Context,
    /// Instructions and pinned items older than the run, oldest first.
    pub kept: Vec<Item>,
    /// The newest items without a gap, oldest first.
    pub run: Vec<Item>,
    /// What kind of item comes right before the run, if any does: a run must not begin between reasoning and
    /// what follows it.
    pub before: Option<Kind>,
}

/// Which contexts to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only this agent's.
    pub agent_id: Option<String>,
    /// Only this session's.
    pub session_id: Option<String>,
    /// Only those with all of these labels.
    pub labels: Vec<String>,
    /// Only forks of this one, which may be gone.
    pub forked_from: Option<ContextId>,
    /// Only those after this place in the order.
    pub after: Option<ListPosition>,
    /// Most contexts.
    pub limit: u32,
}

/// A place in the order of a list: newest first, then by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPosition {
    /// When the context was created.
    pub created_at: Timestamp,
    /// Its id.
    pub id: ContextId,
}

/// A page of contexts.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextPage {
    /// The contexts.
    pub contexts: Vec<Context>,
    /// Whether there are more.
    pub more: bool,
}

/// What to search.
#[derive(Clone, Debug)]
pub struct SearchQuery {
    /// What to look for.
    pub query: Query,
    /// Only in this context; `NotFound` if it is not there.
    pub context: Option<ContextId>,
    /// Only items of this role.
    pub role: Option<Role>,
    /// Only items acknowledged at this time or later.
    pub since: Option<Timestamp>,
    /// Only items acknowledged before this time.
    pub until: Option<Timestamp>,
    /// Skip so many hits.
    pub offset: u32,
    /// Most hits.
    pub limit: u32,
}

impl SearchQuery {
    /// Whether an item passes the filters; the definition that every store's statement has to agree with.
    pub fn admits(&self, item: &Item) -> bool {
        self.role.is_none_or(|role| item.traits.role == role)
            && self.since.is_none_or(|since| item.created_at >= since)
            && self.until.is_none_or(|until| item.created_at < until)
    }
}

/// One hit.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The context that it is in.
    pub context: ContextId,
    /// The item.
    pub item: Item,
    /// Larger is better; comparable within one page only.
    pub score: f64,
    /// A piece of the text around what was found.
    pub snippet: String,
}

/// A page of hits.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchPage {
    /// The hits.
    pub hits: Vec<Hit>,
    /// Whether there are more.
    pub more: bool,
    /// Acknowledged items that are not in the index yet.
    pub lag_items: u64,
}

/// How long what is no longer visible is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Tombstones of contexts deleted before this are forgotten, with their versions.
    pub tombstones_before: Timestamp,
    /// Idempotency keys used before this are forgotten.
    pub keys_before: Timestamp,
    /// Most rows touched by one call.
    pub batch: u32,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Contexts that expired and are now deleted.
    pub expired: u64,
    /// Items removed for good.
    pub items: u64,
    /// Tombstones forgotten.
    pub tombstones: u64,
    /// Idempotency keys forgotten.
    pub keys: u64,
    /// Whether another call has something to do.
    pub more: bool,
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreHealth {
    /// Which store, such as `embedded`.
    pub kind: &'static str,
    /// Writes that wait for a commit.
    pub writes_waiting: u64,
    /// Acknowledged items that are not in the search index yet.
    pub search_lag_items: u64,
}

/// The client ids of an append that stand twice in it, if any do.
pub(crate) fn repeated_client_id(items: &[NewItem]) -> Option<(usize, &ClientId)> {
    let mut seen = std::collections::HashSet::new();
    items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, item.traits.client_id.as_ref()?)))
        .find(|(_, id)| !seen.insert(*id))
}
