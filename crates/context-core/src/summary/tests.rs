use std::sync::Arc;

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::NewItem;

fn item(seq: u64, body: &str) -> Item {
    Item {
        seq,
        tokens: 1,
        created_at: Timestamp::from_micros(0),
        traits: NewItem::parse(body, 1 << 20).unwrap().traits,
        body: Arc::from(body),
    }
}

fn said(seq: u64, role: &str, text: &str) -> Item {
    item(
        seq,
        &serde_json::json!({"role": role, "content": text}).to_string(),
    )
}

fn conversation() -> Vec<Item> {
    vec![
        said(1, "system", "You are a travel agent named SECRET123."),
        said(
            2,
            "user",
            "Hello. I want to move my reservation 4WQ150 to another day.",
        ),
        said(3, "assistant", "Of course! What is your user id?"),
        said(4, "user", "It is mia_li_3668, and I can pay up to $120."),
        item(
            5,
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"find","arguments":"{\"user_id\": \"mia_li_3668\"}"}}]}"#,
        ),
        item(
            6,
            r#"{"role":"tool","tool_call_id":"c","content":"{\"date\": \"2024-05-20\", \"flight\": \"HAT136\"}\nerror: file src/booking/seats.rs was not found"}"#,
        ),
        said(7, "assistant", "We agreed on flight HAT136; the total is $98."),
        said(8, "user", "Yes. Please also send the invoice to mia@example.com?"),
    ]
}

#[test]
fn a_summary_has_the_goal_the_last_request_and_what_was_mentioned() {
    let text = extract(None, &conversation(), Tokenizer::Estimate);
    assert!(
        text.starts_with("Goal [2]: Hello. I want to move my reservation 4WQ150"),
        "{text}"
    );
    assert!(text.contains("Last request [8]: Yes. Please also send"), "{text}");
    assert!(
        text.contains("[7] assistant: We agreed on flight HAT136; the total is $98."),
        "{text}"
    );
    for fact in [
        "4WQ150",
        "mia_li_3668",
        "$120",
        "2024-05-20",
        "src/booking/seats.rs",
        "mia@example.com",
    ] {
        assert!(text.contains(fact), "{fact}: {text}");
    }
    assert!(!text.contains("SECRET123"), "X5: {text}");
}

#[test]
fn going_on_keeps_the_goal_and_takes_the_new_request() {
    let items = conversation();
    let (first, rest) = items.split_at(4);
    let before = extract(None, first, Tokenizer::Estimate);
    let text = extract(Some(&before), rest, Tokenizer::Estimate);
    assert!(text.starts_with("Goal [2]: "), "{text}");
    assert!(text.contains("Last request [8]: "), "{text}");
    for fact in ["4WQ150", "mia_li_3668", "$120", "HAT136", "mia@example.com"] {
        assert!(text.contains(fact), "{fact}: {text}");
    }
    let whole = source_hash(None, &items);
    assert_eq!(source_hash(Some(source_hash(None, first)), rest), whole);
}

#[test]
fn exact_counts_are_bounded_as_well() {
    let facts = |from: u64| {
        let each = (from..from + 40).map(|n| format!("R{n}Q-{} costs ${n}.50;", n * 7919));
        each.collect::<Vec<_>>().join(" ")
    };
    let items: Vec<Item> = (1..80).map(|seq| said(seq, "user", &facts(seq * 40))).collect();
    let text = extract(None, &items, Tokenizer::O200kBase);
    let tokens = Tokenizer::O200kBase.count(&text);
    assert!((TOKENS_MAX - 100..=TOKENS_MAX).contains(&tokens), "{tokens}");
}

#[test]
fn nothing_to_say_is_an_empty_text() {
    assert_eq!(extract(None, &[], Tokenizer::Estimate), "");
    assert_eq!(extract(None, &conversation()[..1], Tokenizer::Estimate), "");
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(32))]
    #[test]
    fn texts_are_bounded_and_the_same_again(
        texts in proptest::collection::vec("(\\PC{0,60}[.!?\\n ]){0,10}", 0..20),
        split in 0..20_usize,
    ) {
        let roles = ["user", "assistant", "user", "assistant", "system"];
        let items: Vec<Item> = texts
            .iter()
            .zip(1..)
            .zip(roles.iter().cycle())
            .map(|((text, seq), role)| said(seq, role, text))
            .collect();
        let whole = extract(None, &items, Tokenizer::Estimate);
        prop_assert_eq!(&whole, &extract(None, &items, Tokenizer::Estimate), "X1");
        prop_assert!(Tokenizer::Estimate.count(&whole) <= TOKENS_MAX, "X2: {}", whole);
        let (first, rest) = items.split_at(split.min(items.len()));
        let before = extract(None, first, Tokenizer::Estimate);
        let on = extract(Some(&before), rest, Tokenizer::Estimate);
        prop_assert!(Tokenizer::Estimate.count(&on) <= TOKENS_MAX, "X2: {}", on);
        let asked = items.iter().rfind(|item| item.traits.starts_turn());
        if let Some(asked) = asked {
            let place = format!("[{}]", asked.seq);
            prop_assert!(whole.contains(&place) && on.contains(&place), "X3: {} / {}", whole, on);
        }
    }
}
