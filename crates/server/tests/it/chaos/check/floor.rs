//! G4: with its token a client never reads what is older than what it has seen, on any node.

use super::index::Index;
use crate::chaos::history::{Answer, Demand, History, Name, Operation};

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<String> {
    history
        .operations
        .iter()
        .flat_map(|operation| of(operation, history, index))
        .collect()
}

/// Operations of the same client that are shown with one that was below its floor: they made its token.
const BEFORE: usize = 12;

fn of(operation: &Operation, history: &History, index: &Index<'_>) -> Vec<String> {
    let mut found = Vec::new();
    match &operation.answer {
        Answer::Done(done) if !operation.what.is_write() => {
            for sight in &done.sights {
                let floor = operation.floors.get(&sight.context).copied().unwrap_or(0);
                if sight.version.is_some_and(|version| version < floor) {
                    let before = before(operation, &sight.context, history);
                    found.push(format!("below {floor}: {operation}\n    before it: {before}"));
                }
            }
            found.extend(
                done.absent
                    .iter()
                    .filter_map(|context| vanished(operation, context, index)),
            );
        }
        Answer::Refused { code, .. } if code == "session_lost" => {
            found.push(format!("what was seen is lost: {operation}"));
        }
        Answer::Refused { status: 404, .. } => found.extend(vanished(operation, &operation.context, index)),
        _ => {}
    }
    found
}

/// What the client had been answered with its token, and which version of the context that showed.
fn before(operation: &Operation, context: &Name, history: &History) -> String {
    let same = |other: &&Operation| {
        other.client == operation.client && other.ended <= operation.began && other.demand != Demand::Bare
    };
    let mut last: Vec<&Operation> = history.operations.iter().filter(same).collect();
    last.sort_by_key(|other| std::cmp::Reverse(other.ended));
    let shown = |other: &Operation| {
        let sights = other.done().into_iter().flat_map(|done| &done.sights);
        let version = sights
            .filter(|sight| sight.context == *context)
            .find_map(|sight| sight.version);
        let (what, at) = (other.what.as_str(), other.ended.as_secs_f64());
        format!(
            "{what} {} {:?} {at:.3}s showed {version:?}",
            other.context, other.demand
        )
    };
    let shown: Vec<String> = last.into_iter().take(BEFORE).map(shown).collect();
    shown.join("; ")
}

/// A context that was seen is not there, and nobody has deleted it.
fn vanished(operation: &Operation, context: &Name, index: &Index<'_>) -> Option<String> {
    operation.floors.get(context)?;
    let writes = index.of_context(operation.tenant, context);
    let may_be_gone = writes.is_some_and(|writes| writes.may_be_gone(operation.ended));
    (!may_be_gone).then(|| format!("seen before and not there: {operation}"))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{delete, head, history, name, not_found, unknown};
    use super::*;

    fn check_of(operations: Vec<Operation>) -> usize {
        let history = history(operations, 2);
        check(&history, &Index::of(&history)).len()
    }

    fn seen(mut operation: Operation, floor: u64) -> Operation {
        operation.floors.insert(name("c"), floor);
        operation
    }

    #[test]
    fn an_answer_below_the_floor_is_found() {
        assert_eq!(check_of(vec![seen(head(0, 3, Demand::Session), 3)]), 0);
        assert_eq!(check_of(vec![seen(head(0, 3, Demand::Session), 4)]), 1);
        assert_eq!(check_of(vec![head(0, 3, Demand::Session)]), 0);
    }

    #[test]
    fn what_made_the_token_is_told_with_it() {
        let history = history(
            vec![
                head(0, 4, Demand::Session),
                head(20, 3, Demand::Any),
                head(40, 7, Demand::Bare),
                seen(head(60, 3, Demand::Session), 4),
                head(80, 5, Demand::Session),
            ],
            2,
        );
        let found = check(&history, &Index::of(&history));
        let [found] = &found[..] else { panic!("{found:?}") };
        let (_, before) = found.split_once("before it: ").unwrap();
        assert_eq!(
            before,
            "head c Any 0.030s showed Some(3); head c Session 0.010s showed Some(4)"
        );
    }

    #[test]
    fn a_context_that_vanishes_is_found_unless_somebody_may_have_deleted_it() {
        let gone = || seen(not_found(head(50, 3, Demand::Session)), 3);
        assert_eq!(check_of(vec![gone()]), 1);
        assert_eq!(check_of(vec![unknown(delete(20, 4)), gone()]), 0);
        assert_eq!(check_of(vec![gone(), delete(80, 4)]), 1);
    }

    #[test]
    fn a_lost_session_is_found() {
        let mut lost = head(0, 3, Demand::Session);
        lost.answer = Answer::Refused {
            status: 409,
            code: "session_lost".to_owned(),
        };
        assert_eq!(check_of(vec![lost]), 1);
    }
}
