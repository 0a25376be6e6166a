//! G3: every reader sees the same items at the same seqs, without gaps, and a version is one state.

use std::collections::HashMap;

use super::index::Index;
use crate::chaos::history::{Extent, History, Item, Kept, Name, Operation, Sight, What};

/// What a version of a context is known to be.
type States<'a> = HashMap<(u8, &'a Name, u64), (Extent, &'a Operation)>;
type Places<'a> = HashMap<(u8, &'a Name, u64), Option<Item>>;

pub(super) fn check(history: &History, _: &Index<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut states = States::new();
    let mut places = Places::new();
    for ((tenant, context), kept) in &history.kept {
        found.extend(gaps(context, kept));
        places.extend(
            kept.items
                .iter()
                .map(|(seq, item)| ((*tenant, context, *seq), *item)),
        );
    }
    for operation in &history.operations {
        for sight in sights(operation) {
            found.extend(state(operation, sight, &mut states));
            found.extend(place(operation, sight, &mut places));
        }
    }
    for operation in &history.operations {
        found.extend(sights(operation).filter_map(|sight| reach(operation, sight, &states)));
        found.extend(acknowledged(operation, &states));
    }
    found
}

fn sights(operation: &Operation) -> impl Iterator<Item = &Sight> {
    operation.done().into_iter().flat_map(|done| &done.sights)
}

/// Two answers with one version say the same of the context.
fn state<'a>(operation: &'a Operation, sight: &'a Sight, states: &mut States<'a>) -> Option<String> {
    let (version, extent) = (sight.version?, sight.extent?);
    let (known, by) = *states
        .entry((operation.tenant, &sight.context, version))
        .or_insert((extent, operation));
    (known != extent).then(|| format!("version {version} is {known:?} and {extent:?}: {by} and {operation}"))
}

/// The same item at a seq for everybody, for good; and items of one answer in order, none of them strange.
fn place<'a>(operation: &'a Operation, sight: &'a Sight, places: &mut Places<'a>) -> Vec<String> {
    let mut found = Vec::new();
    for (seq, item) in &sight.items {
        let known = *places
            .entry((operation.tenant, &sight.context, *seq))
            .or_insert(*item);
        if known != *item || item.is_none() {
            found.push(format!("seq {seq} is {known:?} and {item:?}: {operation}"));
        }
    }
    let seqs: Vec<u64> = sight.items.iter().map(|(seq, _)| *seq).collect();
    let falling = operation.what == What::Items;
    if !seqs.windows(2).all(|pair| {
        if falling {
            pair[0] > pair[1]
        } else {
            pair[0] < pair[1]
        }
    }) {
        found.push(format!("items out of order: {operation}"));
    }
    found
}

/// Windows and newest pages reach exactly to the end of their version.
fn reach(operation: &Operation, sight: &Sight, states: &States<'_>) -> Option<String> {
    if !matches!(operation.what, What::Window | What::Items) {
        return None;
    }
    let (extent, _) = states.get(&(operation.tenant, &sight.context, sight.version?))?;
    let newest = sight.items.iter().map(|(seq, _)| seq).max();
    let oldest = sight
        .items
        .iter()
        .map(|(seq, _)| *seq)
        .min()
        .unwrap_or(extent.first_seq);
    let reaches = match newest {
        Some(newest) => newest + 1 == extent.next_seq,
        None => extent.items == 0,
    };
    (!reaches || oldest < extent.first_seq).then(|| format!("not the items of {extent:?}: {operation}"))
}

/// An append's version ends with its items.
fn acknowledged(operation: &Operation, states: &States<'_>) -> Option<String> {
    let appended = operation.done()?.appended?;
    let (extent, by) = states.get(&(operation.tenant, &operation.context, appended.version))?;
    (extent.next_seq != appended.last_seq + 1).then(|| format!("{operation} against {by}"))
}

/// The database has no gaps but those that truncations made, which the count tells.
fn gaps(context: &Name, kept: &Kept) -> Option<String> {
    if kept.deleted {
        return None;
    }
    let Extent {
        first_seq,
        next_seq,
        items,
    } = kept.extent;
    let inside = kept.items.keys().all(|seq| (first_seq..next_seq).contains(seq));
    let whole = !context.starts_with("log-") || (first_seq == 1 && items + 1 == next_seq);
    let strange = kept.items.values().any(Option::is_none);
    let right = inside && whole && !strange && kept.items.len() as u64 == items;
    (!right).then(|| {
        format!(
            "{context} has {} items and says {:?}",
            kept.items.len(),
            kept.extent
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{append, done, head, history, item, kept, window};
    use super::*;
    use crate::chaos::history::Demand;

    fn check_of(history: &History) -> Vec<String> {
        check(history, &Index::of(history))
    }

    fn both() -> [(u64, Item); 2] {
        [(1, item(1, 0)), (2, item(2, 0))]
    }

    #[test]
    fn reads_that_agree_are_right() {
        let operations = vec![
            append(0, 1, 2),
            append(20, 2, 3),
            head(40, 3, Demand::Bare),
            window(50, 3, &both()),
        ];
        assert_eq!(check_of(&history(operations, 2)), [""; 0]);
    }

    #[test]
    fn another_item_at_a_seq_is_found() {
        let operations = vec![window(50, 3, &[(1, item(2, 0))])];
        assert_eq!(check_of(&history(operations, 2)).len(), 1);
        let mut strange = window(50, 3, &both());
        done(&mut strange).sights[0].items[1].1 = None;
        assert_eq!(check_of(&history(vec![strange], 2)).len(), 1);
    }

    #[test]
    fn two_states_of_one_version_are_found() {
        let mut other = head(60, 3, Demand::Bare);
        done(&mut other).sights[0].extent.as_mut().unwrap().items = 7;
        assert_eq!(
            check_of(&history(vec![head(40, 3, Demand::Bare), other], 2)).len(),
            1
        );
    }

    #[test]
    fn items_of_another_version_and_items_out_of_order_are_found() {
        let torn = window(50, 3, &both()[..1]);
        assert_eq!(
            check_of(&history(vec![head(40, 3, Demand::Bare), torn], 2)).len(),
            1
        );
        let mut turned = both();
        turned.reverse();
        assert_eq!(check_of(&history(vec![window(50, 3, &turned)], 2)).len(), 1);
        let late = append(0, 1, 3);
        assert_eq!(
            check_of(&history(vec![late, head(40, 3, Demand::Bare)], 2)).len(),
            1
        );
    }

    #[test]
    fn a_gap_in_the_database_is_found() {
        let mut history = history(vec![], 3);
        kept(&mut history).items.remove(&2);
        assert_eq!(check_of(&history).len(), 1);
    }
}
