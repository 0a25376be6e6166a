//! What a cache tells about itself.

use std::fmt;
use std::time::Duration;

use crate::answer::Origin;

/// Hears what happens in a cache. Every method has a default that does nothing; none may block.
///
/// The hit path calls [`answered`](Self::answered) with nothing allocated and no lock held; implementations should keep to that.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A read was answered from here.
    fn answered(&self, origin: Origin) {
        let _ = origin;
    }

    /// Something worth counting happened.
    fn event(&self, event: &Event) {
        let _ = event;
    }
}

/// Things worth counting. Kinds are few and fixed, so they can be labels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A load succeeded after this time.
    Loaded(Duration),
    /// A load failed after this time.
    LoadFailed(Duration),
    /// A background refresh began.
    Refreshing,
    /// A load was refused because too many are under way.
    Overloaded,
    /// The second level could not do this.
    RemoteFailed(RemoteOp),
    /// The second level refused a fill, because the key had changed or the lease was gone.
    FillRefused,
    /// Somebody else holds the lease of a key that is being read.
    LeaseHeld,
    /// A loader answered with less than it was asked for, and is asked for its newest.
    SourceBehind,
    /// A partition's messages had a gap, which is being replayed.
    Gap,
    /// A partition's history is not the one this node knew: everything of it was dropped here.
    Diverged,
    /// A change could not be brought to the second level and waits for it to come back.
    Deferred,
    /// Changes that had waited were brought to the second level.
    Recovered(usize),
    /// A change that waited was given up because too many did.
    RecoveryFull,
    /// So many of the keys to be warmed are done, of so many.
    Warmed {
        /// Loaded, held already, or failed.
        done: usize,
        /// All of them.
        of: usize,
    },
    /// A value was larger than the first level takes.
    Oversize(usize),
}

/// What the second level was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteOp {
    /// To read entries.
    Get,
    /// To lease keys.
    Lease,
    /// To store what was loaded.
    Fill,
    /// To take a change.
    Apply,
    /// To tell or raise a tag's generation.
    Tag,
    /// To tell how far its logs are.
    Positions,
    /// To replay a log.
    Replay,
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
