//! G5: without a token an answer is at most the bound behind the last acknowledged change; a strong one is not behind
//! at all. Exactly: an answer to a request that began at `t` shows at least the highest version of the context that was
//! acknowledged to any client, and by the shared level, by `t - bound`; if it asked for `strong`, at least what was
//! acknowledged to any client by `t`. There is no allowance for measuring: both moments are taken by the same process on
//! the cautious side. Answers to `any` are not held to it (see G7).

use std::time::Duration;

use super::BOUND;
use super::index::{Index, before};
use crate::chaos::history::{Demand, History, Name, Operation};

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<String> {
    history
        .operations
        .iter()
        .flat_map(|operation| of(operation, index))
        .collect()
}

fn of(operation: &Operation, index: &Index<'_>) -> Vec<String> {
    let behind = match operation.demand {
        Demand::Strong => Duration::ZERO,
        Demand::Session | Demand::Bare | Demand::Bounded => BOUND,
        Demand::Any => return Vec::new(),
    };
    let (Some(by), false) = (before(operation.began, behind), operation.what.is_write()) else {
        return Vec::new();
    };
    let due = |context: &Name| {
        let writes = index.of_context(operation.tenant, context)?;
        // What may be deleted has versions of which nobody was told; G6 looks after it.
        let due = if operation.demand == Demand::Strong {
            writes.acknowledged(by)
        } else {
            writes.told(by)
        };
        (!writes.may_be_gone(operation.ended)).then_some(due)
    };
    let mut found = Vec::new();
    for sight in operation.done().into_iter().flat_map(|done| &done.sights) {
        let due = due(&sight.context).unwrap_or(0);
        if sight.version.is_some_and(|version| version < due) {
            found.push(format!("should have reached {due}: {operation}"));
        }
    }
    let single = operation.found_nothing().then_some(&operation.context);
    let batch = operation.done().into_iter().flat_map(|done| &done.absent);
    for context in single.into_iter().chain(batch) {
        if due(context).is_some_and(|due| due > 0) {
            found.push(format!("{context} was there and is not found: {operation}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::{append, delete, head, history, not_found};
    use super::*;

    fn check_of(operations: Vec<Operation>) -> usize {
        let history = history(operations, 2);
        check(&history, &Index::of(&history)).len()
    }

    // The append is acknowledged at 10 ms.
    fn read(at: u64, version: u64, demand: Demand) -> Vec<Operation> {
        vec![append(0, 1, 2), head(at, version, demand)]
    }

    #[test]
    fn what_is_behind_by_more_than_the_bound_is_found() {
        assert_eq!(check_of(read(309, 1, Demand::Bare)), 0);
        assert_eq!(check_of(read(310, 1, Demand::Bare)), 1);
        assert_eq!(check_of(read(310, 2, Demand::Bare)), 0);
        assert_eq!(check_of(read(310, 1, Demand::Bounded)), 1);
        assert_eq!(check_of(read(9000, 1, Demand::Any)), 0);
    }

    #[test]
    fn a_strong_answer_may_not_be_behind_at_all() {
        assert_eq!(check_of(read(9, 1, Demand::Strong)), 0);
        assert_eq!(check_of(read(10, 1, Demand::Strong)), 1);
    }

    #[test]
    fn a_context_that_is_not_found_long_after_it_was_made_is_found() {
        let missing = || not_found(head(400, 2, Demand::Bare));
        assert_eq!(check_of(vec![append(0, 1, 2), missing()]), 1);
        assert_eq!(check_of(vec![append(0, 1, 2), delete(50, 3), missing()]), 0);
    }
}
