//! Builds the manager that the configuration asks for and says why.

use std::sync::Arc;

use crate::manager::SharedManager;
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

/// Builds managers. Today there is one: the standard manager, which goes straight to the store.
#[derive(Debug)]
pub struct ContextManagerFactory {
    store: Arc<dyn ContextStore>,
    limits: LimitSettings,
}

impl ContextManagerFactory {
    /// A factory of managers over this store.
    pub fn new(store: Arc<dyn ContextStore>, limits: LimitSettings) -> Self {
        Self { store, limits }
    }

    /// Builds the manager and logs the choice in one line.
    pub fn build(self) -> (SharedManager, Choice) {
        let choice = Choice {
            manager: "standard",
            reason: "one process and one store: there is nothing between them to optimise",
        };
        tracing::info!(
            manager = choice.manager,
            reason = choice.reason,
            "context manager chosen"
        );
        (
            Arc::new(StandardContextManager::new(self.store, self.limits)),
            choice,
        )
    }
}
