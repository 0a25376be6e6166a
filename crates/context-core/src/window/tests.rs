use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::item::{Links, Role, Traits};
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
    let items = items(specs);
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
    let window = assemble(tail(specs, budget), budget).unwrap();
    window.items.iter().map(|item| item.seq).collect()
}

#[test]
fn everything_is_in_when_everything_fits() {
    let window = assemble(tail(&[system(), user(), assistant()], 30), 30).unwrap();
    assert_eq!((window.items.len(), window.tokens, window.omitted), (3, 30, None));
    assert!(window.reasons.contains(&Reason::Everything));
}

#[test]
fn an_empty_context_has_an_empty_window() {
    let window = assemble(tail(&[], 0), 0).unwrap();
    assert_eq!((window.items.len(), window.omitted), (0, None));
}

#[test]
fn the_cut_is_where_a_turn_begins() {
    let specs = [user(), assistant(), user(), assistant(), assistant()];
    // 40 tokens would hold the last four items, but the second one is inside a turn.
    assert_eq!(seqs(&specs, 40), [3, 4, 5]);
    let window = assemble(tail(&specs, 40), 40).unwrap();
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
        assemble(tail(&one_turn, 50), 50).unwrap().reasons[0],
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
    let refused = assemble(tail(&specs, 20), 20).unwrap_err();
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
    let Err(Error::BudgetTooSmall { minimum, .. }) = assemble(tail(&specs, u64::MAX), 30) else {
        panic!("fits?")
    };
    assert_eq!(minimum, 60);
    assert_eq!(seqs(&specs, minimum), [1, 3]);
}

#[test]
fn the_prefix_hash_says_whether_the_prefix_is_the_same() {
    let hash = |count: usize| {
        assemble(tail(&vec![user(); count], u64::MAX), u64::MAX)
            .unwrap()
            .prefix_hash
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
    let moved = assemble(tail(&vec![user(); 4], 30), 30).unwrap().prefix_hash;
    assert_ne!(moved, hash(3), "the cut moved");
}

fn any_spec() -> impl Strategy<Value = Spec> {
    const IDS: [&str; 4] = ["a", "b", "c", "d"];
    let id = || prop::sample::select(&IDS[..]);
    let kind = prop_oneof![
        4 => Just(user()),
        3 => Just(assistant()),
        1 => Just(system()),
        1 => Just(Spec { pinned: true, ..user() }),
        3 => prop::collection::vec(id(), 1..3).prop_map(|ids| calls(&ids)),
        4 => id().prop_map(result),
        1 => Just(reasoning()),
    ];
    (kind, 1..40u32).prop_map(|(spec, tokens)| Spec { tokens, ..spec })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn windows_keep_their_rules(specs in prop::collection::vec(any_spec(), 0..40), budget in 0..600u64) {
        let all = items(&specs);
        let total: u64 = all.iter().map(|item| u64::from(item.tokens)).sum();
        match assemble(tail(&specs, budget), budget) {
            Err(Error::BudgetTooSmall { minimum, .. }) => {
                prop_assert!(minimum > budget);
                prop_assert!(total > budget, "everything would have fitted");
            }
            Err(other) => prop_assert!(false, "{other}"),
            Ok(window) => {
                prop_assert!(window.tokens <= budget, "W4");
                prop_assert!(window.items.windows(2).all(|pair| pair[0].seq < pair[1].seq), "W5");
                let inside: HashSet<Seq> = window.items.iter().map(|item| item.seq).collect();
                for item in all.iter().filter(|item| item.traits.always_kept()) {
                    prop_assert!(inside.contains(&item.seq), "W1: {}", item.seq);
                }
                if window.omitted.is_some() {
                    check_pairs(&all, &inside)?;
                }
                let omitted = window.omitted.map_or((0, 0), |omitted| (omitted.items, omitted.tokens));
                prop_assert_eq!(omitted.0, (all.len() - inside.len()) as u64);
                prop_assert_eq!(omitted.1, total - window.tokens);
            }
        }
    }

    #[test]
    fn a_larger_budget_never_shows_less(specs in prop::collection::vec(any_spec(), 0..30), budget in 0..400u64) {
        if let (Ok(small), Ok(large)) = (assemble(tail(&specs, budget), budget), assemble(tail(&specs, budget + 50), budget + 50)) {
            // A turn boundary may come within reach and replace a cut inside the turn, which never shortens the run.
            prop_assert!(large.items.len() >= small.items.len());
        }
    }
}

/// W3, by a definition of its own: within a cut window each result follows its call, and each call that is in has
/// all of its results that came later.
fn check_pairs(all: &[Item], inside: &HashSet<Seq>) -> Result<(), TestCaseError> {
    for (index, item) in all.iter().enumerate() {
        for id in &item.traits.links.results {
            // The latest call of this id before the result.
            let call = all[..index]
                .iter()
                .rev()
                .find(|other| other.traits.links.calls.contains(id));
            match call {
                Some(call) if inside.contains(&item.seq) => {
                    prop_assert!(
                        inside.contains(&call.seq),
                        "result {} without call {}",
                        item.seq,
                        call.seq
                    );
                }
                Some(call) if inside.contains(&call.seq) => {
                    prop_assert!(
                        inside.contains(&item.seq),
                        "call {} without result {}",
                        call.seq,
                        item.seq
                    );
                }
                _ => {}
            }
        }
    }
    Ok(())
}
