//! Which items belong together.

use std::collections::HashMap;

use super::IMPORTANCE_DEFAULT;
use crate::Item;
use crate::item::Kind;

/// Items that go or stay together (T1).
#[derive(Debug)]
pub(super) struct Unit {
    /// Their places in the list, ascending; never empty.
    pub(super) items: Vec<usize>,
    /// Their tokens.
    pub(super) tokens: u64,
    /// The highest importance among them.
    pub(super) importance: f64,
    /// What it is made of.
    pub(super) nature: Nature,
    /// Whether it is part of the newest turn (T3).
    pub(super) is_newest_turn: bool,
    /// Whether it may not be dropped (T2, T3).
    pub(super) stays: bool,
}

/// What a unit is made of; the later one decides if it is made of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nature {
    /// What the model said, or something that was passed through.
    Said,
    /// Calls and results.
    Exchange,
    /// What the user said.
    User,
}

/// The units of a context, by the place of their first items.
pub(super) fn of(items: &[Item]) -> Vec<Unit> {
    let groups = groups(items);
    let newest_turn = items.iter().rposition(|item| item.traits.starts_turn());
    let mut units: Vec<Unit> = Vec::new();
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let number = *numbers.entry(groups.root(index)).or_insert(units.len());
        if number == units.len() {
            units.push(Unit {
                items: Vec::new(),
                tokens: 0,
                importance: 0.0,
                nature: Nature::Said,
                is_newest_turn: false,
                stays: false,
            });
        }
        let Some(unit) = units.get_mut(number) else {
            continue;
        };
        let traits = &item.traits;
        unit.items.push(index);
        unit.tokens += u64::from(item.tokens);
        unit.importance = unit
            .importance
            .max(traits.importance.unwrap_or(IMPORTANCE_DEFAULT));
        unit.nature = unit.nature.max(if traits.starts_turn() {
            Nature::User
        } else if traits.links.is_empty() {
            Nature::Said
        } else {
            Nature::Exchange
        });
        unit.is_newest_turn |= newest_turn.is_some_and(|newest| index >= newest);
        let is_newest = index + 1 == items.len();
        unit.stays |= traits.always_kept() || newest_turn == Some(index) || is_newest;
    }
    for unit in &mut units {
        unit.stays |= unit.is_newest_turn && unit.items.iter().any(|&index| groups.waits(index));
    }
    units
}

/// Sets of items that are joined, and the calls without a result.
struct Groups {
    parents: Vec<usize>,
    waiting: Vec<bool>,
}

impl Groups {
    fn root(&self, mut index: usize) -> usize {
        while let Some(&parent) = self.parents.get(index).filter(|&&parent| parent != index) {
            index = parent;
        }
        index
    }

    fn waits(&self, index: usize) -> bool {
        self.waiting.get(index).copied().unwrap_or(false)
    }

    /// The older of the two roots is the root of both, which keeps paths short enough: an item joins what is near.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if let Some(parent) = self.parents.get_mut(a.max(b)) {
            *parent = a.min(b);
        }
        for index in [a, b] {
            let root = self.root(index);
            if let Some(parent) = self.parents.get_mut(index) {
                *parent = root;
            }
        }
    }
}

/// Joins results with their calls, calls that are made in one step, and reasoning with what follows it.
///
/// Providers start their ids anew at times: a result answers the newest call of its id that is older, and only if there
/// is none the oldest that is younger.
fn groups(items: &[Item]) -> Groups {
    let mut groups = Groups {
        parents: (0..items.len()).collect(),
        waiting: vec![false; items.len()],
    };
    let mut calls: HashMap<&str, usize> = HashMap::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    let mut early: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let links = &item.traits.links;
        for result in &links.results {
            match calls.get(result.as_str()) {
                Some(&call) => {
                    groups.join(call, index);
                    open.remove(result.as_str());
                }
                None => early.entry(result).or_default().push(index),
            }
        }
        for call in &links.calls {
            calls.insert(call, index);
            match early.remove(call.as_str()) {
                Some(results) => results.into_iter().for_each(|result| groups.join(result, index)),
                None => drop(open.insert(call, index)),
            }
        }
        let before = index.checked_sub(1).and_then(|before| items.get(before));
        let one_step = before.is_some_and(|before| {
            let both_call = !before.traits.links.calls.is_empty() && !links.calls.is_empty();
            before.traits.kind == Kind::Reasoning || both_call
        });
        if one_step {
            groups.join(index - 1, index);
        }
    }
    for index in open.into_values() {
        if let Some(waiting) = groups.waiting.get_mut(index) {
            *waiting = true;
        }
    }
    groups
}
