//! The port behind which a model writes summaries.

use std::time::Duration;

use super::Draft;

/// Writes summaries with a model.
///
/// An implementation guards itself: it answers within a time of its own, asks no model that is known to be down, and takes
/// no answer without a bound. It may be asked by [`ModelLimits::max_concurrent`] callers at once.
///
/// Cancellation: dropping the future gives the request up.
#[async_trait::async_trait]
pub trait Summariser: Send + Sync + std::fmt::Debug {
    /// The text of a summary of what the draft holds, as the model gave it: whoever asks checks it.
    ///
    /// # Errors
    /// Why there is none. Nothing is tried again for the same draft at once.
    async fn summarise(&self, draft: &Draft) -> Result<String, Fault>;
}

/// Why a model has not written a summary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It was not asked: it is known to be down, or has too much to do.
    #[error("the model was not asked: {0}")]
    NotAsked(String),
    /// It did not answer, or with an error.
    #[error("the model did not answer: {0}")]
    Failed(String),
    /// It answered something that is no summary.
    #[error("the model's answer is of no use: {0}")]
    Unusable(String),
}

impl Fault {
    /// Stable name, for logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotAsked(_) => "not_asked",
            Self::Failed(_) => "failed",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// How much a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Most tokens of one draft, as the context counts them; at least [`ModelLimits::INPUT_TOKENS_MIN`].
    pub max_input_tokens: u32,
    /// Tokens that a summary should have at most. What is longer is cut at this.
    pub max_output_tokens: u32,
    /// Most drafts at the model at once.
    pub max_concurrent: usize,
    /// Most contexts that wait for it.
    pub queue: usize,
    /// How long a context waits after a failure before it is tried again, if anybody asks by then.
    pub rest: Duration,
}

impl ModelLimits {
    /// Below this a draft would hold little beside its instructions.
    pub const INPUT_TOKENS_MIN: u32 = 1000;
}
