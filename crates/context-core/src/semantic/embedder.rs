//! The port behind which a model makes vectors of texts.

use std::time::Duration;

/// Makes vectors of texts.
///
/// An implementation guards itself: it answers within a time of its own, asks nobody who is known to be down, and takes no
/// answer without a bound. It may be asked by any number of callers at once.
///
/// Cancellation: dropping the future gives the request up.
#[async_trait::async_trait]
pub trait Embedder: Send + Sync + std::fmt::Debug {
    /// Names the model. Vectors of another name are not compared with these.
    fn model(&self) -> &str;

    /// Components of each vector: 1 to [`DIMENSIONS_MAX`](super::DIMENSIONS_MAX).
    fn dimensions(&self) -> u16;

    /// Whether it makes sense to ask for what can wait. False while its breaker is open.
    fn is_ready(&self) -> bool {
        true
    }

    /// A vector for each text, in their order, of [`Embedder::dimensions`] components; their length does not matter;
    /// a text whose vector has no direction gets none. The texts are not empty.
    ///
    /// # Errors
    /// Why there are none.
    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Fault>;
}

/// Why there are no vectors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It was not asked: it is known to be down, or has too much to do.
    #[error("the embedder was not asked: {detail}")]
    NotAsked {
        /// Why.
        detail: String,
        /// When to try again, if that is known.
        retry_after: Option<Duration>,
    },
    /// It did not answer, or with an error that has nothing to do with the texts.
    #[error("the embedder did not answer: {detail}")]
    Failed {
        /// What was seen.
        detail: String,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// It does not take one of these texts, and would not take it another time.
    #[error("the embedder refused a text: {0}")]
    Refused(String),
    /// It answered something that is not a vector for each text.
    #[error("the embedder's answer is of no use: {0}")]
    Unusable(String),
}

impl Fault {
    /// When to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotAsked { retry_after, .. } | Self::Failed { retry_after, .. } => *retry_after,
            Self::Refused(_) | Self::Unusable(_) => None,
        }
    }
}
