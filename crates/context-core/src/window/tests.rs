mod formats;
mod properties;
mod summarised;

use std::sync::Arc;

use super::*;
use crate::error::Error;
use crate::item::{Kind, Links, Role, Traits};
use crate::{NewContext, Timestamp, Tokenizer};

/// One item in short: who, calls, results, tokens, pinned.
#[derive(Clone, Debug)]
struct Spec {
    role: Role,
    kind: Kind,
    calls: Vec<&'static str>,
    results: Vec<&'static str>,
    tokens: u32,
    pinned: bool,
}

fn spec(role: Role) -> Spec {
    let kind = if role == Role::Tool {
        Kind::ToolResult
    } else {
        Kind::Message
    };
    Spec {
        role,
        kind,
        calls: vec![],
        results: vec![],
        tokens: 10,
        pinned: false,
    }
}

fn user() -> Spec {
    spec(Role::User)
}

fn assistant() -> Spec {
    spec(Role::Assistant)
}

fn system() -> Spec {
    spec(Role::System)
}

fn calls(ids: &[&'static str]) -> Spec {
    Spec {
        calls: ids.to_vec(),
        ..assistant()
    }
}

fn result(id: &'static str) -> Spec {
    Spec {
        results: vec![id],
        ..spec(Role::Tool)
    }
}

fn reasoning() -> Spec {
    Spec {
        kind: Kind::Reasoning,
        ..assistant()
    }
}

fn items(specs: &[Spec]) -> Vec<Item> {
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    specs
        .iter()
        .zip(1..)
        .map(|(spec, seq)| Item {
            seq,
            tokens: spec.tokens,
            created_at: Timestamp::default(),
            traits: Traits {
                role: spec.role,
                kind: spec.kind,
                links: Links {
                    calls: owned(&spec.calls),
                    results: owned(&spec.results),
                },
                client_id: None,
                pinned: spec.pinned,
                importance: None,
            },
            body: Arc::from(format!("{{\"n\":{seq}}}")),
        })
        .collect()
}

/// What a store reads for this budget; `store_contract` says that they all do.
fn tail(specs: &[Spec], budget: u64) -> Tail {
    tail_of(&items(specs), budget)
}

fn tail_of(items: &[Item], budget: u64) -> Tail {
    let id = crate::ContextId::parse("w").unwrap();
    let new = NewContext {
        tokenizer: Some(Tokenizer::Estimate),
        ..NewContext::of_agent("a")
    };
    let mut context = new.into_context(id, Timestamp::default());
    context.next_seq = items.len() as u64 + 1;
    context.item_count = items.len() as u64;
    context.tokens = items.iter().map(|item| u64::from(item.tokens)).sum();
    let mut sum = 0;
    let fits = |item: &&Item| {
        sum += u64::from(item.tokens);
        sum <= budget
    };
    let taken = items.iter().rev().take_while(fits).count();
    let (older, run) = items.split_at(items.len() - taken);
    let kept = older
        .iter()
        .filter(|item| item.traits.always_kept())
        .cloned()
        .collect();
    Tail {
        context,
        kept,
        run: run.to_vec(),
        before: older.last().map(|item| item.traits.kind),
    }
}

fn seqs(specs: &[Spec], budget: u64) -> Vec<Seq> {
    let window = assemble(tail(specs, budget), budget, Cut::Tight).unwrap();
    window.items.iter().map(|item| item.seq).collect()
}

#[test]
fn everything_is_in_when_everything_fits() {
    let window = assemble(tail(&[system(), user(), assistant()], 30), 30, Cut::Tight).unwrap();
    assert_eq!((window.items.len(), window.tokens, window.omitted), (3, 30, None));
    assert!(window.reasons.contains(&Reason::Everything));
}

#[test]
fn an_empty_context_has_an_empty_window() {
    let window = assemble(tail(&[], 0), 0, Cut::Tight).unwrap();
    assert_eq!((window.items.len(), window.omitted), (0, None));
}

#[test]
fn the_cut_is_where_a_turn_begins() {
    let specs = [user(), assistant(), user(), assistant(), assistant()];
    // 40 tokens would hold the last four items, but the second one is inside a turn.
    assert_eq!(seqs(&specs, 40), [3, 4, 5]);
    let window = assemble(tail(&specs, 40), 40, Cut::Tight).unwrap();
    assert_eq!(
        window.omitted,
        Some(Omitted {
            first_seq: 1,
            last_seq: 2,
            items: 2,
            tokens: 20
        })
    );
    assert_eq!(window.reasons[0], Reason::CutAtTurn);
}

#[test]
fn instructions_and_pinned_items_stay() {
    let pinned = Spec {
        pinned: true,
        ..user()
    };
    let specs = [
        system(),
        user(),
        assistant(),
        pinned,
        assistant(),
        user(),
        assistant(),
    ];
    assert_eq!(seqs(&specs, 45), [1, 4, 6, 7]);
}

#[test]
fn a_call_is_in_with_all_its_results_or_not_at_all() {
    let specs = [
        user(),
        calls(&["a", "b"]),
        result("a"),
        result("b"),
        user(),
        assistant(),
    ];
    assert_eq!(seqs(&specs, 50), [5, 6]);
    let one_turn = [
        user(),
        calls(&["a", "b"]),
        result("a"),
        result("b"),
        calls(&["c"]),
        result("c"),
        assistant(),
    ];
    // Not even the newest turn fits: the cut is at a step inside it, never between a call and its results.
    assert_eq!(seqs(&one_turn, 60), [2, 3, 4, 5, 6, 7]);
    assert_eq!(seqs(&one_turn, 50), [5, 6, 7]);
    assert_eq!(seqs(&one_turn, 20), [7]);
    assert_eq!(
        assemble(tail(&one_turn, 50), 50, Cut::Tight).unwrap().reasons[0],
        Reason::CutInsideTurn
    );
}

#[test]
fn calls_that_interleave_stay_together() {
    let specs = [
        user(),
        calls(&["a"]),
        calls(&["b"]),
        result("a"),
        result("b"),
        assistant(),
    ];
    assert_eq!(seqs(&specs, 40), [6]);
    assert_eq!(seqs(&specs, 50), [2, 3, 4, 5, 6]);
}

#[test]
fn reasoning_stays_with_what_follows_it() {
    let specs = [user(), assistant(), reasoning(), calls(&["a"]), result("a")];
    assert_eq!(seqs(&specs, 30), [3, 4, 5]);
    let refused = assemble(tail(&specs, 20), 20, Cut::Tight).unwrap_err();
    assert!(
        matches!(refused, Error::BudgetTooSmall { budget: 20, .. }),
        "{refused}"
    );
}

#[test]
fn a_result_without_its_call_is_not_in_a_cut_window() {
    let specs = [user(), assistant(), user(), result("nobody"), user(), assistant()];
    assert_eq!(seqs(&specs, 40), [5, 6]);
    assert_eq!(
        seqs(&specs, 60),
        [1, 2, 3, 4, 5, 6],
        "what the client sent whole comes back whole"
    );
}

#[test]
fn a_budget_that_is_too_small_says_what_works() {
    let specs = [
        system(),
        user(),
        Spec {
            tokens: 50,
            ..assistant()
        },
    ];
    let Err(Error::BudgetTooSmall { minimum, .. }) = assemble(tail(&specs, u64::MAX), 30, Cut::Tight) else {
        panic!("fits?")
    };
    assert_eq!(minimum, 60);
    assert_eq!(seqs(&specs, minimum), [1, 3]);
}

#[test]
fn the_prefix_hash_names_the_beginning() {
    let window = |count: usize, budget: u64| {
        let window = assemble(tail(&vec![user(); count], budget), budget, Cut::Tight).unwrap();
        (window.prefix_hash, window.cut_seq.unwrap())
    };
    assert_eq!(
        window(3, 1000),
        window(4, 1000),
        "the older one is a prefix of the newer one"
    );
    assert_ne!(window(4, 30), window(4, 1000), "the cut moved");
    // Something between the beginning and the end was truncated away.
    let mut holed = tail(&vec![user(); 4], 1000);
    holed.run.remove(2);
    holed.context.item_count = 3;
    holed.context.tokens = 30;
    let holed = assemble(holed, 1000, Cut::Tight).unwrap();
    assert_eq!(holed.cut_seq, Some(1));
    assert_ne!(holed.prefix_hash, window(4, 1000).0);
}

#[test]
fn breakpoints_are_where_a_prompt_goes_on() {
    let breakpoints = |specs: &[Spec]| {
        let window = assemble(tail(specs, 1000), 1000, Cut::Sticky).unwrap();
        window.cache_breakpoints
    };
    assert_eq!(breakpoints(&[]), Vec::<Seq>::new());
    assert_eq!(breakpoints(&[system(), user()]), [1, 2]);
    let pinned = Spec {
        pinned: true,
        ..user()
    };
    let turn = [
        system(),
        pinned,
        user(),
        assistant(),
        user(),
        calls(&["a", "b"]),
        result("a"),
    ];
    assert_eq!(breakpoints(&turn), [1, 2, 4, 5], "not behind the open call");
    let mut closed = turn.to_vec();
    closed.push(result("b"));
    assert_eq!(breakpoints(&closed), [1, 2, 4, 8]);
}

#[test]
fn a_sticky_cut_stays_until_the_next_line_and_then_jumps() {
    // Turns of 20 tokens; half of 380 holds a step of 128.
    let cut = |count: usize, cut: Cut| {
        let window = assemble(tail(&turns(count), 380), 380, cut).unwrap();
        (window.cut_seq.unwrap(), window.reasons.contains(&Reason::CutKept))
    };
    assert_eq!(cut(19, Cut::Sticky), (1, false), "380 tokens fit");
    // From 381 to 508 tokens the line is at 128, and the first turn behind it begins at 140.
    for count in 20..=25 {
        assert_eq!(cut(count, Cut::Sticky), (15, true), "{count}");
    }
    assert_eq!(
        cut(26, Cut::Sticky),
        (27, true),
        "the line is at 256, the turn behind it begins at 260"
    );
    assert_eq!(cut(20, Cut::Tight), (3, false));
    assert_eq!(cut(21, Cut::Tight), (5, false));
}

fn turns(count: usize) -> Vec<Spec> {
    (0..count).flat_map(|_| [user(), assistant()]).collect()
}

#[test]
fn a_long_turn_is_cut_at_a_step_and_stays_when_the_user_speaks_again() {
    let mut specs = vec![user()];
    for id in [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o",
    ] {
        specs.push(calls(&[id]));
        specs.push(result(id));
    }
    let at_work = assemble(tail(&specs, 180), 180, Cut::Sticky).unwrap();
    assert_eq!(at_work.reasons[0], Reason::CutInsideTurn);
    specs.push(user());
    let asked_again = assemble(tail(&specs, 180), 180, Cut::Sticky).unwrap();
    assert_eq!(asked_again.cut_seq, at_work.cut_seq);
    assert_eq!(asked_again.prefix_hash, at_work.prefix_hash);
    let tight = assemble(tail(&specs, 180), 180, Cut::Tight).unwrap();
    assert_eq!(
        tight.items.len(),
        1,
        "a tight window begins where a turn begins, whatever that costs"
    );
}

#[test]
fn what_is_always_kept_counts_against_the_budget() {
    let mut specs = vec![Spec {
        tokens: 100,
        ..system()
    }];
    specs.extend(turns(30));
    let window = assemble(tail(&specs, 200), 200, Cut::Sticky).unwrap();
    assert_eq!(window.items[0].seq, 1);
    assert!(window.tokens <= 200);
    // What is left is 100, so a step is 32.
    assert!(window.tokens > 100 + 100 - 32 - 20, "{}", window.tokens);
}
