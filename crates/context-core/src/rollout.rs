//! Bringing optimizations into use by and by: which ones a context gets, and both ways beside each other to see that
//! they answer alike.
//!
//! - **R1** Writes are told to the cache whatever the flags say: a server that does not read from it must not leave the
//!   others in the past.
//! - **R2** A context gets the same on every server that has the same flags: its place among a hundred is a hash of its
//!   key and the flag's name.
//! - **R3** What runs in the shadow changes no answer, costs a bounded share of the server, and is left out when that is
//!   used up.

mod compare;
#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Semaphore;

use self::compare::Verdict;
use crate::error::Result;
use crate::id::{ContextId, ContextKey, TenantId};
use crate::manager::{Answer, AppendRequest, ContextManager, SharedManager, TruncateRequest, Truncation};
use crate::semantic::{SemanticPage, SemanticQuery};
use crate::session::{Plan, Session};
use crate::settings::{Flag, RolloutSettings};
use crate::store::{
    Appended, ContextPage, Created, ItemPage, ItemQuery, ListQuery, SearchPage, SearchQuery, StoreHealth,
};
use crate::summary::{PutSummary, Summary, SummaryRequest};
use crate::window::{Window, WindowRequest};
use crate::{Context, ContextPatch, Head, NewContext, Seq, Version};

/// Comparisons that run at the same time (R3).
const SHADOWS_MAX: usize = 16;

/// The flags as they are now, and what comparing has shown. Shared by whoever reads and whoever changes them.
#[derive(Debug)]
pub struct Rollout {
    settings: RwLock<RolloutSettings>,
    /// Whether all flags are on, so that most reads need not look at them.
    all_on: AtomicBool,
    shadows: Arc<Semaphore>,
    counts: Counts,
}

/// What comparing has shown since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Both ways answered alike.
    pub same: u64,
    /// They did not, and no change in between explains it.
    pub different: u64,
    /// The context changed between the two, so that nothing can be said.
    pub moved: u64,
    /// The shadow failed where the answer did not.
    pub failed: u64,
    /// Left out, because enough others were running.
    pub skipped: u64,
}

#[derive(Debug, Default)]
struct Counts {
    same: AtomicU64,
    different: AtomicU64,
    moved: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

impl Rollout {
    /// With these flags.
    pub fn new(settings: RolloutSettings) -> Self {
        Self {
            settings: RwLock::new(settings),
            all_on: AtomicBool::new(flags(&settings).iter().all(is_on)),
            shadows: Arc::new(Semaphore::new(SHADOWS_MAX)),
            counts: Counts::default(),
        }
    }

    /// The flags as they are now.
    pub fn settings(&self) -> RolloutSettings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes them, for every request that begins from now on.
    pub fn set(&self, settings: RolloutSettings) {
        let before = {
            let mut held = self.settings.write().unwrap_or_else(PoisonError::into_inner);
            self.all_on
                .store(flags(&settings).iter().all(is_on), Ordering::Release);
            std::mem::replace(&mut *held, settings)
        };
        if before != settings {
            tracing::info!(?before, ?settings, "the rollout was changed");
        }
    }

    /// What comparing has shown.
    pub fn shadows(&self) -> ShadowCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ShadowCounts {
            same: get(&self.counts.same),
            different: get(&self.counts.different),
            moved: get(&self.counts.moved),
            failed: get(&self.counts.failed),
            skipped: get(&self.counts.skipped),
        }
    }

    /// Whether a context is read with all optimizations, and with nothing in the shadow.
    fn is_all_on(&self, key: &ContextKey) -> bool {
        self.all_on.load(Ordering::Acquire) || self.decide(key) == Decision::default()
    }

    fn decide(&self, key: &ContextKey) -> Decision {
        if self.all_on.load(Ordering::Acquire) {
            return Decision::default();
        }
        let flags = flags(&self.settings());
        let [optimized, l1, l2, replicas, hedging] = flags.map(|(name, flag)| match flag {
            Flag::Named(_) => flag.takes(0),
            Flag::Percent(_) => flag.takes(place(name, key)),
        });
        let plan = Plan {
            optimized,
            l1,
            l2,
            replicas,
            hedging,
        };
        let [optimized, l1, l2, replicas, hedging] = flags.map(|(_, flag)| flag == Flag::SHADOW);
        let tried = Plan {
            optimized: plan.optimized || optimized,
            l1: plan.l1 || l1,
            l2: plan.l2 || l2,
            replicas: plan.replicas || replicas,
            hedging: plan.hedging || hedging,
        };
        Decision {
            plan,
            shadow: (tried != plan).then_some(tried),
        }
    }
}

/// The flags by name.
fn flags(settings: &RolloutSettings) -> [(&'static str, Flag); 5] {
    [
        ("optimized", settings.optimized),
        ("l1", settings.l1),
        ("l2", settings.l2),
        ("replicas", settings.replicas),
        ("hedging", settings.hedging),
    ]
}

fn is_on((_, flag): &(&'static str, Flag)) -> bool {
    *flag == Flag::ON
}

/// How one read goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Decision {
    plan: Plan,
    shadow: Option<Plan>,
}

/// R2: FNV-1a, whose 64 bits modulo a hundred are even enough for a share of contexts.
/// Source: G. Fowler, L. C. Noll, K.-P. Vo, D. Eastlake, "The FNV Non-Cryptographic Hash Algorithm".
fn place(flag: &str, key: &ContextKey) -> u8 {
    let parts = [flag, key.tenant.as_str(), key.id.as_str()];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV mix least; the high ones go into the remainder as well.
    u8::try_from((hash ^ (hash >> 32)) % 100).unwrap_or(0)
}

/// Answers by one of two managers, as the rollout says.
pub struct RolloutContextManager {
    standard: SharedManager,
    optimized: SharedManager,
    rollout: Arc<Rollout>,
}

impl fmt::Debug for RolloutContextManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RolloutContextManager")
            .field("rollout", &self.rollout)
            .finish_non_exhaustive()
    }
}

impl RolloutContextManager {
    /// Chooses between these two. Both have to be over the same data, and writes of `optimized` are told to its cache.
    pub fn new(standard: SharedManager, optimized: SharedManager, rollout: Arc<Rollout>) -> Self {
        Self {
            standard,
            optimized,
            rollout,
        }
    }

    fn by(&self, plan: Plan) -> &SharedManager {
        if plan.optimized {
            &self.optimized
        } else {
            &self.standard
        }
    }

    /// Reads as the rollout says, and once more in the shadow if it says so.
    async fn read<T, Reading>(
        &self,
        key: &ContextKey,
        read: impl Fn(SharedManager, ContextKey) -> Reading + Send + Sync,
    ) -> Result<Answer<T>>
    where
        T: compare::Compare + Clone + Send + Sync + 'static,
        Reading: Future<Output = Result<Answer<T>>> + Send + 'static,
    {
        let decision = self.rollout.decide(key);
        let reading = read(self.by(decision.plan).clone(), key.clone());
        let answer = Session::planned(decision.plan, reading).await?;
        if let Some(tried) = decision.shadow {
            let shadow = read(self.by(tried).clone(), key.clone());
            self.compare(key, tried, answer.value.clone(), shadow);
        }
        Ok(answer)
    }

    /// R3: beside the answer, in a task of its own.
    fn compare<T, Reading>(&self, key: &ContextKey, tried: Plan, answer: T, shadow: Reading)
    where
        T: compare::Compare + Send + Sync + 'static,
        Reading: Future<Output = Result<Answer<T>>> + Send + 'static,
    {
        let Ok(permit) = self.rollout.shadows.clone().try_acquire_owned() else {
            self.rollout.counts.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (rollout, key) = (self.rollout.clone(), key.clone());
        // What the client has seen is a floor for the shadow as well.
        let session = Session::current().map(|session| session.again());
        tokio::spawn(async move {
            let shadow = Session::planned(tried, shadow);
            let shadow = match session {
                Some(session) => session.scope(shadow).await,
                None => shadow.await,
            };
            let count = match shadow {
                Err(error) => {
                    tracing::warn!(context = %key.id, ?tried, %error, "a shadow failed");
                    &rollout.counts.failed
                }
                Ok(shadow) => match answer.compare(&shadow.value) {
                    Verdict::Same => &rollout.counts.same,
                    Verdict::Moved => &rollout.counts.moved,
                    Verdict::Different(what) => {
                        tracing::error!(context = %key.id, ?tried, what, "a shadow answered otherwise");
                        &rollout.counts.different
                    }
                },
            };
            count.fetch_add(1, Ordering::Relaxed);
            drop(permit);
        });
    }
}

#[async_trait::async_trait]
impl ContextManager for RolloutContextManager {
    // R1: writes, and what belongs to no one context, go the optimized way.
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Answer<Created>> {
        self.optimized.create(tenant, new).await
    }

    // By hand: where all is on, the optimized manager's own future is the answer, without one around it.
    fn get<'manager, 'key, 'answer>(
        &'manager self,
        key: &'key ContextKey,
    ) -> Pin<Box<dyn Future<Output = Result<Answer<Arc<Head>>>> + Send + 'answer>>
    where
        'manager: 'answer,
        'key: 'answer,
        Self: 'answer,
    {
        if self.rollout.is_all_on(key) {
            return self.optimized.get(key);
        }
        Box::pin(self.read(key, |manager, key| async move { manager.get(&key).await }))
    }

    fn get_ready(&self, key: &ContextKey) -> Option<Answer<Arc<Head>>> {
        let all_on = self.rollout.is_all_on(key);
        all_on.then(|| self.optimized.get_ready(key)).flatten()
    }

    async fn get_many(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Answer<Vec<Option<Context>>>> {
        // A batch goes one way: the one of its first context.
        let Some(first) = ids.first() else {
            return self.standard.get_many(tenant, ids).await;
        };
        let plan = self.rollout.decide(&(tenant, first).into()).plan;
        Session::planned(plan, self.by(plan).get_many(tenant, ids)).await
    }

    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Answer<Context>> {
        self.optimized.update(key, patch, expected).await
    }

    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Answer<Version>> {
        self.optimized.delete(key, expected).await
    }

    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Answer<Vec<Result<Version>>> {
        self.optimized.delete_many(tenant, deletes).await
    }

    async fn append(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>> {
        self.optimized.append(key, request).await
    }

    async fn append_many(
        &self,
        tenant: &TenantId,
        requests: Vec<(ContextId, AppendRequest)>,
    ) -> Answer<Vec<Result<Appended>>> {
        self.optimized.append_many(tenant, requests).await
    }

    async fn replace(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>> {
        self.optimized.replace(key, request).await
    }

    async fn truncate(&self, key: &ContextKey, request: TruncateRequest) -> Result<Answer<Truncation>> {
        self.optimized.truncate(key, request).await
    }

    async fn fork(&self, key: &ContextKey, at: Option<Seq>, new: NewContext) -> Result<Answer<Created>> {
        self.optimized.fork(key, at, new).await
    }

    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<Answer<ItemPage>> {
        self.read(key, move |manager, key| async move {
            manager.items(&key, query).await
        })
        .await
    }

    async fn window(&self, key: &ContextKey, request: WindowRequest) -> Result<Answer<Arc<Window>>> {
        self.read(key, move |manager, key| async move {
            manager.window(&key, request).await
        })
        .await
    }

    fn window_ready(&self, key: &ContextKey, request: &WindowRequest) -> Option<Answer<Arc<Window>>> {
        let all_on = self.rollout.is_all_on(key);
        all_on
            .then(|| self.optimized.window_ready(key, request))
            .flatten()
    }

    async fn summary(&self, key: &ContextKey, request: SummaryRequest) -> Result<Answer<Option<Summary>>> {
        self.optimized.summary(key, request).await
    }

    async fn put_summary(&self, key: &ContextKey, put: PutSummary) -> Result<Answer<Summary>> {
        self.optimized.put_summary(key, put).await
    }

    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<Answer<ContextPage>> {
        self.optimized.list(tenant, query).await
    }

    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<Answer<SearchPage>> {
        self.optimized.search(tenant, query).await
    }

    async fn search_semantic(&self, tenant: &TenantId, query: SemanticQuery) -> Result<Answer<SemanticPage>> {
        self.optimized.search_semantic(tenant, query).await
    }

    async fn check(&self) -> Result<StoreHealth> {
        self.optimized.check().await
    }
}
