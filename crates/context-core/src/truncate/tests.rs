use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Generated;

use super::*;
use crate::item::{Kind, Links, NewItem, Role, Traits};
use crate::{Timestamp, Tokenizer};

fn item(seq: Seq, body: &str) -> Item {
    let mut new = NewItem::parse(body, 1 << 20).unwrap();
    new.count(Tokenizer::Estimate);
    Item {
        seq,
        tokens: 10,
        created_at: Timestamp::from_micros(0),
        traits: new.traits,
        body: Arc::from(body),
    }
}

fn items(bodies: &[&str]) -> Vec<Item> {
    bodies
        .iter()
        .zip(1..)
        .map(|(body, seq)| item(seq, body))
        .collect()
}

fn kept(plan: &Plan) -> Vec<Seq> {
    plan.keep
        .iter()
        .flat_map(|range| range.first..=range.last)
        .collect()
}

const SYSTEM: &str = r#"{"role":"system","content":"be kind"}"#;
const ASK: &str = r#"{"role":"user","content":"book the flight to Oslo"}"#;
const SAY: &str = r#"{"role":"assistant","content":"which day?"}"#;
const CALL: &str = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"find","arguments":"{}"}}]}"#;
const RESULT: &str = r#"{"role":"tool","tool_call_id":"c","content":"three flights"}"#;
const THANKS: &str = r#"{"role":"user","content":"thank you"}"#;
const BYE: &str = r#"{"role":"assistant","content":"you are welcome"}"#;

/// system, ask, say, ask, call, result, thanks, bye.
fn conversation() -> Vec<Item> {
    items(&[SYSTEM, ASK, SAY, ASK, CALL, RESULT, THANKS, BYE])
}

#[test]
fn each_strategy_has_its_own_order() {
    let items = conversation();
    let left = |strategy, max_tokens| kept(&plan(&items, max_tokens, strategy, None).unwrap());
    assert_eq!(left(Strategy::OldestFirst, 60), [1, 4, 5, 6, 7, 8]);
    assert_eq!(
        left(Strategy::PreservingUser, 60),
        [1, 2, 4, 7, 8],
        "the exchange is one"
    );
    assert_eq!(left(Strategy::PreservingUser, 50), [1, 2, 4, 7, 8]);
    assert_eq!(left(Strategy::PreservingUser, 40), [1, 4, 7, 8]);
    assert_eq!(left(Strategy::ToolResultsFirst, 70), [1, 2, 3, 4, 7, 8]);
    assert_eq!(left(Strategy::ToolResultsFirst, 50), [1, 3, 4, 7, 8]);
}

#[test]
fn the_least_important_go_first_and_nothing_said_is_in_the_middle() {
    let items = items(&[
        r#"{"role":"assistant","content":"a","importance":0.9}"#,
        r#"{"role":"assistant","content":"b"}"#,
        r#"{"role":"assistant","content":"c","importance":0.1}"#,
        r#"{"role":"assistant","content":"d","importance":0.5}"#,
        THANKS,
    ]);
    let left = |max_tokens| kept(&plan(&items, max_tokens, Strategy::Importance, None).unwrap());
    assert_eq!(left(40), [1, 2, 4, 5]);
    assert_eq!(left(30), [1, 4, 5]);
    assert_eq!(left(20), [1, 5]);
}

#[test]
fn what_has_least_to_do_with_the_query_goes_first() {
    let items = items(&[
        r#"{"role":"assistant","content":"the weather in Rome is fine"}"#,
        r#"{"role":"assistant","content":"the flight to Oslo leaves at nine"}"#,
        r#"{"role":"assistant","content":"Rome again, at length, for no reason"}"#,
        r#"{"role":"assistant","content":"Oslo"}"#,
        THANKS,
    ]);
    let wanted = Wanted::parse("flight, Oslo!").unwrap();
    let left = |max_tokens| kept(&plan(&items, max_tokens, Strategy::Relevance, Some(&wanted)).unwrap());
    assert_eq!(left(40), [2, 3, 4, 5]);
    assert_eq!(left(30), [2, 4, 5]);
    assert_eq!(left(20), [2, 5]);
}

#[test]
fn of_the_newest_turn_its_beginning_its_end_and_its_open_calls_stay() {
    let open = CALL.replace("\"c\"", "\"open\"");
    let items = items(&[ASK, SAY, THANKS, CALL, RESULT, &open, SAY, BYE]);
    let left = |max_tokens| plan(&items, max_tokens, Strategy::OldestFirst, None);
    assert_eq!(kept(&left(60).unwrap()), [3, 4, 5, 6, 7, 8]);
    assert_eq!(kept(&left(50).unwrap()), [3, 6, 7, 8]);
    assert_eq!(kept(&left(30).unwrap()), [3, 6, 8]);
    assert!(matches!(
        left(29),
        Err(Error::BudgetTooSmall {
            budget: 29,
            minimum: 30
        })
    ));
}

#[test]
fn ids_that_providers_use_again_are_told_apart() {
    let items = items(&[CALL, RESULT, CALL, RESULT, THANKS]);
    let plan = plan(&items, 30, Strategy::ToolResultsFirst, None).unwrap();
    assert_eq!(kept(&plan), [3, 4, 5]);
}

#[test]
fn too_many_holes_are_joined() {
    let bodies: Vec<&str> = (0..2000).flat_map(|_| [ASK, CALL, RESULT]).collect();
    let items = items(&bodies);
    let plan = plan(&items, 40_000, Strategy::ToolResultsFirst, None).unwrap();
    assert_eq!(plan.keep.len(), RANGES_MAX);
    assert_eq!(plan.keep.last().unwrap().last, 6000);
    let kept = kept(&plan);
    assert_eq!(kept.len() as u64, 6000 - plan.dropped_items);
}

#[test]
fn queries_without_words_are_refused() {
    for bad in ["", " ,;", &"x".repeat(9000)] {
        assert!(Wanted::parse(bad).is_err());
    }
}

#[test]
fn names_read_back() {
    for strategy in Strategy::ALL {
        assert_eq!(Strategy::parse(strategy.as_str()).unwrap(), strategy);
    }
    let error = Strategy::parse("newest_first").unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        Strategy::ALL
            .iter()
            .all(|strategy| hint.contains(strategy.as_str()))
    );
}

/// An item in short.
type Spec = (u8, u32, u8, Option<u8>, u8);

/// An item of a generated context: who, how large, how important, which of a few call ids.
fn any_item() -> impl Generated<Value = Spec> {
    (
        0..8_u8,
        1..50_u32,
        0..4_u8,
        proptest::option::of(0..=10_u8),
        0..20_u8,
    )
}

fn build(specs: Vec<Spec>) -> Vec<Item> {
    let mut seq = 0;
    specs
        .into_iter()
        .map(|(what, tokens, id, importance, pin)| {
            seq += 1 + u64::from(pin == 1);
            let id = vec![format!("c{id}")];
            let (role, kind, calls, results) = match what {
                0 | 1 => (Role::User, Kind::Message, vec![], vec![]),
                2 => (Role::Assistant, Kind::Message, vec![], vec![]),
                3 | 4 => (Role::Assistant, Kind::Message, id, vec![]),
                5 | 6 => (Role::Tool, Kind::ToolResult, vec![], id),
                _ => (Role::Assistant, Kind::Reasoning, vec![], vec![]),
            };
            let pinned = pin == 0 && calls.is_empty() && results.is_empty() && kind == Kind::Message;
            Item {
                seq,
                tokens,
                created_at: Timestamp::from_micros(0),
                traits: Traits {
                    role,
                    kind,
                    links: Links { calls, results },
                    client_id: None,
                    pinned,
                    importance: importance.map(|tenths| f64::from(tenths) / 10.0),
                },
                body: Arc::from(format!(
                    r#"{{"role":"user","content":"word{} common"}}"#,
                    tokens % 5
                )),
            }
        })
        .collect()
}

/// The tokens that a list of items has, and whether each id has its calls and results together.
fn unanswered(items: &[&Item]) -> HashMap<String, (usize, usize)> {
    let mut pairs: HashMap<String, (usize, usize)> = HashMap::new();
    for item in items {
        for call in &item.traits.links.calls {
            pairs.entry(call.clone()).or_default().0 += 1;
        }
        for result in &item.traits.links.results {
            pairs.entry(result.clone()).or_default().1 += 1;
        }
    }
    pairs
}

proptest! {
    #[test]
    fn plans_keep_their_rules(
        specs in proptest::collection::vec(any_item(), 1..60),
        share in 0..=100_u64,
        strategy in proptest::sample::select(Strategy::ALL.to_vec()),
    ) {
        let items = build(specs);
        let total: u64 = items.iter().map(|item| u64::from(item.tokens)).sum();
        let max_tokens = total * share / 100;
        let wanted = Wanted::parse("word1 word3").unwrap();
        let planned = plan(&items, max_tokens, strategy, Some(&wanted));
        prop_assert_eq!(&format!("{planned:?}"), &format!("{:?}", plan(&items, max_tokens, strategy, Some(&wanted))), "T7");
        let Ok(planned) = planned else {
            let Err(Error::BudgetTooSmall { minimum, .. }) = planned else { panic!("{planned:?}") };
            prop_assert!(minimum > max_tokens);
            prop_assert!(plan(&items, minimum, strategy, Some(&wanted)).is_ok(), "the minimum works");
            return Ok(());
        };
        let stays = kept(&planned);
        let left: Vec<&Item> = items.iter().filter(|item| stays.contains(&item.seq)).collect();
        prop_assert_eq!(left.len() as u64 + planned.dropped_items, items.len() as u64);
        let left_tokens: u64 = left.iter().map(|item| u64::from(item.tokens)).sum();
        prop_assert_eq!(left_tokens + planned.dropped_tokens, total);
        prop_assert!(left_tokens <= max_tokens, "T5");
        prop_assert!(planned.keep.windows(2).all(|pair| pair[0].last + 1 < pair[1].first), "T4");
        for item in &items {
            if item.traits.always_kept() {
                prop_assert!(stays.contains(&item.seq), "T2");
            }
        }
        prop_assert!(stays.contains(&items.last().unwrap().seq), "T3");
        if let Some(turn) = items.iter().rfind(|item| item.traits.starts_turn()) {
            prop_assert!(stays.contains(&turn.seq), "T3");
        }
        for pair in items.windows(2) {
            if pair[0].traits.kind == Kind::Reasoning {
                prop_assert_eq!(stays.contains(&pair[0].seq), stays.contains(&pair[1].seq), "T1");
            }
        }
        // A result that had a call has one still, and one that is the only answer to the only call goes with it.
        let (before, after) = (unanswered(&items.iter().collect::<Vec<_>>()), unanswered(&left));
        for (id, (calls, results)) in before {
            let (calls_left, results_left) = after.get(&id).copied().unwrap_or_default();
            if calls > 0 && results_left > 0 {
                prop_assert!(calls_left > 0, "T1: a result lost its call");
            }
            if calls == 1 && results > 0 && calls_left == 1 {
                prop_assert_eq!(results_left, results, "T1: a call lost a result");
            }
        }
        // What is left needs nothing more.
        let left: Vec<Item> = left.into_iter().cloned().collect();
        let again = plan(&left, max_tokens, strategy, Some(&wanted)).unwrap();
        prop_assert_eq!(again.dropped_items, 0, "idempotent");
        // T5: the last unit that went was needed, so one more token of room keeps at least as much.
        let roomier = plan(&items, max_tokens + 1, strategy, Some(&wanted)).unwrap();
        prop_assert!(roomier.dropped_items <= planned.dropped_items);
    }
}
