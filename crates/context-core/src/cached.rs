//! A store with a memory: heads in a coherent cache of two levels, the ends of contexts in the process. It is a
//! [`ContextStore`] like the one behind it and passes the same contract.
//!
//! What it rests on: only heads change. A head says which stream a context is and how far it goes; items of a stream
//! never change, so that whatever is held of them is right as long as the head names the same stream. Coherence is needed
//! for heads alone, and the cache crate keeps it.
//!
//! - **K1** A read is answered from memory only if its session allows it: never below its floor (G4), without a floor
//!   within the bound (G5), and not at all if it asks for the newest. Work outside of every session is passed on.
//! - **K2** A write is told to the cache after its commit and before its answer, even if its caller has gone.
//! - **K3** Heads are loaded from the primary only; items come from whoever has the head's version.
//! - **K4** Trouble with the cache fails no operation that the store can do (G9).
//! - **K5** What expires is not served after its time, whatever the cache holds (S6).

mod feed;
mod heads;
mod held;
mod key;
mod ready;
mod record;
pub mod relay;
mod tails;
#[cfg(test)]
mod tests;
mod unbroken;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use contextkeep_cache::{Cache, Found, Read};

pub use self::feed::{ChangeFeed, Changes, FeedBackplane};
use self::heads::Heads;
use self::held::Held;
use self::tails::{Standing, Tails};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::id::{ContextId, ContextKey, TenantId};
use crate::manager::Origin;
use crate::semantic::VectorStore;
use crate::session::{Consistency, Session, Stage, timed};
use crate::store::{
    Append, Appended, ContextPage, ContextStore, Created, ItemPage, ItemQuery, ListQuery, Order, Purged,
    Retention, SearchPage, SearchQuery, SeqRange, StoreHealth, Tail, TailQuery,
};
use crate::summary::Summary;
use crate::{Context, ContextPatch, NewContext, Seq, Version};

/// The name of the cache of heads, which processes that share a second level have to agree on.
pub const CACHE_NAME: &str = "contextkeep-heads-1";
const _: () = assert!(record::FORMAT == 1, "the name of the cache holds the format");

/// How old an answer may be that is given instead of an error, to whoever takes anything (G7).
const STALE_MAX: Duration = Duration::from_hours(1);
/// Most items that are read to bring forward what is held. Behind by more, it is read anew.
const DELTA_ITEMS_MAX: u32 = 512;
const DELTA_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Tokens that are read beyond a budget, so that the next appends do not move the end out of what is held.
const AHEAD_TOKENS: u64 = 4096;

/// How much the process may hold of items. Heads are bounded by their cache.
#[derive(Clone, Copy, Debug)]
pub struct HeldLimits {
    /// Most contexts.
    pub contexts: u64,
    /// Most bytes.
    pub bytes: u64,
    /// Most bytes of one context.
    pub context_bytes: u64,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct CachedStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ContextStore>,
    heads: Heads,
    tails: Option<Tails>,
    clock: Arc<dyn Clock>,
}

impl CachedStore {
    /// A store over this one. Without `held` only heads are remembered.
    pub fn new(
        store: Arc<dyn ContextStore>,
        cache: Cache,
        held: Option<HeldLimits>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let tails = held.and_then(|limits| Tails::new(limits.contexts, limits.bytes, limits.context_bytes));
        Self(Arc::new(Inner {
            heads: Heads::new(cache, store.clone()),
            store,
            tails,
            clock,
        }))
    }

    /// The cache of heads.
    pub fn cache(&self) -> &Cache {
        self.0.heads.cache()
    }

    /// Loads these heads before anybody asks for them; see [`Cache::warm`].
    pub async fn warm(
        &self,
        names: Vec<contextkeep_cache::Key>,
        warming: &contextkeep_cache::Warming,
    ) -> contextkeep_cache::Warmed {
        let heads = &self.0.heads;
        heads
            .cache()
            .warm(names, &Read::new(), heads.loader(), warming)
            .await
    }

    /// Contexts and bytes of items that are held.
    pub fn held(&self) -> (u64, u64) {
        self.0.tails.as_ref().map_or((0, 0), Tails::stats)
    }

    /// Forgets everything: for a store whose history is another one.
    pub fn clear(&self) {
        self.0.heads.cache().clear();
        if let Some(tails) = &self.0.tails {
            tails.clear();
        }
    }
}

impl Inner {
    /// K1: how the present session may read this context from memory, if at all.
    fn reading(&self, key: &ContextKey) -> Option<Read> {
        self.floor(key).map(|floor| self.allowed().floor(floor.into()))
    }

    /// K1: the version that an answer from memory must have at least.
    #[expect(clippy::unused_self, reason = "it is this store's rule")]
    fn floor(&self, key: &ContextKey) -> Option<Version> {
        let floor = |session: &Session| {
            if !session.plan().l1 && !session.plan().l2 {
                return None;
            }
            floor_for(session.consistency(), || session.floor(key))
        };
        Session::with_current(floor).flatten()
    }

    /// What the present session takes beside its floor.
    fn allowed(&self) -> Read {
        let plan = Session::current_plan();
        let mut read = self.read();
        if takes_anything() {
            read = read.stale_on_error(STALE_MAX);
        }
        if !plan.l1 {
            read = read.past_first_level();
        }
        if !plan.l2 {
            read = read.past_second_level();
        }
        read
    }

    /// A read of the present moment. The cache's own clock would do for one more tick what it did before the process was
    /// suspended, however long that was (G5).
    fn read(&self) -> Read {
        Read::new().at(self.heads.cache().now())
    }

    fn history(&self) -> u64 {
        self.store.history()
    }

    /// What is held, if the present session may read it.
    fn tails(&self) -> Option<&Tails> {
        self.tails.as_ref().filter(|_| Session::current_plan().l1)
    }

    /// The head that was found, if the context is there.
    fn there(&self, found: &Found<Context>) -> Result<Arc<Context>> {
        let context = found.value.as_ref().ok_or(Error::NotFound)?;
        match context.expires_at {
            // K5
            Some(at) if at <= self.clock.now() => Err(Error::NotFound),
            _ => Ok(context.clone()),
        }
    }

    /// The head by the cache; `None` where the store has to be asked itself (K4).
    async fn find(&self, key: &ContextKey, read: &Read) -> Option<Found<Context>> {
        match timed(Stage::Cache, self.heads.get(key, read)).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(%error, "the cache could not answer; the store is asked itself");
                None
            }
        }
    }

    /// Brings what is held up to `head`, or reads it anew.
    async fn catch_up(
        &self,
        tails: &Tails,
        key: &ContextKey,
        head: &Context,
        from: Option<Seq>,
        tokens: u64,
    ) -> Result<()> {
        // From before the read (H3).
        let history = self.history();
        if let Some(from) = from.filter(|from| *from < head.next_seq) {
            let page = self
                .store
                .items(
                    key,
                    ItemQuery {
                        after: from.saturating_sub(1),
                        before: head.next_seq,
                        order: Order::Ascending,
                        limit: DELTA_ITEMS_MAX,
                        bytes_max: DELTA_BYTES_MAX,
                    },
                )
                .await?;
            // At another version they may be of another stream.
            if page.version == head.version && !page.more {
                tails.extend(history, key, head, from, page.items);
                return Ok(());
            }
        }
        let ahead = tokens.saturating_add((tokens / 4).max(AHEAD_TOKENS));
        let query = TailQuery {
            max_tokens: Some(ahead),
            reserve: 0,
            items_max: crate::window::ITEMS_MAX,
            bytes_max: crate::window::BYTES_MAX,
        };
        let tail = self.store.tail(key, query).await?;
        tails.hold(key, Held::new(history, tail));
        Ok(())
    }

    /// Reads items through what is held: at once, after catching up, or not at all.
    async fn through<T>(
        &self,
        key: &ContextKey,
        read: &Read,
        tokens: impl Fn(&Context) -> u64,
        make: impl Fn(&mut Held) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(tails) = self.tails() else {
            return Ok(None);
        };
        let Some(found) = self.find(key, read).await else {
            return Ok(None);
        };
        let head = self.there(&found)?;
        let mut standing = tails.with(self.history(), key, &head, &make);
        if let Standing::Current(value) = standing {
            note(&found, origin_of(&found));
            return Ok(Some(value));
        }
        let _turn = tails.turn(key).await;
        standing = tails.with(self.history(), key, &head, &make);
        let from = match standing {
            Standing::Current(value) => {
                note(&found, origin_of(&found));
                return Ok(Some(value));
            }
            Standing::Behind(from) => Some(from),
            Standing::Nothing => None,
        };
        let work = self.catch_up(tails, key, &head, from, tokens(&head));
        // Nobody answers who has not got as far as this head (K3).
        match Session::at_least(key, head.version, work).await {
            Ok(()) => as_old_as(&found),
            Err(Error::Unavailable { .. } | Error::Overloaded { .. }) if takes_anything() => {
                let stale = tails.any(self.history(), key, |held| make(&mut held.clone()));
                if stale.is_some()
                    && let Some(session) = Session::current()
                {
                    session.served_by(Origin::Stale, None);
                }
                return Ok(stale);
            }
            Err(error) => return Err(error),
        }
        match tails.with(self.history(), key, &head, &make) {
            Standing::Current(value) => Ok(Some(value)),
            Standing::Behind(_) | Standing::Nothing => Ok(None),
        }
    }
}

/// K1: as [`Inner::floor`], of what a session has seen.
fn floor_for(consistency: Consistency, seen: impl FnOnce() -> (Option<Version>, bool)) -> Option<Version> {
    match consistency {
        Consistency::Strong => None,
        Consistency::Bounded | Consistency::Any => Some(0),
        Consistency::Session => match seen() {
            (None, true) => None,
            (floor, _) => Some(floor.unwrap_or(0)),
        },
    }
}

fn takes_anything() -> bool {
    Session::with_current(|session| session.consistency() == Consistency::Any).unwrap_or(false)
}

fn origin_of<T>(found: &Found<T>) -> Origin {
    match found.origin {
        contextkeep_cache::Origin::L1 => Origin::L1,
        contextkeep_cache::Origin::L2 => Origin::L2,
        contextkeep_cache::Origin::Replica => Origin::Replica,
        contextkeep_cache::Origin::Stale => Origin::Stale,
        _ => Origin::Primary,
    }
}

/// Notes that items which the store read for this head are no older than it, however long their replica has not shown
/// that it is up to date. Where they came from the store has noted.
fn as_old_as<T>(found: &Found<T>) {
    Session::with_current(|session| {
        if let (Some(origin), Some(age)) = (session.origin(), session.age()) {
            session.served_by(origin, Some(age.min(found.age)));
        }
    });
}

/// Notes in the session where an answer came from (G7).
fn note<T>(found: &Found<T>, origin: Origin) {
    // Outside of every session there is nobody to tell.
    Session::with_current(|session| session.served_by(origin, Some(found.age)));
}

#[async_trait::async_trait]
impl ContextStore for CachedStore {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Created> {
        self.create_and_tell(tenant.clone(), new).await
    }

    async fn head(&self, key: &ContextKey) -> Result<Context> {
        let inner = &*self.0;
        let Some(read) = inner.reading(key) else {
            return inner.store.head(key).await;
        };
        let Some(found) = inner.find(key, &read).await else {
            return inner.store.head(key).await;
        };
        note(&found, origin_of(&found));
        inner.there(&found).map(|head| Context::clone(&head))
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

    async fn replace(&self, key: &ContextKey, append: Append) -> Result<Appended> {
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
