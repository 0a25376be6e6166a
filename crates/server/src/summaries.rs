//! Summaries by a model: the settings, and the client of an `OpenAI`-compatible endpoint, behind the core's port.

mod chat;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Context as _;
use contextkeep_core::{BackgroundSummaries, ContextStore};
use contextkeep_resilience::breaker;

use self::chat::Chat;
pub use self::settings::{OutputTokensField, SummariesSettings};

/// What makes summaries in the background, and the model's breaker if there is a model.
#[derive(Clone, Debug)]
pub struct Summaries {
    /// What is asked for summaries that nobody waits for.
    pub background: BackgroundSummaries,
    model: Option<Arc<Chat>>,
}

impl Summaries {
    /// As the settings say.
    ///
    /// # Errors
    /// What is wrong with the settings. An endpoint that does not answer is not an error.
    pub fn new(settings: &SummariesSettings, store: Arc<dyn ContextStore>) -> anyhow::Result<Self> {
        let Some(model) = Chat::new(settings).context("context_manager.summaries")? else {
            return Ok(Self {
                background: BackgroundSummaries::without_model(store),
                model: None,
            });
        };
        let model = Arc::new(model);
        tracing::info!(
            endpoint = model.origin(),
            model = settings.model,
            "summaries are written by a model"
        );
        Ok(Self {
            background: BackgroundSummaries::with_model(store, model.clone(), settings.limits()),
            model: Some(model),
        })
    }

    /// The state of the model's breaker.
    pub(crate) fn breaker(&self) -> Option<breaker::State> {
        self.model.as_ref().map(|model| model.breaker())
    }
}
