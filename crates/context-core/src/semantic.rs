//! Search by meaning: vectors of items, made by an embedder in the background, and what is nearest to a question.
//!
//! - **V1** No append waits for an embedder or writes a vector: the indexer marks streams that have news, and the
//!   [`Semantic`]'s task asks for what they lack.
//! - **V2** A vector is of one item and one [`Model`]; it goes with the item. Vectors of different models are never
//!   compared.
//! - **V3** A vector carries its item's tenant, and a search walks through one tenant's alone (G8). Forks share what
//!   they share the items of.
//! - **V4** Any number of servers may fill the same store: a stream is leased to one of them at a time, and what one
//!   did not bring to its end another does again when the lease is over.
//! - **V5** A search is exact over what it looks at, the newest items first, and says so when it did not look at all.

#[cfg(any(feature = "embedded", feature = "postgres", test, feature = "test-util"))]
mod best;
mod embedder;
mod feeding;
mod fusion;
mod searching;
#[cfg(test)]
mod tests;
mod vector;
mod vectors;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

#[cfg(any(feature = "embedded", feature = "postgres", test, feature = "test-util"))]
#[cfg(any(feature = "embedded", feature = "postgres", test, feature = "test-util"))]
pub(crate) use self::best::Best;
pub use self::embedder::{Embedder, Fault};
use self::feeding::Counts;
pub use self::feeding::FeedingCounts;
pub(crate) use self::searching::not_configured;
pub use self::searching::{DEGRADED, SemanticPage, SemanticQuery};
pub use self::vector::{DIMENSIONS_MAX, Direction, Vector};
pub use self::vectors::{Claim, Filled, Lot, Model, NearestPage, NearestQuery, Text, VectorStore};

/// How often it is noted that a model is in use.
#[cfg(any(feature = "embedded", feature = "postgres"))]
pub(crate) const TOUCH: Duration = Duration::from_hours(1);
/// How long the vectors of a model are kept that is not in use.
#[cfg(any(feature = "embedded", feature = "postgres"))]
pub(crate) const MODEL_KEPT: Duration = Duration::from_hours(30 * 24);

/// How much a search looks at, and how much is embedded at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SemanticLimits {
    /// Most vectors that one search looks at.
    pub scan_max: u32,
    /// Most texts in one request to the embedder.
    pub batch: u32,
    /// Most bytes of items read for one batch; one item is read whatever its size.
    pub batch_bytes: u64,
    /// Longest text of an item, in characters; what is beyond is not part of its vector.
    pub item_chars: usize,
    /// How long a stream is left to who took it. Longer than any batch takes.
    pub lease: Duration,
    /// How long to wait when there is nothing to do.
    pub poll: Duration,
    /// How long to rest after a batch.
    pub rest: Duration,
}

impl Default for SemanticLimits {
    fn default() -> Self {
        Self {
            scan_max: 10_000,
            batch: 64,
            batch_bytes: 1 << 20,
            item_chars: 8000,
            lease: Duration::from_mins(2),
            poll: Duration::from_secs(2),
            rest: Duration::ZERO,
        }
    }
}

/// See the [module](self). Its clones are one.
#[derive(Clone, Debug)]
pub struct Semantic(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vectors: Arc<dyn VectorStore>,
    embedder: Arc<dyn Embedder>,
    model: Model,
    limits: SemanticLimits,
    counts: Counts,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Semantic {
    /// Searches by the vectors in a store. Nothing is embedded before [`Semantic::start`].
    pub fn new(vectors: Arc<dyn VectorStore>, embedder: Arc<dyn Embedder>, limits: SemanticLimits) -> Self {
        let model = Model {
            name: embedder.model().into(),
            dimensions: embedder.dimensions(),
        };
        Self(Arc::new(Inner {
            vectors,
            embedder,
            model,
            limits,
            counts: Counts::default(),
            task: Mutex::default(),
        }))
    }

    /// Embeds in the background what has no vector, until [`Semantic::close`]. Has to be called on a runtime; a second
    /// time does nothing.
    pub fn start(&self) {
        let mut task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            *task = Some(tokio::spawn(feeding::run(self.0.clone())));
        }
    }

    /// Ends the task. What it was at is given up: its streams are taken up again when their lease is over.
    pub async fn close(&self) {
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // It was cancelled, which is no news.
            drop(task.await);
        }
    }

    /// Embeds what there is to embed now; answers how many items got a vector. For tests and tools: the task does it by
    /// itself.
    ///
    /// # Errors
    /// Those of the store; [`crate::Error::EmbedderUnavailable`].
    pub async fn catch_up(&self) -> crate::Result<u64> {
        let mut items = 0;
        while let Some(batch) = feeding::batch(&self.0).await? {
            items += batch;
        }
        Ok(items)
    }

    /// What became of items since the start.
    pub fn counts(&self) -> FeedingCounts {
        self.0.counts.read()
    }
}
