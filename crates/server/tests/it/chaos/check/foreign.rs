//! G8: nobody is shown another tenant's data. Both tenants use the same ids for some contexts, and every item spells out
//! whose it is.

use super::index::Index;
use crate::chaos::history::{Answer, History, Operation, Sight, TENANTS, What};

pub(super) fn check(history: &History, _: &Index<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for operation in &history.operations {
        if operation.what == What::Foreign && !turned_away(&operation.answer) {
            found.push(format!("answered with something else than 404: {operation}"));
        }
        let sights = operation.done().into_iter().flat_map(|done| &done.sights);
        found.extend(
            sights
                .filter(|sight| is_foreign(operation, sight))
                .map(|_| operation.to_string()),
        );
    }
    found
}

fn turned_away(answer: &Answer) -> bool {
    match answer {
        Answer::Refused { status, .. } => *status == 404,
        Answer::Unknown { .. } => true,
        Answer::Done(_) => false,
    }
}

fn is_foreign(operation: &Operation, sight: &Sight) -> bool {
    let theirs = TENANTS
        .iter()
        .enumerate()
        .filter(|(tenant, _)| *tenant != usize::from(operation.tenant));
    let named = theirs
        .map(|(_, name)| name)
        .any(|name| sight.context.split('-').next() == Some(name));
    named
        || sight
            .items
            .iter()
            .flat_map(|(_, item)| item)
            .any(|item| item.tenant != operation.tenant)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{head, history, item, name, not_found, window};
    use super::*;
    use crate::chaos::history::{Demand, Item};

    fn check_of(operation: Operation) -> usize {
        let history = history(vec![operation], 2);
        check(&history, &Index::of(&history)).len()
    }

    #[test]
    fn anothers_item_and_anothers_context_are_found() {
        assert_eq!(check_of(window(0, 2, &[(1, item(1, 0))])), 0);
        let theirs = Item {
            tenant: 1,
            ..item(1, 0)
        };
        assert_eq!(check_of(window(0, 2, &[(1, theirs)])), 1);
        let mut listed = head(0, 2, Demand::Bare);
        if let Answer::Done(done) = &mut listed.answer {
            done.sights[0].context = name("other-made-1-1");
        }
        assert_eq!(check_of(listed), 1);
    }

    #[test]
    fn a_probe_that_is_not_turned_away_is_found() {
        let mut probe = head(0, 2, Demand::Bare);
        probe.what = What::Foreign;
        assert_eq!(check_of(not_found(probe.clone())), 0);
        assert_eq!(check_of(probe), 1);
    }
}
