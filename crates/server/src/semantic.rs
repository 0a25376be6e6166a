//! Search by meaning: the settings, and the client of an `OpenAI`-compatible endpoint, behind the core's port.

mod embeddings;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Context as _;
use contextkeep_core::{ContextStore, Semantic};
use contextkeep_resilience::breaker;
use serde::Deserialize;
use utoipa::ToSchema;

use self::embeddings::Embeddings;
pub use self::settings::SemanticSettings;

/// How to search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchMode {
    /// By words.
    #[default]
    Text,
    /// By meaning: what is nearest to the question, whatever its words.
    Semantic,
    /// Both, put together.
    Hybrid,
}

impl SearchMode {
    /// What a cursor belongs to: a face's name for searches, and the mode.
    pub(crate) fn question(self, face: [&'static str; 3]) -> &'static str {
        let [text, semantic, hybrid] = face;
        match self {
            Self::Text => text,
            Self::Semantic => semantic,
            Self::Hybrid => hybrid,
        }
    }
}

/// What answers searches by meaning, if an embedder is configured.
#[derive(Clone, Debug, Default)]
pub struct SemanticSearch(Option<Configured>);

#[derive(Clone, Debug)]
struct Configured {
    semantic: Semantic,
    embedder: Arc<Embeddings>,
}

impl SemanticSearch {
    /// As the settings say. Nothing is embedded before [`SemanticSearch::start`].
    ///
    /// # Errors
    /// What is wrong with the settings. An endpoint that does not answer is not an error.
    pub fn new(settings: &SemanticSettings, store: Arc<dyn ContextStore>) -> anyhow::Result<Self> {
        let Some(embedder) = Embeddings::new(settings).context("context_manager.semantic")? else {
            return Ok(Self::default());
        };
        let vectors = store.vectors().context("the store keeps no vectors")?;
        let embedder = Arc::new(embedder);
        tracing::info!(
            endpoint = embedder.origin(),
            model = settings.model,
            dimensions = settings.dimensions,
            "items are embedded: their texts are sent to the endpoint"
        );
        Ok(Self(Some(Configured {
            semantic: Semantic::new(vectors, embedder.clone(), settings.limits()),
            embedder,
        })))
    }

    /// Begins to embed what has no vector.
    pub fn start(&self) {
        if let Some(configured) = &self.0 {
            configured.semantic.start();
        }
    }

    /// Ends that.
    pub async fn close(&self) {
        if let Some(configured) = &self.0 {
            configured.semantic.close().await;
        }
    }

    /// For the managers.
    pub fn semantic(&self) -> Option<&Semantic> {
        self.0.as_ref().map(|configured| &configured.semantic)
    }

    /// The state of the endpoint's breaker.
    pub(crate) fn breaker(&self) -> Option<breaker::State> {
        self.0.as_ref().map(|configured| configured.embedder.breaker())
    }
}
