//! Holds a history against the guarantees G1 to G8. Pure: a history in, violations out; one rule a module, each with
//! histories made by hand that break it.
//!
//! What is relied on: operations of one client follow one another; an operation's beginning is before the server heard
//! of it and its end is after the answer, so that "ended before another began" is a true order; an unknown outcome may
//! have happened, may yet happen, or not; ids of deleted contexts are not used again, and no two items have the same
//! text, unless an append is repeated.

mod bound;
mod duplicated;
mod floor;
mod foreign;
mod honest;
mod index;
mod lost;
mod order;
mod resurrected;
#[cfg(test)]
mod sample;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use self::index::Index;
use super::history::History;

/// `cache.coherence.bound`, as the servers of a run are configured.
pub(crate) const BOUND: Duration = Duration::from_millis(300);

/// DESIGN 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Guarantee {
    G1,
    G2,
    G3,
    G4,
    G5,
    G6,
    G7,
    G8,
}

impl Guarantee {
    pub(crate) const ALL: [Self; 8] = [
        Self::G1,
        Self::G2,
        Self::G3,
        Self::G4,
        Self::G5,
        Self::G6,
        Self::G7,
        Self::G8,
    ];

    /// What a violation of it is called.
    pub(crate) fn broken(self) -> &'static str {
        match self {
            Self::G1 => "lost",
            Self::G2 => "duplicated",
            Self::G3 => "reordered",
            Self::G4 => "below its floor",
            Self::G5 => "stale beyond the bound",
            Self::G6 => "resurrected",
            Self::G7 => "not honest",
            Self::G8 => "foreign",
        }
    }
}

/// One guarantee that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) guarantee: Guarantee,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}: {}",
            self.guarantee,
            self.guarantee.broken(),
            self.text
        )
    }
}

/// Everything that is wrong with a history.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let index = Index::of(history);
    let mut found = Vec::new();
    for (guarantee, rule) in RULES {
        let texts = rule(history, &index);
        found.extend(texts.into_iter().map(|text| Violation { guarantee, text }));
    }
    found
}

/// How many acknowledged writes there are, and how many of them counted for G5 later than from their acknowledgement,
/// because the shared level may not have heard of them by then.
pub(crate) fn put_off(history: &History) -> (usize, usize) {
    let index = Index::of(history);
    let writes = history
        .operations
        .iter()
        .filter(|operation| operation.what.is_write());
    let done: Vec<_> = writes.filter(|operation| operation.done().is_some()).collect();
    let late = done
        .iter()
        .filter(|operation| index.told(operation) != Some(operation.ended));
    (late.count(), done.len())
}

/// How often each guarantee was broken.
pub(crate) fn tally(violations: &[Violation]) -> BTreeMap<Guarantee, usize> {
    let mut counts: BTreeMap<Guarantee, usize> = Guarantee::ALL.iter().map(|each| (*each, 0)).collect();
    for violation in violations {
        *counts.entry(violation.guarantee).or_default() += 1;
    }
    counts
}

type Rule = fn(&History, &Index<'_>) -> Vec<String>;

const RULES: [(Guarantee, Rule); 8] = [
    (Guarantee::G1, lost::check),
    (Guarantee::G2, duplicated::check),
    (Guarantee::G3, order::check),
    (Guarantee::G4, floor::check),
    (Guarantee::G5, bound::check),
    (Guarantee::G6, resurrected::check),
    (Guarantee::G7, honest::check),
    (Guarantee::G8, foreign::check),
];
