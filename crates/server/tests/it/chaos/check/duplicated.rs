//! G2: a repeated append adds nothing and answers what the first one answered; appends that name no version all succeed.

use std::collections::HashMap;

use super::index::Index;
use crate::chaos::history::{Answer, Appended, History, Item, Name, Operation, What};

pub(super) fn check(history: &History, _: &Index<'_>) -> Vec<String> {
    let mut found = answers(&history.operations);
    found.extend(places(history));
    found.extend(history.operations.iter().filter_map(conflict));
    found.extend(unasked(history));
    found
}

/// The same append has one answer. An append is known by its first item, which only its repetitions share.
fn answers(operations: &[Operation]) -> Vec<String> {
    let mut first: HashMap<(u8, &Name, Item), (Appended, &Operation)> = HashMap::new();
    let mut found = Vec::new();
    for operation in operations {
        let (What::Append { items, .. }, Some(done)) = (&operation.what, operation.done()) else {
            continue;
        };
        let (Some(item), Some(appended)) = (items.first(), done.appended) else {
            continue;
        };
        if appended.last_seq + 1 - appended.first_seq != items.len() as u64 {
            found.push(format!("another number of items: {operation}"));
        }
        let (known, by) = *first
            .entry((operation.tenant, &operation.context, *item))
            .or_insert((appended, operation));
        if known != appended {
            found.push(format!("two answers to one append: {by} and {operation}"));
        }
    }
    found
}

/// An item is at one seq, for good and in every context that has it: a fork has it where its parent does, and one that was
/// replaced is not stored again by a repetition that comes late.
fn places(history: &History) -> Vec<String> {
    let mut seqs: HashMap<Item, u64> = HashMap::new();
    let mut found = Vec::new();
    let mut see = |item: Item, seq: u64, by: &dyn std::fmt::Display| {
        let known = *seqs.entry(item).or_insert(seq);
        if known != seq {
            found.push(format!("item {item} is at seq {known} and at {seq}: {by}"));
        }
    };
    for operation in &history.operations {
        let acknowledged = operation.done().and_then(|done| done.appended);
        if let (What::Append { items, .. } | What::Replace { items }, Some(appended)) =
            (&operation.what, acknowledged)
        {
            for (item, seq) in items.iter().zip(appended.first_seq..) {
                see(*item, seq, operation);
            }
        }
        for (seq, item) in operation
            .done()
            .into_iter()
            .flat_map(|done| &done.sights)
            .flat_map(|sight| &sight.items)
        {
            if let Some(item) = item {
                see(*item, *seq, operation);
            }
        }
    }
    for ((_, context), kept) in &history.kept {
        for (seq, item) in &kept.items {
            if let Some(item) = item {
                see(*item, *seq, context);
            }
        }
    }
    found
}

/// Nobody is asked to retry for a version that they did not name.
fn conflict(operation: &Operation) -> Option<String> {
    match &operation.answer {
        Answer::Refused {
            status: 409 | 412,
            code,
        } if operation.what.is_write() && code != "session_lost" => {
            Some(format!("refused for a conflict: {operation}"))
        }
        _ => None,
    }
}

/// What was refused did not happen.
fn unasked(history: &History) -> Vec<String> {
    let kept: HashMap<Item, &Name> = history
        .kept
        .iter()
        .flat_map(|((_, context), kept)| kept.items.values().flatten().map(move |item| (*item, context)))
        .collect();
    // An append that was unknown or known before may well be refused when it is repeated.
    let mut tried: HashMap<Item, bool> = HashMap::new();
    for operation in &history.operations {
        let (What::Append { items, .. } | What::Replace { items }) = &operation.what else {
            continue;
        };
        let refused = matches!(operation.answer, Answer::Refused { .. });
        for item in items {
            *tried.entry(*item).or_insert(true) &= refused;
        }
    }
    let refused = kept
        .iter()
        .filter(|(item, _)| tried.get(item).copied().unwrap_or(true));
    refused
        .map(|(item, context)| format!("item {item} in {context} was refused, or nobody sent it"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{append, done, history, item, kept, replace, unknown, window};
    use super::*;

    fn check_of(history: &History) -> Vec<String> {
        check(history, &Index::of(history))
    }

    #[test]
    fn a_repeated_append_with_the_same_answer_is_right() {
        let history = history(
            vec![
                append(0, 1, 2),
                append(50, 1, 2),
                window(70, 2, &[(1, item(1, 0))]),
            ],
            1,
        );
        assert_eq!(check_of(&history), [""; 0]);
    }

    #[test]
    fn another_answer_to_the_same_append_is_found() {
        let mut again = append(50, 1, 2);
        done(&mut again).appended.as_mut().unwrap().version = 3;
        let history = history(vec![append(0, 1, 2), again], 1);
        assert_eq!(check_of(&history).len(), 1);
    }

    #[test]
    fn an_item_at_two_seqs_is_found_in_reads_and_in_the_end() {
        let read = window(70, 3, &[(1, item(1, 0)), (2, item(1, 0))]);
        assert_eq!(check_of(&history(vec![append(0, 1, 2), read], 1)).len(), 1);
        let mut history = history(vec![append(0, 1, 2)], 1);
        kept(&mut history).items.insert(2, Some(item(1, 0)));
        assert_eq!(check_of(&history).len(), 1);
    }

    /// The same append known by its items' client ids instead of a key.
    fn named(mut operation: Operation) -> Operation {
        if let What::Append { key, items } = &mut operation.what {
            *key = None;
            for item in items {
                item.named = true;
            }
        }
        operation
    }

    /// An append, a replacement at seq 2, and the append again.
    fn replaced_between(first: Operation, again: Operation) -> History {
        let mut history = history(vec![first, replace(20, 2, 3), again], 2);
        kept(&mut history).items.remove(&1);
        history
    }

    #[test]
    fn an_append_that_is_stored_again_after_a_replacement_is_found() {
        let first = || named(append(0, 1, 2));
        let mut again = named(append(40, 1, 2));
        assert_eq!(check_of(&replaced_between(first(), again.clone())), [""; 0]);
        let answer = done(&mut again);
        answer.tag = Some(4);
        let appended = answer.appended.as_mut().unwrap();
        (appended.first_seq, appended.last_seq, appended.version) = (3, 3, 4);
        let found = check_of(&replaced_between(first(), again.clone()));
        assert_eq!(found.len(), 2, "another answer, and another seq: {found:?}");

        // Without an answer to the first try it may be the second one that did it, unless somebody saw the item before.
        let mut history = replaced_between(unknown(first()), again);
        assert_eq!(check_of(&history), [""; 0]);
        let seen = Item {
            named: true,
            ..item(1, 0)
        };
        history.operations.push(window(15, 2, &[(1, seen)]));
        assert_eq!(check_of(&history).len(), 1);
    }

    #[test]
    fn a_conflict_that_nobody_asked_for_and_a_refused_item_that_is_there_are_found() {
        let mut refused = append(0, 1, 2);
        refused.answer = Answer::Refused {
            status: 412,
            code: "version_mismatch".to_owned(),
        };
        assert_eq!(check_of(&history(vec![refused], 1)).len(), 2);
    }
}
