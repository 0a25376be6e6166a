//! G7: an answer says where it comes from, which version it is and how old; `stale` is for those who asked for `any`.

use std::time::Duration;

use super::BOUND;
use super::index::{Index, before};
use crate::chaos::history::{Demand, Done, History, Operation, Origin, What};

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for operation in &history.operations {
        let Some(done) = operation.done() else { continue };
        found.extend(names(operation, done).map(|wrong| format!("{wrong}: {operation}")));
        found.extend(older_than_said(operation, done, index));
    }
    found
}

fn names(operation: &Operation, done: &Done) -> Option<&'static str> {
    let single = !matches!(operation.what, What::List | What::Search | What::BatchGet);
    if single && done.tag.is_none() {
        return Some("no version");
    }
    let of_it = done
        .sights
        .iter()
        .filter(|sight| sight.context == operation.context);
    if single
        && of_it
            .filter_map(|sight| sight.version)
            .any(|version| Some(version) != done.tag)
    {
        return Some("two versions");
    }
    match (done.origin, operation.demand) {
        // 204 has no body that could come from anywhere.
        (None, _) if operation.what == What::Delete => None,
        (None, _) => Some("no origin"),
        (Some(Origin::Stale), demand) if demand != Demand::Any => Some("stale and not asked for"),
        (Some(origin), Demand::Strong) if origin != Origin::Primary => Some("strong and not of the primary"),
        _ => None,
    }
}

/// An answer to `any` that gives its age is not older than that. Whole seconds are given, rounded down; the bound is
/// what any age may be wrong by.
fn older_than_said(operation: &Operation, done: &Done, index: &Index<'_>) -> Option<String> {
    if operation.demand != Demand::Any || operation.what.is_write() {
        return None;
    }
    let age = Duration::from_secs(done.age? + 1);
    let by = before(operation.began, age + BOUND)?;
    let behind = done.sights.iter().find(|sight| {
        let writes = index.of_context(operation.tenant, &sight.context);
        let due = writes
            .filter(|writes| !writes.may_be_gone(operation.ended))
            .map_or(0, |writes| writes.told(by));
        sight.version.is_some_and(|version| version < due)
    });
    behind.map(|_| format!("older than it says: {operation}"))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{append, done, head, history};
    use super::*;

    fn check_of(operations: Vec<Operation>) -> usize {
        let history = history(operations, 2);
        check(&history, &Index::of(&history)).len()
    }

    fn from(origin: Option<Origin>, demand: Demand) -> usize {
        let mut read = head(0, 3, demand);
        done(&mut read).origin = origin;
        check_of(vec![read])
    }

    #[test]
    fn stale_is_for_those_who_asked_and_strong_is_of_the_primary() {
        assert_eq!(from(Some(Origin::Stale), Demand::Any), 0);
        assert_eq!(from(Some(Origin::Stale), Demand::Bare), 1);
        assert_eq!(from(Some(Origin::L1), Demand::Session), 0);
        assert_eq!(from(Some(Origin::L1), Demand::Strong), 1);
        assert_eq!(from(None, Demand::Bare), 1);
    }

    #[test]
    fn a_missing_version_and_a_second_one_are_found() {
        let mut read = head(0, 3, Demand::Bare);
        done(&mut read).tag = None;
        assert_eq!(check_of(vec![read.clone()]), 1);
        done(&mut read).tag = Some(2);
        assert_eq!(check_of(vec![read]), 1);
    }

    #[test]
    fn an_answer_older_than_its_age_is_found() {
        let stale = |at: u64, age: Option<u64>| {
            let mut read = head(at, 1, Demand::Any);
            done(&mut read).origin = Some(Origin::Stale);
            done(&mut read).age = age;
            check_of(vec![append(0, 1, 2), read])
        };
        assert_eq!((stale(1300, Some(0)), stale(1310, Some(0))), (0, 1));
        assert_eq!((stale(5000, Some(4)), stale(5000, None)), (0, 0));
    }
}
