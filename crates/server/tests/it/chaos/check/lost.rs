//! G1: what was acknowledged is in the database in the end, at its place.

use std::collections::HashMap;
use std::time::Duration;

use super::index::{Index, Key, Writes};
use crate::chaos::history::{Done, History, Item, Kept, Moment, Operation, What};

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for (key, writes) in index.contexts() {
        if writes.created.is_none() {
            continue;
        }
        match history.kept.get(key) {
            None => found.push(format!("{key:?} was acknowledged and is not there")),
            Some(kept) => {
                found.extend(version(key, writes, kept));
                found.extend(items(writes, kept));
            }
        }
    }
    found
}

fn version(key: &Key, writes: &Writes<'_>, kept: &Kept) -> Option<String> {
    let acknowledged = writes.acknowledged(Duration::MAX);
    if kept.version < acknowledged {
        return Some(format!(
            "{key:?} is at version {}, acknowledged was {acknowledged}",
            kept.version
        ));
    }
    match (kept.deleted, writes.gone(), writes.deletes.is_empty()) {
        (false, Some((_, tombstone)), _) => Some(format!("{key:?} was deleted at {tombstone} and is there")),
        (true, _, true) => Some(format!("{key:?} is gone and nobody deleted it")),
        _ => None,
    }
}

fn items(writes: &Writes<'_>, kept: &Kept) -> Vec<String> {
    if kept.deleted {
        return Vec::new();
    }
    let tried = first_tries(writes);
    let mut found = Vec::new();
    let shrinks = writes
        .shrinks
        .iter()
        .filter(|(operation, _)| matches!(operation.what, What::Replace { .. }));
    for (operation, done) in writes.appends.iter().chain(shrinks) {
        let Some(appended) = done.and_then(|done| done.appended) else {
            continue;
        };
        let (What::Append { items, .. } | What::Replace { items }) = &operation.what else {
            continue;
        };
        for (item, seq) in items.iter().zip(appended.first_seq..) {
            if kept.items.get(&seq) != Some(&Some(*item)) && !may_be_dropped(writes, tried[item], seq) {
                let there = kept.items.get(&seq);
                found.push(format!(
                    "item {item} should be at seq {seq}, where {there:?} is: {operation}"
                ));
            }
        }
    }
    found
}

/// When each item was sent first: of an append that was repeated, the first try may have been the one that did it.
fn first_tries(writes: &Writes<'_>) -> HashMap<Item, Moment> {
    let mut tried = HashMap::new();
    for (operation, _) in writes.appends.iter().chain(&writes.shrinks) {
        if let What::Append { items, .. } | What::Replace { items } = &operation.what {
            for item in items {
                let first = tried.entry(*item).or_insert(operation.began);
                *first = operation.began.min(*first);
            }
        }
    }
    tried
}

/// A request whose client has given up may still be done, within the servers' limit of a statement.
const LATE: Duration = Duration::from_secs(40);

/// Whether a truncation or replacement has dropped an item, or may have: one without an answer that was not over, late
/// as it may be, before the item was first sent.
fn may_be_dropped(writes: &Writes<'_>, tried: Moment, seq: u64) -> bool {
    writes.shrinks.iter().any(|(shrink, done)| match done {
        Some(done) => drops(shrink, done, seq),
        None => shrink.ended + LATE > tried,
    })
}

/// Whether an acknowledged truncation or replacement says that it dropped this seq.
pub(super) fn drops(shrink: &Operation, done: &Done, seq: u64) -> bool {
    match (&shrink.what, done.appended) {
        (What::Replace { .. }, Some(appended)) => seq < appended.first_seq,
        _ => done
            .dropped
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&seq)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{append, delete, done, history, kept, operation, unknown};
    use super::*;
    use crate::chaos::history::Demand;

    fn check_of(history: &History) -> Vec<String> {
        check(history, &Index::of(history))
    }

    fn two() -> History {
        history(vec![append(0, 1, 2), append(20, 2, 3)], 2)
    }

    #[test]
    fn what_is_all_there_is_right() {
        assert_eq!(check_of(&two()), [""; 0]);
    }

    #[test]
    fn a_missing_item_a_missing_version_and_a_missing_context_are_found() {
        let mut history = two();
        kept(&mut history).items.remove(&2);
        assert_eq!(check_of(&history).len(), 1);
        let mut history = two();
        kept(&mut history).version = 2;
        assert_eq!(check_of(&history).len(), 1);
        let mut history = two();
        history.kept.clear();
        assert_eq!(check_of(&history).len(), 1);
    }

    #[test]
    fn a_delete_that_is_lost_and_one_that_nobody_asked_for_are_found() {
        let mut history = two();
        kept(&mut history).deleted = true;
        assert_eq!(check_of(&history).len(), 1);
        history.operations.push(delete(40, 4));
        kept(&mut history).version = 4;
        assert_eq!(check_of(&history), [""; 0]);
        kept(&mut history).deleted = false;
        assert_eq!(check_of(&history).len(), 1);
    }

    #[test]
    fn only_what_a_truncation_says_it_dropped_may_be_missing() {
        let mut truncation = operation(40, What::Truncate, Demand::Session);
        done(&mut truncation).dropped = vec![(1, 1)];
        done(&mut truncation).tag = Some(4);
        let mut history = two();
        history.operations.push(truncation.clone());
        kept(&mut history).version = 4;
        kept(&mut history).items.remove(&1);
        assert_eq!(check_of(&history), [""; 0]);
        kept(&mut history).items.remove(&2);
        assert_eq!(check_of(&history).len(), 1);
        // One of which nothing is known may have dropped anything that was there.
        history.operations.push(unknown(truncation));
        assert_eq!(check_of(&history), [""; 0]);
    }

    #[test]
    fn a_truncation_that_was_over_long_before_the_first_try_dropped_nothing() {
        let early = unknown(operation(40, What::Truncate, Demand::Session));
        let late = u64::try_from(LATE.as_millis()).unwrap() + 100;
        let mut history = history(vec![early, append(late, 1, 2)], 1);
        kept(&mut history).items.remove(&1);
        assert_eq!(check_of(&history).len(), 1);
        history.operations.push(unknown(append(50, 1, 2)));
        assert_eq!(check_of(&history), [""; 0]);
    }
}
