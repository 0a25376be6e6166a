//! Whether two ways of reading say the same. Two answers of different versions say nothing about each other.

use std::sync::Arc;

use crate::Head;
use crate::store::ItemPage;
use crate::window::Window;

/// What comparing two answers shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// The context was changed in between.
    Moved,
    /// What differs.
    Different(&'static str),
}

/// An answer that can be compared with another way's.
pub(super) trait Compare {
    fn compare(&self, other: &Self) -> Verdict;
}

fn verdict(versions: (u64, u64), parts: &[(&'static str, bool)]) -> Verdict {
    if versions.0 != versions.1 {
        return Verdict::Moved;
    }
    let different = parts.iter().find(|(_, same)| !same);
    different.map_or(Verdict::Same, |(what, _)| Verdict::Different(what))
}

impl Compare for Arc<Head> {
    fn compare(&self, other: &Self) -> Verdict {
        verdict((self.version, other.version), &[("the head", self == other)])
    }
}

impl Compare for ItemPage {
    fn compare(&self, other: &Self) -> Verdict {
        verdict(
            (self.version, other.version),
            &[
                ("the items", self.items == other.items),
                ("more", self.more == other.more),
            ],
        )
    }
}

impl Compare for Arc<Window> {
    fn compare(&self, other: &Self) -> Verdict {
        verdict(
            (self.version, other.version),
            &[
                ("the items", self.items == other.items),
                ("the rest of the window", self == other),
            ],
        )
    }
}
