//! The port behind which vectors are kept: beside the items, in the same store.

use std::sync::Arc;
use std::time::Duration;

use super::{Direction, Vector};
use crate::Seq;
use crate::error::Result;
use crate::id::TenantId;
use crate::store::{Hit, SearchQuery};

/// What made a vector. Two that differ in anything are two models.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    /// Its name.
    pub name: Arc<str>,
    /// Components of its vectors.
    pub dimensions: u16,
}

/// Where vectors are kept. One contract suite ([`crate::contract`]) runs against every implementation; the rules are
/// those of the [module above](super).
///
/// Cancellation: dropping the future of a write neither undoes nor blocks it. Everything may be repeated.
#[async_trait::async_trait]
pub trait VectorStore: Send + Sync + std::fmt::Debug {
    /// Takes on items that lack a vector of this model, and nobody else may take on their streams until the lease is
    /// over or [`VectorStore::fill`] gives them back. Empty if there is nothing to do. Only what the search index has
    /// seen is there to be taken.
    ///
    /// The first claim for a model makes it known, and everything there is lacks a vector of it.
    async fn claim(&self, model: &Model, claim: Claim) -> Result<Vec<Lot>>;

    /// Keeps vectors and gives back what was taken on. Vectors of items that are gone, or that are there already, are
    /// passed over.
    async fn fill(&self, model: &Model, filled: Vec<Filled>) -> Result<()>;

    /// Items that the search index has seen and that are still to be taken on or filled: counted up to a few thousand.
    async fn lacking(&self, model: &Model) -> Result<u64>;

    /// What is nearest, best first.
    ///
    /// # Errors
    /// `NotFound` if the query names a context that is not there.
    async fn nearest(&self, tenant: &TenantId, query: NearestQuery) -> Result<NearestPage>;
}

/// How much to take on.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Most items.
    pub items_max: u32,
    /// Stop before their bodies are more than this, but take at least one.
    pub bytes_max: u64,
    /// How long they are left to who takes them.
    pub lease: Duration,
}

/// Items of one stream that lack a vector, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// The stream.
    pub stream: u64,
    /// Tells whether there was news of it since: to be given back as it is.
    pub news: i64,
    /// The items; may be none.
    pub items: Vec<Text>,
    /// Whether these are the last that there were.
    pub ends: bool,
}

/// An item's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its place.
    pub seq: Seq,
    /// What is said, called and answered in it; empty if that is nothing.
    pub text: String,
}

/// What became of a [`Lot`].
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// The stream.
    pub stream: u64,
    /// As in the lot.
    pub news: i64,
    /// Everything up to this was seen to; 0 if nothing was.
    pub through: Seq,
    /// Whether that was all of it.
    pub ends: bool,
    /// Vectors of its items. An item up to `through` without one does not get one.
    pub vectors: Vec<(Seq, Vector)>,
}

impl Lot {
    /// Gives it back undone.
    pub fn undone(self) -> Filled {
        Filled {
            stream: self.stream,
            news: self.news,
            through: 0,
            ends: false,
            vectors: Vec::new(),
        }
    }
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct NearestQuery {
    /// Whose vectors to look at.
    pub model: Model,
    /// Where to.
    pub direction: Direction,
    /// Where to look and which page. Its words only decide what the snippets are of; they may be none.
    pub search: SearchQuery,
    /// Most vectors to look at, newest items first.
    pub scan_max: u32,
}

impl NearestQuery {
    /// How many to rank for the page: some more than it has, for those whose context is gone.
    #[cfg(any(feature = "embedded", feature = "postgres", test, feature = "test-util"))]
    pub(crate) fn ranked(&self) -> usize {
        let through = self.search.offset as usize + self.search.limit as usize + 1;
        if self.search.context.is_some() {
            through
        } else {
            through * 4 + 256
        }
    }

    /// The bounds of the filter by time, in microseconds: from the first to before the second.
    #[cfg(any(feature = "embedded", feature = "postgres"))]
    pub(crate) fn times(&self) -> (i64, i64) {
        let since = self.search.since.map_or(i64::MIN, crate::Timestamp::as_micros);
        let until = self.search.until.map_or(i64::MAX, crate::Timestamp::as_micros);
        (since, until)
    }
}

/// A page of hits.
#[derive(Clone, Debug, PartialEq)]
pub struct NearestPage {
    /// The hits; the score is the cosine.
    pub hits: Vec<Hit>,
    /// Whether there are more.
    pub more: bool,
    /// Vectors that were looked at.
    pub scanned: u64,
    /// Whether there were more of them.
    pub cut_off: bool,
    /// Acknowledged items that cannot be found yet: those that [`VectorStore::lacking`] counts, and those that the search
    /// index has not seen.
    pub lag_items: u64,
}
