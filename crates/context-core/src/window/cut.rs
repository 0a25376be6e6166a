//! Where a window begins. See the module above for what each rule is for (W2, W3, W6, W7).
//!
//! Everything is measured in *dropped tokens*: a place in the conversation is named by the tokens of all items before it
//! that are not always kept. Items are only ever appended, so the coordinate of a place never changes while the context
//! grows, and whether a window that begins there fits is one comparison: the window has the context's tokens less its
//! coordinate.

use std::collections::HashSet;

use super::Cut;
use crate::error::{Error, Result};
use crate::item::Kind;
use crate::store::Tail;
use crate::{Item, Seq};

/// A step is the largest power of two of which so many fit into the room that instructions and pinned items leave, so
/// that it is between a quarter and a half of it. Three were measured as well, see ADR 0008. Must be 2 or more, or the
/// cell at a line might still grow.
const STEPS_IN_ROOM: u64 = 2;

/// A place where the run may begin without breaking W3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: usize,
    dropped: u64,
    starts_turn: bool,
}

/// Where the run begins, and what the face says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Index of the first item in `tail.run`.
    pub(super) index: usize,
    /// Whether it is not the oldest place that would fit, for the sake of the prefix.
    pub(super) kept_put: bool,
}

/// Sums that do not depend on where the cut is.
struct Sums {
    /// Tokens of what is in every window.
    always: u64,
    /// Tokens that have to go, at least.
    excess: u64,
    /// Dropped tokens at the beginning of the run.
    origin: u64,
}

impl Sums {
    fn of(tail: &Tail, budget: u64) -> Self {
        let sum = |kept: bool, items: &[Item]| -> u64 {
            let wanted = items.iter().filter(|item| item.traits.always_kept() == kept);
            wanted.map(|item| u64::from(item.tokens)).sum()
        };
        let always = sum(true, &tail.kept) + sum(true, &tail.run);
        let droppable = tail.context.tokens.saturating_sub(always);
        Self {
            always,
            excess: tail.context.tokens.saturating_sub(budget),
            origin: droppable.saturating_sub(sum(false, &tail.run)),
        }
    }
}

/// Chooses the beginning of the run.
///
/// # Errors
/// [`Error::BudgetTooSmall`] if no place fits, with the tokens of the smallest window there is.
pub(super) fn choose(tail: &Tail, budget: u64, cut: Cut) -> Result<Choice> {
    let sums = Sums::of(tail, budget);
    let everything = (tail.kept.len() + tail.run.len()) as u64 == tail.context.item_count;
    let places = places(tail, &sums, everything);
    let tight = tight(&places, sums.excess);
    let chosen = match cut {
        Cut::Tight => tight,
        Cut::Sticky => sticky(&places, tail.context.tokens, &sums, budget),
    };
    match (chosen, tight) {
        (Some(chosen), Some(tight)) => Ok(Choice {
            index: chosen.index,
            kept_put: chosen.dropped > tight.dropped,
        }),
        _ if tail.run.is_empty() && everything && sums.always <= budget => Ok(Choice {
            index: 0,
            kept_put: false,
        }),
        _ => {
            // Without a place in what was read, all that is known is that more is needed than there is.
            let smallest = places.last().map_or(sums.origin, |place| place.dropped);
            let minimum = tail.context.tokens.saturating_sub(smallest);
            let minimum = minimum.max(sums.always).max(budget.saturating_add(1));
            Err(Error::BudgetTooSmall { budget, minimum })
        }
    }
}

/// The places of the run where it may be cut, oldest first.
fn places(tail: &Tail, sums: &Sums, everything: bool) -> Vec<Place> {
    let run = &tail.run;
    let made: HashSet<&str> = run
        .iter()
        .flat_map(|item| &item.traits.links.calls)
        .map(String::as_str)
        .collect();
    let total: u64 = run.iter().map(droppable).sum();
    let mut waiting: HashSet<&str> = HashSet::new();
    // Whether a result was passed whose call is older than the run: nothing before it can be a beginning. That holds
    // as well when the call does not exist, which is known only if everything was read: what may be shown must not
    // depend on how much was read (W8).
    let mut closed = false;
    let mut dropped = sums.origin + total;
    let mut places = Vec::new();
    for (index, item) in run.iter().enumerate().rev() {
        dropped -= droppable(item);
        for result in &item.traits.links.results {
            if made.contains(result.as_str()) {
                waiting.insert(result);
            } else {
                closed = true;
            }
        }
        for call in &item.traits.links.calls {
            waiting.remove(call.as_str());
        }
        let before = match index.checked_sub(1) {
            Some(previous) => run.get(previous).map(|item| item.traits.kind),
            None => tail.before,
        };
        let whole = index == 0 && everything;
        let starts_turn = whole || item.traits.starts_turn();
        let legal = !closed && waiting.is_empty() && (starts_turn || before != Some(Kind::Reasoning));
        if whole || legal {
            places.push(Place {
                index,
                dropped,
                starts_turn,
            });
        }
    }
    places.reverse();
    places
}

fn droppable(item: &Item) -> u64 {
    if item.traits.always_kept() {
        0
    } else {
        u64::from(item.tokens)
    }
}

/// The oldest turn that fits, else the oldest step that fits.
fn tight(places: &[Place], excess: u64) -> Option<Place> {
    first(places, excess, u64::MAX)
}

/// The first beginning of a turn in `from..to`, else the first place there. `u64::MAX` means no end.
fn first(places: &[Place], from: u64, to: u64) -> Option<Place> {
    let within = between(places, from, to);
    let turn = within.iter().find(|place| place.starts_turn);
    turn.or(within.first()).copied()
}

fn between(places: &[Place], from: u64, to: u64) -> &[Place] {
    let start = places.partition_point(|place| place.dropped < from);
    let rest = places.get(start..).unwrap_or_default();
    let end = if to == u64::MAX {
        rest.len()
    } else {
        rest.partition_point(|place| place.dropped < to)
    };
    rest.get(..end).unwrap_or_default()
}

/// The sticky cut: see W6 and W7. The best of what this budget and the largest budgets with smaller steps allow.
fn sticky(places: &[Place], tokens: u64, sums: &Sums, budget: u64) -> Option<Place> {
    let room = budget.checked_sub(sums.always)?;
    let mut step = step(room);
    let mut best = at_line(places, sums.excess, step);
    while step > 1 {
        let smaller = step * STEPS_IN_ROOM - 1;
        let excess = tokens.saturating_sub(sums.always.saturating_add(smaller));
        // What drops less than this is out of reach for all smaller budgets.
        if best.is_some_and(|best| best.dropped <= excess) {
            break;
        }
        step /= 2;
        let candidates = [best, at_line(places, excess, step)];
        best = candidates.into_iter().flatten().min_by_key(|place| place.dropped);
    }
    best
}

/// The largest power of two of which [`STEPS_IN_ROOM`] fit into `room`; 1 if none does.
const fn step(room: u64) -> u64 {
    match (room / STEPS_IN_ROOM).checked_ilog2() {
        Some(exponent) => 1 << exponent,
        None => 1,
    }
}

/// The place that stands for the first grid line at or after `excess`.
fn at_line(places: &[Place], excess: u64, step: u64) -> Option<Place> {
    let line = excess.checked_next_multiple_of(step).unwrap_or(u64::MAX);
    // The cell at the line is complete: less than a step of the room lies before the line, so a step at least behind it.
    if let Some(place) = first(places, line, line.saturating_add(step)) {
        return Some(place);
    }
    // A step so long that it spans the cell: what is left of it before the line while that fits, else what follows.
    let before = between(places, excess, line);
    let turn = before.iter().find(|place| place.starts_turn);
    if let Some(place) = turn.or(before.last()) {
        return Some(*place);
    }
    let next = between(places, line, u64::MAX).first()?;
    let cell = next.dropped - next.dropped % step;
    first(places, next.dropped, cell.saturating_add(step))
}

/// The oldest item of a window that is there for its place, not because it is always kept.
pub(super) fn cut_seq(items: &[Item]) -> Option<Seq> {
    let shown = items.iter().find(|item| !item.traits.always_kept());
    shown.map(|item| item.seq)
}
