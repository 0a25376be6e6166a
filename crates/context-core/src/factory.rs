//! Builds the manager that the configuration asks for and says why.

use std::sync::Arc;

use crate::background::BackgroundSummaries;
#[cfg(feature = "cache")]
use crate::cached::CachedStore;
use crate::manager::SharedManager;
#[cfg(feature = "cache")]
use crate::optimized::OptimizedContextManager;
#[cfg(feature = "cache")]
use crate::rollout::{Rollout, RolloutContextManager};
use crate::semantic::Semantic;
use crate::settings::LimitSettings;
use crate::standard::StandardContextManager;
use crate::store::ContextStore;

/// What was built, for the log and the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Name of the manager.
    pub manager: &'static str,
    /// Why this one.
    pub reason: &'static str,
}

/// Builds managers: the standard one, which goes straight to the store, and with a cache the optimized one, which the
/// rollout brings into use.
#[derive(Debug)]
pub struct ContextManagerFactory {
    store: Arc<dyn ContextStore>,
    limits: LimitSettings,
    background: Option<BackgroundSummaries>,
    semantic: Option<Semantic>,
    #[cfg(feature = "cache")]
    cached: Option<(CachedStore, Arc<Rollout>)>,
}

impl ContextManagerFactory {
    /// A factory of managers over this store.
    pub fn new(store: Arc<dyn ContextStore>, limits: LimitSettings) -> Self {
        Self {
            store,
            limits,
            background: None,
            semantic: None,
            #[cfg(feature = "cache")]
            cached: None,
        }
    }

    /// Has summaries that nobody waits for made by these; a model writes them if these have one.
    #[must_use]
    pub fn summaries(mut self, background: BackgroundSummaries) -> Self {
        self.background = Some(background);
        self
    }

    /// Answers searches by meaning from these vectors.
    #[must_use]
    pub fn semantic(mut self, semantic: Semantic) -> Self {
        self.semantic = Some(semantic);
        self
    }

    /// Has a cache over the store, and flags that say which reads use it.
    #[cfg(feature = "cache")]
    #[must_use]
    pub fn cached(mut self, cached: CachedStore, rollout: Arc<Rollout>) -> Self {
        self.cached = Some((cached, rollout));
        self
    }

    /// Builds the manager and logs the choice in one line.
    pub fn build(self) -> (SharedManager, Choice) {
        let (manager, choice) = self.choose();
        tracing::info!(
            manager = choice.manager,
            reason = choice.reason,
            "context manager chosen"
        );
        (manager, choice)
    }

    #[cfg_attr(
        not(feature = "cache"),
        expect(
            clippy::redundant_clone,
            reason = "the optimized manager has some of it as well"
        )
    )]
    fn choose(self) -> (SharedManager, Choice) {
        let background = self
            .background
            .unwrap_or_else(|| BackgroundSummaries::without_model(self.store.clone()));
        let standard = StandardContextManager::new(self.store, self.limits.clone());
        let mut standard = standard.with_background(background.clone());
        if let Some(semantic) = &self.semantic {
            standard = standard.with_semantic(semantic.clone());
        }
        let standard: SharedManager = Arc::new(standard);
        #[cfg(feature = "cache")]
        if let Some((cached, rollout)) = self.cached {
            let optimized = OptimizedContextManager::new(cached, self.limits);
            let mut optimized = optimized.with_background(background);
            if let Some(semantic) = self.semantic {
                optimized = optimized.with_semantic(semantic);
            }
            let optimized = Arc::new(optimized);
            let choice = Choice {
                manager: "optimized",
                reason: "there is a cache: reads go through it as far as the rollout says, and the standard manager stands by",
            };
            let manager = RolloutContextManager::new(standard, optimized, rollout);
            return (Arc::new(manager), choice);
        }
        let choice = Choice {
            manager: "standard",
            reason: "there is no cache: neither cache.in_memory nor cache.redis is enabled, or a single command is run",
        };
        (standard, choice)
    }
}
