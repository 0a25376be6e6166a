//! What a read answers, and what it may ask for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Nanos;
use crate::entry::{Body, Entry};
use crate::version::{Key, Version};

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The level in the process.
    L1,
    /// The level that processes share.
    L2,
    /// A replica of the source.
    Replica,
    /// The source itself.
    Primary,
    /// An old entry, because the source failed or was late, and the reader takes stale answers.
    Stale,
}

impl Origin {
    /// Its name in logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Replica => "replica",
            Self::Primary => "primary",
            Self::Stale => "stale",
        }
    }
}

/// An answer: a body, its version, where it came from and how old it is.
#[derive(Clone)]
pub struct Answer {
    pub(crate) entry: Arc<Entry>,
    pub(crate) origin: Origin,
    pub(crate) at: Nanos,
}

impl Answer {
    /// The value, or `None` if the key has none.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.entry.body {
            Body::Value(bytes) => Some(bytes),
            Body::Absent | Body::Unknown => None,
        }
    }

    /// The version of the value, or of its absence.
    pub fn version(&self) -> Version {
        self.entry.version
    }

    /// Where it came from.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// To come back to, if it was the first level's.
    pub fn keep(&self) -> Option<Kept> {
        (self.origin == Origin::L1).then(|| Kept(Arc::clone(&self.entry)))
    }

    /// Whether it is near its end, so that a read which may load would consider to refresh it: see
    /// [`Policy::refresh_after`](crate::Policy::refresh_after).
    pub fn is_aging(&self) -> bool {
        self.at >= self.entry.span.early_from
    }

    /// How long ago at most it was the newest. For an entry from the second level this is at least that.
    pub fn age(&self) -> Duration {
        self.entry.age(self.at)
    }
}

/// An answer of the first level to come back to, see [`Cache::recall`](crate::Cache::recall). Keeps its entry in memory.
#[derive(Clone)]
pub struct Kept(pub(crate) Arc<Entry>);

/// What is known of an answer that was recalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// As [`Answer::age`].
    pub age: Duration,
    /// Whether it is time to look its entry up, so that the first level knows that it is used: after a second in which nobody
    /// read it, and now and then while it is read.
    pub look_up: bool,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("version", &self.version())
            .field("origin", &self.origin)
            .field("bytes", &self.value().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// What a read asks for beside the key.
#[derive(Clone, Debug, Default)]
pub struct Read {
    pub(crate) floor: Version,
    pub(crate) stale: Option<Duration>,
    pub(crate) tags: Vec<Key>,
    pub(crate) wait: Option<Duration>,
    pub(crate) now: Option<Nanos>,
    pub(crate) fresh: bool,
    pub(crate) past_memory: bool,
    pub(crate) past_remote: bool,
}

impl Read {
    /// Within the bound, nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// Never below this version (G4).
    #[must_use]
    pub const fn floor(mut self, floor: Version) -> Self {
        self.floor = floor;
        self
    }

    /// Takes an answer up to this old if the source fails or is late (G7).
    #[must_use]
    pub const fn stale_on_error(mut self, up_to: Duration) -> Self {
        self.stale = Some(up_to);
        self
    }

    /// What is loaded belongs to these tags.
    #[must_use]
    pub fn tags<T: Into<Key>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Waits no longer than this, instead of the cache's own wait.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Decides by this reading of the cache's clock instead of its coarse one. A caller that has read the clock anyway
    /// so escapes the coarse clock's lag, which after a suspended process can be long.
    #[must_use]
    pub const fn at(mut self, now: Nanos) -> Self {
        self.now = Some(now);
        self
    }

    /// Does not take an answer from the first level; what is found elsewhere is kept there for others. For bringing a
    /// level into use, or out of it, by and by.
    #[must_use]
    pub const fn past_first_level(mut self) -> Self {
        self.past_memory = true;
        self
    }

    /// Neither asks the second level nor leases or fills there.
    #[must_use]
    pub const fn past_second_level(mut self) -> Self {
        self.past_remote = true;
        self
    }

    /// Asks the source whatever is cached, and caches what it answers.
    #[must_use]
    pub const fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }
}
