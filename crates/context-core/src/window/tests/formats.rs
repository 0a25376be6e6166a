//! Rendering: examples of each conversion, and planted violations for the checker.

pub(super) mod generated;

use serde_json::{Value, json};

use super::*;
use crate::NewItem;
use crate::window::{Rendered, render, rules};

const RENDERED: [Format; 3] = [Format::Chat, Format::Responses, Format::Anthropic];

/// Items as an append would make them.
fn sent(bodies: &[Value]) -> Vec<Item> {
    let texts: Vec<String> = bodies.iter().map(ToString::to_string).collect();
    sent_texts(&texts)
}

fn sent_texts(bodies: &[String]) -> Vec<Item> {
    let items = bodies.iter().zip(1..).map(|(body, seq)| {
        let mut new = NewItem::parse(body, 1 << 20).unwrap_or_else(|error| panic!("{body}: {error}"));
        new.count(Tokenizer::Estimate);
        Item {
            seq,
            tokens: new.tokens,
            created_at: Timestamp::default(),
            traits: new.traits,
            body: new.body,
        }
    });
    items.collect()
}

fn values(texts: &[String]) -> Vec<Value> {
    texts
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

fn rendered(format: Format, items: &[Item]) -> Rendered {
    let rendered = format.render(items).unwrap();
    if let Err(broken) = rules::check(format, &rendered) {
        panic!("{}: {broken}\n{:#?}", format.as_str(), rendered.messages);
    }
    rendered
}

/// The same conversation as each dialect has it.
fn conversation(dialect: Format) -> Vec<Value> {
    match dialect {
        Format::Chat => vec![
            json!({"role": "system", "content": "be brief"}),
            json!({"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}),
            json!({"role": "assistant", "content": "let me look", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}},
                {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{\"at\":2}"}}]}),
            json!({"role": "tool", "tool_call_id": "c1", "content": "a cat"}),
            json!({"role": "tool", "tool_call_id": "c2", "content": "a dog"}),
            json!({"role": "assistant", "content": "a cat and a dog"}),
        ],
        Format::Responses => vec![
            json!({"role": "system", "content": "be brief"}),
            json!({"role": "user", "content": [
                {"type": "input_text", "text": "what is this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}),
            json!({"role": "assistant", "content": "let me look"}),
            json!({"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{\"at\":1}"}),
            json!({"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{\"at\":2}"}),
            json!({"type": "function_call_output", "call_id": "c1", "output": "a cat"}),
            json!({"type": "function_call_output", "call_id": "c2", "output": "a dog"}),
            json!({"role": "assistant", "content": "a cat and a dog"}),
        ],
        _ => vec![
            json!({"role": "system", "content": "be brief"}),
            json!({"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}),
            json!({"role": "assistant", "content": [
                {"type": "text", "text": "let me look"},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
                {"type": "tool_use", "id": "c2", "name": "look", "input": {"at": 2}}]}),
            json!({"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "a cat"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "a dog"}]}),
            json!({"role": "assistant", "content": [{"type": "text", "text": "a cat and a dog"}]}),
        ],
    }
}

#[test]
fn each_dialect_becomes_each_other() {
    for from in RENDERED {
        for to in RENDERED {
            let rendered = rendered(to, &sent(&conversation(from)));
            let mut expected = conversation(to);
            if to == Format::Anthropic {
                expected.remove(0);
                assert_eq!(
                    values(&rendered.system),
                    [json!({"type": "text", "text": "be brief"})]
                );
            }
            let mut messages = values(&rendered.messages);
            if (from, to) == (Format::Anthropic, Format::Chat) {
                // An array of texts is chat as well, and passes through.
                let last = messages.last_mut().unwrap();
                assert_eq!(
                    last["content"].take(),
                    json!([{"type": "text", "text": "a cat and a dog"}])
                );
                last["content"] = json!("a cat and a dog");
            }
            assert_eq!(messages, expected, "{from:?} to {to:?}");
            assert_eq!(rendered.reasons, [], "{from:?} to {to:?}");
        }
    }
}

#[test]
fn what_is_in_the_dialect_passes_through_byte_for_byte() {
    let ours = r#"{"pinned" : true,"role":"user", "content":"\u00e9 1.50","metadata":{"a":1}, "name":"z"}"#;
    let items = sent_texts(&[ours.to_owned()]);
    assert_eq!(
        rendered(Format::Chat, &items).messages,
        [r#"{"role":"user","content":"\u00e9 1.50","name":"z"}"#]
    );
    let call = r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{"b":1.50,"a":"\u00e9"}}]}"#;
    let items = sent_texts(&[r#"{"role":"user","content":"x"}"#.to_owned(), call.to_owned()]);
    assert_eq!(rendered(Format::Anthropic, &items).messages[1], call);
    let native = json!({"type": "web_search_call", "id": "ws", "status": "completed"});
    let items = sent(&[json!({"role": "user", "content": "x"}), native.clone()]);
    assert_eq!(values(&rendered(Format::Responses, &items).messages)[1], native);
    assert_eq!(rendered(Format::Chat, &items).reasons, [Reason::OpaqueDropped]);
}

#[test]
fn reasoning_stays_with_its_own_provider() {
    let items = sent(&[
        json!({"role": "user", "content": "x"}),
        json!({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "e"}),
        json!({"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}),
        json!({"type": "function_call_output", "call_id": "c", "output": "y"}),
        json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "z"}]}),
    ]);
    let responses = rendered(Format::Responses, &items);
    assert_eq!(
        (responses.messages.len(), &responses.reasons[..]),
        (5, &[Reason::ReasoningDropped][..])
    );
    let anthropic = rendered(Format::Anthropic, &items);
    assert!(anthropic.messages[3].contains("\"signature\":\"s\""));
    assert_eq!(anthropic.reasons, [Reason::ReasoningDropped]);
    assert_eq!(rendered(Format::Chat, &items).messages.len(), 4);
}

#[test]
fn reasoning_goes_with_the_call_that_nobody_answered() {
    let items = sent(&[
        json!({"role": "user", "content": "x"}),
        json!({"type": "reasoning", "id": "r", "summary": []}),
        json!({"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}),
        json!({"role": "user", "content": "never mind"}),
    ]);
    for format in RENDERED {
        let rendered = rendered(format, &items);
        assert!(
            rendered.reasons.contains(&Reason::UnansweredCallDropped),
            "{format:?}"
        );
        assert!(rendered.reasons.contains(&Reason::ReasoningDropped), "{format:?}");
        assert!(!rendered.messages.concat().contains("\"c\""), "{format:?}");
    }
}

#[test]
fn a_call_at_the_end_may_still_be_answered() {
    for from in RENDERED {
        let mut bodies = conversation(from);
        bodies.truncate(if from == Format::Responses { 6 } else { 4 });
        if let Some(results) = bodies.get_mut(3).filter(|_| from == Format::Anthropic) {
            results["content"].as_array_mut().unwrap().truncate(1);
        }
        for to in RENDERED {
            let rendered = rendered(to, &sent(&bodies));
            assert!(
                rendered.messages.concat().contains("\"c2\""),
                "{from:?} to {to:?}"
            );
            assert_eq!(rendered.reasons, []);
        }
    }
}

#[test]
fn a_late_result_moves_up_to_its_call() {
    let items = sent(&[
        json!({"role": "user", "content": "x"}),
        json!({"type": "function_call", "call_id": "a", "name": "n", "arguments": "{}"}),
        json!({"type": "function_call", "call_id": "b", "name": "n", "arguments": "{}"}),
        json!({"type": "function_call_output", "call_id": "b", "output": "1"}),
        json!({"role": "user", "content": "hurry"}),
        json!({"type": "function_call_output", "call_id": "a", "output": "2"}),
    ]);
    let roles = |rendered: &Rendered| -> Vec<String> {
        values(&rendered.messages)
            .iter()
            .map(|message| message["role"].as_str().unwrap_or("item").to_owned())
            .collect()
    };
    assert_eq!(
        roles(&rendered(Format::Chat, &items)),
        ["user", "assistant", "tool", "tool", "user"]
    );
    assert_eq!(
        roles(&rendered(Format::Anthropic, &items)),
        ["user", "assistant", "user"]
    );
    rendered(Format::Responses, &items);
}

#[test]
fn what_a_format_cannot_say_is_named() {
    let reasons = |format: Format, bodies: &[Value]| rendered(format, &sent(bodies)).reasons;
    let user = json!({"role": "user", "content": "x"});
    let answer = json!({"role": "assistant", "content": "hello"});
    assert_eq!(reasons(Format::Anthropic, &[answer]), [Reason::OpeningAdded]);
    let orphan = json!({"role": "tool", "tool_call_id": "?", "content": "y"});
    assert_eq!(
        reasons(Format::Anthropic, &[user.clone(), orphan]),
        [Reason::OrphanResultDropped]
    );
    let failed = [
        user,
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "n", "input": {}}]}),
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "is_error": true, "content": [
            {"type": "text", "text": "no"}, {"type": "image", "source": {"type": "url", "url": "u"}}]}]}),
    ];
    assert_eq!(
        reasons(Format::Chat, &failed),
        [Reason::ErrorFlagDropped, Reason::OpaqueDropped]
    );
    assert_eq!(reasons(Format::Responses, &failed), [Reason::ErrorFlagDropped]);
    assert_eq!(reasons(Format::Anthropic, &failed), []);
}

#[test]
fn arguments_that_are_no_object_and_ids_that_are_odd_still_arrive() {
    let items = sent(&[
        json!({"role": "user", "content": " "}),
        json!({"role": "assistant", "tool_calls": [
            {"id": "a:1", "type": "function", "function": {"name": "n", "arguments": "not json"}},
            {"id": "b", "type": "custom", "custom": {"name": "m", "input": "free text"}}]}),
        json!({"role": "tool", "tool_call_id": "a:1", "content": ""}),
        json!({"role": "tool", "tool_call_id": "b", "content": "ok"}),
    ]);
    let anthropic = values(&rendered(Format::Anthropic, &items).messages);
    let blocks = anthropic[1]["content"].as_array().unwrap();
    assert_eq!(blocks[0]["input"], json!({"arguments": "not json"}));
    assert_eq!(blocks[1]["input"], json!({"input": "free text"}));
    assert_eq!(anthropic[2]["content"][0]["tool_use_id"], blocks[0]["id"]);
    let responses = values(&rendered(Format::Responses, &items).messages);
    assert_eq!(responses[2]["type"], "custom_tool_call");
    assert_eq!(responses[4]["type"], "custom_tool_call_output");
}

#[test]
fn stored_breakpoints_of_a_client_are_taken_out() {
    let block = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    let turn = [
        json!({"role": "user", "content": [block]}),
        json!({"role": "assistant", "content": "y"}),
    ];
    let items = sent(&vec![turn; 6].concat());
    assert!(
        !rendered(Format::Anthropic, &items)
            .messages
            .concat()
            .contains("cache_control")
    );
}

#[test]
fn the_checker_catches_planted_violations() {
    let user = || json!({"role": "user", "content": "x"});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "n", "arguments": "{}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "a", "content": "y"});
    let planted = [
        ("C1", vec![user(), result.clone()]),
        ("C1", vec![user(), call.clone(), result.clone(), result.clone()]),
        ("C2", vec![user(), call, user(), result]),
        (
            "C3",
            vec![json!({"role": "assistant", "content": "x", "tool_calls": []})],
        ),
        (
            "C3",
            vec![json!({"role": "user", "content": [{"type": "input_text", "text": "x"}]})],
        ),
        (
            "P1",
            vec![json!({"role": "user", "content": "x", "pinned": true})],
        ),
    ];
    for (name, messages) in planted {
        let broken = rules::chat(&messages).unwrap_err();
        assert!(broken.starts_with(name), "{name}: {broken}");
    }
    let call = json!({"type": "function_call", "call_id": "a", "name": "n", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "a", "output": "y"});
    let reasoning = json!({"type": "reasoning", "id": "r", "summary": []});
    let planted = [
        ("R1", vec![output.clone(), call.clone()]),
        ("R2", vec![call.clone(), user()]),
        ("R3", vec![reasoning.clone(), user()]),
        ("R3", vec![call, reasoning.clone(), output]),
        ("R3", vec![user(), reasoning]),
        (
            "R4",
            vec![json!({"role": "assistant", "content": [{"type": "text", "text": "x"}]})],
        ),
        ("R4", vec![json!({"role": "tool", "content": "x"})]),
    ];
    for (name, input) in planted {
        let broken = rules::responses(&input).unwrap_err();
        assert!(broken.starts_with(name), "{name}: {broken}");
    }
}

#[test]
fn the_checker_catches_planted_violations_of_anthropics_rules() {
    let said = |role: &str, blocks: &[Value]| json!({"role": role, "content": blocks});
    let text = json!({"type": "text", "text": "x"});
    let user = said("user", std::slice::from_ref(&text));
    let tool_use = json!({"type": "tool_use", "id": "a", "name": "n", "input": {}});
    let call = said("assistant", std::slice::from_ref(&tool_use));
    let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "y"});
    let cached = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    let planted = [
        ("A1", vec![call.clone()]),
        ("A2", vec![user.clone(), user.clone()]),
        (
            "A2",
            vec![user.clone(), said("system", std::slice::from_ref(&text))],
        ),
        ("A3", vec![user.clone(), call.clone(), user.clone()]),
        (
            "A4",
            vec![
                user.clone(),
                call.clone(),
                said("user", &[result.clone(), text.clone(), result.clone()]),
            ],
        ),
        (
            "A5",
            vec![user.clone(), call, said("user", &[result.clone(), result])],
        ),
        ("A6", vec![said("user", &[json!({"type": "text", "text": " "})])]),
        ("A6", vec![said("user", &[])]),
        ("A7", vec![said("user", &vec![cached; 5])]),
        (
            "A8",
            vec![
                user.clone(),
                said(
                    "assistant",
                    &[json!({"type": "tool_use", "id": "a:1", "input": {}})],
                ),
            ],
        ),
        (
            "A8",
            vec![
                user.clone(),
                said(
                    "assistant",
                    &[json!({"type": "tool_use", "id": "a", "input": "{}"})],
                ),
            ],
        ),
        (
            "A9",
            vec![
                user,
                said("assistant", &[json!({"type": "thinking", "thinking": "hm"})]),
            ],
        ),
    ];
    for (name, messages) in planted {
        let broken = rules::anthropic(&[], &messages).unwrap_err();
        assert!(broken.starts_with(name), "{name}: {broken}");
    }
    assert!(rules::anthropic(&[json!({"type": "text", "text": ""})], &[]).is_err());
}

/// Each dialect's sample at the budgets that agents use, as often as it takes to fill them.
#[test]
fn long_samples_keep_the_rules_at_usual_budgets() {
    for from in RENDERED {
        let turns = (0..400).flat_map(|turn| {
            let text = json!(conversation(from)[1..]).to_string();
            let renamed = text
                .replace("\"c1\"", &format!("\"a{turn}\""))
                .replace("\"c2\"", &format!("\"b{turn}\""));
            serde_json::from_str::<Vec<Value>>(&renamed).unwrap()
        });
        let items = sent(&turns.collect::<Vec<_>>());
        for budget in [1024, 2048, 4096, 8192, 16_384, 32_768] {
            let window = assemble(tail_of(&items, budget), budget, Cut::Sticky).unwrap();
            assert!(
                window.tokens <= budget && window.tokens * 2 >= budget,
                "{} of {budget}",
                window.tokens
            );
            for format in RENDERED {
                assert_eq!(rendered(format, &window.items).reasons, []);
            }
        }
    }
    assert_eq!(render::chat(&[]), Rendered::default());
}
