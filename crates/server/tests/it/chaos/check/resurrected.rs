//! G6: what was deleted, truncated or replaced does not come back: not in the process' memory, not in Redis, not from a
//! replica.

use super::BOUND;
use super::index::{Index, Writes, before};
use super::lost::drops;
use crate::chaos::history::{Demand, History, Operation, Sight};

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for operation in history
        .operations
        .iter()
        .filter(|operation| !operation.what.is_write())
    {
        for sight in operation.done().into_iter().flat_map(|done| &done.sights) {
            let Some(writes) = index.of_context(operation.tenant, &sight.context) else {
                continue;
            };
            found.extend(deleted(operation, sight, writes, index));
            found.extend(dropped(operation, sight, writes));
        }
    }
    found
}

/// A deleted context is not shown: at once to `strong`, within the bound to all but `any`, whose staleness G7 checks.
fn deleted(operation: &Operation, sight: &Sight, writes: &Writes<'_>, index: &Index<'_>) -> Option<String> {
    let (delete, tombstone) = writes.gone()?;
    let over = match operation.demand {
        Demand::Any => return None,
        Demand::Strong => operation.began >= delete.ended,
        _ => before(operation.began, BOUND) >= Some(index.told(delete)?),
    };
    let shown = sight.version.is_none_or(|version| version < tombstone);
    (over && shown).then(|| format!("{} was deleted at {tombstone}: {operation}", sight.context))
}

/// An answer of the version of a truncation or later has nothing of what that dropped.
fn dropped(operation: &Operation, sight: &Sight, writes: &Writes<'_>) -> Option<String> {
    let version = sight.version?;
    let back = |seq: u64| {
        writes.shrinks.iter().any(|(shrink, done)| {
            done.is_some_and(|done| done.tag.is_some_and(|tag| version >= tag) && drops(shrink, done, seq))
        })
    };
    let seq = sight.items.iter().map(|(seq, _)| *seq).find(|seq| back(*seq))?;
    Some(format!("seq {seq} of {} was dropped: {operation}", sight.context))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{append, delete, done, head, history, item, operation, window};
    use super::*;
    use crate::chaos::history::What;

    fn check_of(operations: Vec<Operation>) -> usize {
        let history = history(operations, 2);
        check(&history, &Index::of(&history)).len()
    }

    // The delete is acknowledged at 30 ms.
    fn read(at: u64, demand: Demand) -> usize {
        check_of(vec![append(0, 1, 2), delete(20, 3), head(at, 2, demand)])
    }

    #[test]
    fn a_deleted_context_that_is_shown_is_found() {
        assert_eq!((read(329, Demand::Bare), read(330, Demand::Bare)), (0, 1));
        assert_eq!((read(29, Demand::Strong), read(30, Demand::Strong)), (0, 1));
        assert_eq!(read(900, Demand::Any), 0);
    }

    #[test]
    fn an_item_that_was_truncated_and_is_shown_is_found() {
        let mut truncation = operation(40, What::Truncate, Demand::Session);
        done(&mut truncation).tag = Some(4);
        done(&mut truncation).dropped = vec![(1, 1)];
        let before = window(60, 3, &[(1, item(1, 0)), (2, item(2, 0))]);
        let after = window(60, 4, &[(1, item(1, 0)), (2, item(2, 0))]);
        assert_eq!(check_of(vec![truncation.clone(), before]), 0);
        assert_eq!(check_of(vec![truncation, after]), 1);
    }
}
