//! Histories made by hand, for the rules' own tests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chaos::history::{
    Answer, Appended, Demand, Done, Extent, History, Item, Kept, Name, Operation, Origin, Sight, What,
};

pub(super) fn name(text: &str) -> Name {
    text.into()
}

pub(super) fn item(append: u32, index: u8) -> Item {
    Item {
        tenant: 0,
        client: 1,
        append,
        index,
        named: false,
    }
}

/// An operation of tenant 0 on the context `c`, from `at` for 10 ms, answered by an empty good answer of the primary.
pub(super) fn operation(at: u64, what: What, demand: Demand) -> Operation {
    Operation {
        client: 1,
        node: 0,
        tenant: 0,
        began: Duration::from_millis(at),
        ended: Duration::from_millis(at + 10),
        context: name("c"),
        what,
        demand,
        floors: BTreeMap::new(),
        answer: Answer::Done(Done {
            origin: Some(Origin::Primary),
            ..Done::default()
        }),
    }
}

pub(super) fn done(operation: &mut Operation) -> &mut Done {
    match &mut operation.answer {
        Answer::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

/// An acknowledged append of one item, numbered as its seq.
pub(super) fn append(at: u64, seq: u64, version: u64) -> Operation {
    let items = vec![item(u32::try_from(seq).unwrap(), 0)];
    let mut operation = operation(
        at,
        What::Append {
            key: Some(format!("k{seq}")),
            items,
        },
        Demand::Session,
    );
    let answer = done(&mut operation);
    answer.tag = Some(version);
    answer.appended = Some(Appended {
        first_seq: seq,
        last_seq: seq,
        tokens: 5,
        version,
    });
    answer.sights.push(Sight::of(name("c"), Some(version)));
    operation
}

/// An acknowledged replacement by one item, numbered as its seq.
pub(super) fn replace(at: u64, seq: u64, version: u64) -> Operation {
    let mut operation = append(at, seq, version);
    if let What::Append { items, .. } = operation.what {
        operation.what = What::Replace { items };
    }
    operation
}

/// A head at a version, with as many items as fit: seqs 1 to version - 1.
pub(super) fn head(at: u64, version: u64, demand: Demand) -> Operation {
    let mut operation = operation(at, What::Head, demand);
    let answer = done(&mut operation);
    answer.tag = Some(version);
    let mut sight = Sight::of(name("c"), Some(version));
    sight.extent = Some(Extent {
        first_seq: 1,
        next_seq: version,
        items: version - 1,
    });
    answer.sights.push(sight);
    operation
}

/// A window at a version with these items.
pub(super) fn window(at: u64, version: u64, items: &[(u64, Item)]) -> Operation {
    let mut operation = operation(at, What::Window, Demand::Bare);
    let answer = done(&mut operation);
    answer.tag = Some(version);
    let mut sight = Sight::of(name("c"), Some(version));
    sight.items = items.iter().map(|(seq, item)| (*seq, Some(*item))).collect();
    answer.sights.push(sight);
    operation
}

pub(super) fn delete(at: u64, version: u64) -> Operation {
    let mut operation = operation(at, What::Delete, Demand::Session);
    done(&mut operation).tag = Some(version);
    operation
}

pub(super) fn unknown(mut operation: Operation) -> Operation {
    operation.answer = Answer::Unknown {
        status: 0,
        why: "reset".to_owned(),
    };
    operation
}

pub(super) fn not_found(mut operation: Operation) -> Operation {
    operation.answer = Answer::Refused {
        status: 404,
        code: "not_found".to_owned(),
    };
    operation
}

/// With `c` kept as appends 1 to `seqs` left it.
pub(super) fn history(operations: Vec<Operation>, seqs: u64) -> History {
    let items = (1..=seqs).map(|seq| (seq, Some(item(u32::try_from(seq).unwrap(), 0))));
    let kept = Kept {
        version: seqs + 1,
        deleted: false,
        extent: Extent {
            first_seq: 1,
            next_seq: seqs + 1,
            items: seqs,
        },
        items: items.collect(),
    };
    History {
        operations,
        untold: Vec::new(),
        kept: BTreeMap::from([((0, name("c")), kept)]),
    }
}

/// What is kept of `c`.
pub(super) fn kept(history: &mut History) -> &mut Kept {
    history.kept.get_mut(&(0, name("c"))).unwrap()
}
