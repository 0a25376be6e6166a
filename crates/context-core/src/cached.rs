//! A store with a memory: heads in a coherent cache of two levels, the ends of contexts in the process. It is a
//! [`ContextStore`] like the one behind it and passes the same contract.
//!
//! What it rests on: only heads change. A head says which stream a context is and how far it goes; items of a stream
//! never change, so that whatever is held of them is right as long as the head names the same stream. Coherence is needed
//! for heads alone, and the cache crate keeps it.
//!
//! - **K1** A read is answered from memory only if its session allows it: never below its floor (G4), without a floor
//!   within the bound (G5), and not at all if it asks for the newest. Work outside of every session is passed on.
//! - **K2** A write is told to the cache after its commit and before its answer, even if its caller has gone: with the head
//!   that it has made, where the one before is held here or by the second level, else with its version.
//! - **K3** Heads are loaded from the primary only; items come from whoever has the head's version.
//! - **K4** Trouble with the cache fails no operation that the store can do (G9).
//! - **K5** What expires is not served after its time, whatever the cache holds (S6).

mod bounded;
mod cold;
mod feed;
mod heads;
mod held;
mod key;
mod port;
mod ready;
pub mod relay;
mod shared;
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
use self::ready::Ready;
use self::tails::{Standing, Tails};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::manager::Origin;
use crate::session::{Consistency, Session, Stage, timed};
use crate::store::{ContextStore, ItemQuery, Order, TailQuery};
use crate::{Context, Head, Seq, Version};

/// The name of the cache of heads, which processes that share a second level have to agree on, whatever version they are:
/// by it they hear of each other's changes.
pub const CACHE_NAME: &str = "contextkeep-heads-1";

/// What a head takes in the process beside its bytes in the cache, for
/// [`Builder::decoded_size`](contextkeep_cache::Builder::decoded_size) of the cache of heads, with [`HEAD_COPIES`]. A label
/// takes 24 bytes more, which are not in it; a head has 32 at most.
pub const HEAD_BYTES: u64 = 3 * COUNTS + (size_of::<Head>() + size_of::<Context>()) as u64;
/// How often a head has its texts beside its bytes in the cache, which its document is a part of.
pub const HEAD_COPIES: u64 = 1;
/// The counts of an `Arc`: of the head's, of its metadata's, and of what it shares its document by.
const COUNTS: u64 = 2 * size_of::<usize>() as u64;

/// How old an answer may be that is given instead of an error, to whoever takes anything (G7).
const STALE_MAX: Duration = Duration::from_hours(1);
/// Most items that are read to bring forward what is held. Behind by more, it is read anew.
const DELTA_ITEMS_MAX: u32 = 512;
const DELTA_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Tokens that are read beyond a budget, so that the next appends do not move the end out of what is held.
const AHEAD_TOKENS: u64 = 4096;

/// The windows' share in a hundred of the bytes that are held.
const READY_SHARE: u64 = 30;

/// How much the process may hold of items. Heads are bounded by their cache.
#[derive(Clone, Copy, Debug)]
pub struct HeldLimits {
    /// Most contexts.
    pub contexts: u64,
    /// Most bytes.
    pub bytes: u64,
    /// Most bytes of one context.
    pub context_bytes: u64,
    /// Percent of the room for items that holds contexts compressed which nobody has asked for lately; at most 90.
    pub cold_percent: u8,
}

/// How much the process holds of items at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldStats {
    /// Contexts whose ends are held.
    pub contexts: u64,
    /// Bytes of those and of the windows that are kept ready.
    pub bytes: u64,
    /// The contexts among them that are compressed.
    pub cold_contexts: u64,
    /// The bytes of these.
    pub cold_bytes: u64,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct CachedStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ContextStore>,
    heads: Heads,
    tails: Option<Tails>,
    ready: Option<Ready>,
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
        let ready = |limits: &HeldLimits| limits.bytes / 100 * READY_SHARE;
        let tails = held.as_ref().and_then(|limits| {
            let bytes = limits.bytes - ready(limits);
            Tails::new(
                limits.contexts,
                bytes,
                limits.context_bytes.min(bytes),
                limits.cold_percent,
            )
        });
        Self(Arc::new(Inner {
            heads: Heads::new(cache, store.clone()),
            store,
            tails,
            ready: held.and_then(|limits| Ready::new(limits.contexts, ready(&limits), limits.context_bytes)),
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

    /// What is held in the process.
    pub fn held(&self) -> HeldStats {
        let [(contexts, bytes), (cold_contexts, cold_bytes)] =
            self.0.tails.as_ref().map(Tails::stats).unwrap_or_default();
        HeldStats {
            contexts,
            bytes: bytes + self.0.ready.as_ref().map_or(0, Ready::bytes),
            cold_contexts,
            cold_bytes,
        }
    }

    /// Forgets everything: for a store whose history is another one.
    pub fn clear(&self) {
        self.0.heads.cache().clear();
        if let Some(tails) = &self.0.tails {
            tails.clear();
        }
        if let Some(ready) = &self.0.ready {
            ready.clear();
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

    /// A read of the present moment. Where others change heads as well, the cache's own clock would do for one more tick
    /// what it did before the process was suspended, however long that was (G5).
    fn read(&self) -> Read {
        Read::new().at(self.heads.cache().present())
    }

    fn history(&self) -> u64 {
        self.store.history()
    }

    /// What is held, if the present session may read it.
    fn tails(&self) -> Option<&Tails> {
        self.tails.as_ref().filter(|_| Session::current_plan().l1)
    }

    /// The head that was found, if the context is there.
    fn there(&self, found: &Found<Head>) -> Result<Arc<Head>> {
        let head = found.value.as_ref().ok_or(Error::NotFound)?;
        match head.expires_at() {
            // K5
            Some(at) if at <= self.clock.now() => Err(Error::NotFound),
            _ => Ok(head.clone()),
        }
    }

    /// The head by the cache; `None` where the store has to be asked itself (K4).
    async fn find(&self, key: &ContextKey, read: &Read) -> Option<Found<Head>> {
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
