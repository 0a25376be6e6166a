//! What to drop of a context that is over its budget: a pure function over its items; no I/O, no clock.
//!
//! [`Strategy::OldestFirst`] keeps what a window of that budget would show (`W1` to `W5`, see [`crate::window`]). The other
//! strategies are [`plan`], for which the items fall into *units*: a call with all its results and the reasoning before
//! it, or one item that has to do with no other.
//!
//! - **T1** A unit is dropped whole or not at all, so that no call loses a result and no reasoning what follows it.
//! - **T2** Instructions (system, developer) and pinned items stay, and the units that they are part of.
//! - **T3** The newest turn goes last, and never wholly: the message that begins it, its calls that wait for results and
//!   its newest unit stay.
//! - **T4** What stays keeps its order and its seqs.
//! - **T5** Units are dropped in the order of the strategy until the target is reached, and no further.
//! - **T6** What stays lies in at most [`RANGES_MAX`] ranges of seqs: a strategy that picks units here and there would make
//!   the context of more pieces than a store takes. Over that, the oldest units that may go are dropped as well, until the
//!   holes have met.
//! - **T7** The same items, target, strategy and query make the same plan.

mod relevance;
#[cfg(test)]
mod tests;
mod units;

use std::cmp::Ordering;

use crate::error::{Error, Invalid, Result};
use crate::store::{SPANS_MAX, SeqRange};
use crate::{Item, Seq};

pub use relevance::Wanted;
use units::{Nature, Unit};

/// Most ranges that a plan leaves. Half of what a store takes: a context may have been forked or truncated before.
pub const RANGES_MAX: usize = SPANS_MAX / 2;

/// The importance of an item that names none.
pub const IMPORTANCE_DEFAULT: f64 = 0.5;

/// Which items go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Whole turns, oldest first.
    #[default]
    OldestFirst,
    /// Tool exchanges and what the model said, oldest first; what the user said only after all of that.
    PreservingUser,
    /// Calls with their results, oldest first; other items only after all of these.
    ToolResultsFirst,
    /// The least important first, the oldest first among equals. A unit is as important as the most important item in
    /// it; an item that says nothing has [`IMPORTANCE_DEFAULT`].
    Importance,
    /// What has least to do with a query first, by its words alone (BM25), the oldest first among equals.
    Relevance,
}

impl Strategy {
    /// All strategies.
    pub const ALL: [Self; 5] = [
        Self::OldestFirst,
        Self::PreservingUser,
        Self::ToolResultsFirst,
        Self::Importance,
        Self::Relevance,
    ];

    /// Stable name, used on both faces and by the stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OldestFirst => "oldest_first",
            Self::PreservingUser => "preserving_user",
            Self::ToolResultsFirst => "tool_results_first",
            Self::Importance => "importance",
            Self::Relevance => "relevance",
        }
    }

    /// Reads [`Strategy::as_str`] back.
    ///
    /// # Errors
    /// `Invalid` on the field `strategy`, with all names.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == name)
            .ok_or_else(|| {
                Invalid::new("strategy", format!("{name:?} is not a strategy"))
                    .hint(format!("use {}", Self::names()))
                    .into()
            })
    }

    /// All names, as a sentence has them.
    pub fn names() -> String {
        let [first @ .., last] = Self::ALL.map(Self::as_str);
        format!("{} or {last}", first.join(", "))
    }
}

/// What a context does by itself when an append has put it over its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AutoTruncation {
    /// Nothing: it grows.
    #[default]
    None,
    /// It is truncated by this strategy, down to [`AutoTruncation::target`]. [`Strategy::Relevance`] measures against
    /// what the user said last.
    By(Strategy),
}

impl AutoTruncation {
    /// Stable name, used on both faces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::By(strategy) => strategy.as_str(),
        }
    }

    /// Reads [`AutoTruncation::as_str`] back.
    ///
    /// # Errors
    /// `Invalid` on the field `truncation`, with all names.
    pub fn parse(name: &str) -> Result<Self> {
        if name == Self::None.as_str() {
            return Ok(Self::None);
        }
        Strategy::parse(name).map(Self::By).map_err(|_| {
            Invalid::new("truncation", format!("{name:?} is not a way to truncate"))
                .hint(format!("use none, {}", Strategy::names()))
                .into()
        })
    }

    /// What a store writes; nothing stands for [`AutoTruncation::None`].
    #[cfg(any(feature = "embedded", feature = "postgres"))]
    pub(crate) fn stored(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::By(strategy) => Some(strategy.as_str()),
        }
    }

    /// The low-water mark: four fifths of the budget. The next appends have room, so that not each of them truncates.
    pub const fn target(max_tokens: u64) -> u64 {
        max_tokens - max_tokens / 5
    }
}

/// What of a context stays and what goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Seqs that stay, ascending and disjoint.
    pub keep: Vec<SeqRange>,
    /// Items that go.
    pub dropped_items: u64,
    /// Their tokens.
    pub dropped_tokens: u64,
}

/// Chooses what to drop of `items`, which are all of a context, in order, so that at most `max_tokens` are left.
///
/// `wanted` is what [`Strategy::Relevance`] measures against; the other strategies do not look at it, and without it
/// everything is equally irrelevant. [`Strategy::OldestFirst`] is whole units by age here; a manager cuts by turns.
///
/// Linear in the items but for sorting; relevance reads their text, so call it off the reactor for many.
///
/// # Errors
/// [`Error::BudgetTooSmall`] if what stays by T2 and T3 is more than `max_tokens`; [`Error::TooLarge`] if it lies in
/// more than [`RANGES_MAX`] ranges.
pub fn plan(items: &[Item], max_tokens: u64, strategy: Strategy, wanted: Option<&Wanted>) -> Result<Plan> {
    let units = units::of(items);
    let total: u64 = units.iter().map(|unit| unit.tokens).sum();
    let minimum: u64 = units
        .iter()
        .filter(|unit| unit.stays)
        .map(|unit| unit.tokens)
        .sum();
    if minimum > max_tokens {
        return Err(Error::BudgetTooSmall {
            budget: max_tokens,
            minimum,
        });
    }
    let mut kept = Kept::all(items);
    let mut left = total;
    for unit in in_order(items, &units, strategy, wanted) {
        if left <= max_tokens {
            break;
        }
        left -= unit.tokens;
        kept.drop_unit(unit);
    }
    if left < total {
        kept.join_holes(&units)?;
    }
    Ok(kept.plan())
}

/// Units that may go, first to go first.
fn in_order<'units>(
    items: &[Item],
    units: &'units [Unit],
    strategy: Strategy,
    wanted: Option<&Wanted>,
) -> Vec<&'units Unit> {
    let scores: Vec<f64> = match (strategy, wanted) {
        (Strategy::OldestFirst, _) | (Strategy::Relevance, None) => vec![0.0; units.len()],
        (Strategy::PreservingUser, _) => units
            .iter()
            .map(|unit| flag(unit.nature == Nature::User))
            .collect(),
        (Strategy::ToolResultsFirst, _) => units
            .iter()
            .map(|unit| flag(unit.nature != Nature::Exchange))
            .collect(),
        (Strategy::Importance, _) => units.iter().map(|unit| unit.importance).collect(),
        (Strategy::Relevance, Some(wanted)) => relevance::scores(items, units, wanted),
    };
    let mut order: Vec<(&Unit, f64)> = units.iter().zip(scores).filter(|(unit, _)| !unit.stays).collect();
    // The sort is stable and units are by age, so equals stay oldest first.
    order.sort_by(
        |(a, a_score), (b, b_score)| match a.is_newest_turn.cmp(&b.is_newest_turn) {
            Ordering::Equal => a_score.total_cmp(b_score),
            other => other,
        },
    );
    order.into_iter().map(|(unit, _)| unit).collect()
}

fn flag(goes_later: bool) -> f64 {
    if goes_later { 1.0 } else { 0.0 }
}

/// Which items are kept, and in how many ranges they lie.
struct Kept<'items> {
    items: &'items [Item],
    stays: Vec<bool>,
    ranges: usize,
}

impl<'items> Kept<'items> {
    fn all(items: &'items [Item]) -> Self {
        Self {
            items,
            stays: vec![true; items.len()],
            ranges: ranges(items.iter().map(|item| item.seq)).len(),
        }
    }

    fn drop_unit(&mut self, unit: &Unit) {
        for &index in &unit.items {
            let before = index
                .checked_sub(1)
                .is_some_and(|before| self.joins(before, index));
            let after = self.joins(index, index + 1);
            match (before, after) {
                (true, true) => self.ranges += 1,
                (false, false) => self.ranges -= 1,
                _ => {}
            }
            if let Some(kept) = self.stays.get_mut(index) {
                *kept = false;
            }
        }
    }

    /// Whether two neighbours are both kept and lie in one range.
    fn joins(&self, left: usize, right: usize) -> bool {
        let kept = |index: usize| self.stays.get(index).copied().unwrap_or(false);
        let seq = |index: usize| self.items.get(index).map(|item| item.seq);
        kept(left) && kept(right) && seq(left).map(|seq| seq + 1) == seq(right)
    }

    /// T6.
    fn join_holes(&mut self, units: &[Unit]) -> Result<()> {
        for newest_turn in [false, true] {
            for unit in units {
                if self.ranges <= RANGES_MAX {
                    return Ok(());
                }
                let is_kept = unit
                    .items
                    .iter()
                    .any(|&index| self.stays.get(index) == Some(&true));
                if is_kept && !unit.stays && unit.is_newest_turn == newest_turn {
                    self.drop_unit(unit);
                }
            }
        }
        if self.ranges <= RANGES_MAX {
            return Ok(());
        }
        Err(Error::TooLarge {
            what: "the number of ranges that would stay".into(),
            actual: self.ranges as u64,
            limit: RANGES_MAX as u64,
        })
    }

    fn plan(&self) -> Plan {
        let choice = |wanted: bool| {
            self.items
                .iter()
                .zip(&self.stays)
                .filter(move |(_, kept)| **kept == wanted)
                .map(|(item, _)| item)
        };
        Plan {
            keep: ranges(choice(true).map(|item| item.seq)),
            dropped_items: choice(false).count() as u64,
            dropped_tokens: choice(false).map(|item| u64::from(item.tokens)).sum(),
        }
    }
}

/// Ascending seqs as ranges.
pub(crate) fn ranges(seqs: impl Iterator<Item = Seq>) -> Vec<SeqRange> {
    let mut ranges: Vec<SeqRange> = Vec::new();
    for seq in seqs {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == seq => range.last = seq,
            _ => ranges.push(SeqRange {
                first: seq,
                last: seq,
            }),
        }
    }
    ranges
}

/// The seqs from `first` to before `next` that are not in `keep`.
pub(crate) fn gaps(keep: &[SeqRange], first: Seq, next: Seq) -> Vec<SeqRange> {
    let mut gaps = Vec::new();
    let mut from = first;
    for range in keep.iter().copied().chain([SeqRange {
        first: next,
        last: next,
    }]) {
        if from < range.first {
            gaps.push(SeqRange {
                first: from,
                last: range.first - 1,
            });
        }
        from = from.max(range.last + 1);
    }
    gaps
}
