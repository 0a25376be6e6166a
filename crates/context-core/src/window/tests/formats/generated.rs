//! Properties of rendering over generated conversations in all dialects at once.

use proptest::prelude::*;

use super::*;

/// One exchange of a conversation, in some dialect: bodies without ids of calls, which are numbered later.
#[derive(Clone, Debug)]
pub(in crate::window::tests) enum Exchange {
    User(Format, usize),
    System,
    Pinned,
    Said(Format),
    /// Parallel calls, how many of them are answered, and whether reasoning stands before them.
    Calls(Format, usize, usize, bool),
    Orphan(Format),
    Opaque(Format),
}

pub(in crate::window::tests) fn any_exchange() -> impl Strategy<Value = Exchange> {
    let dialect = || prop::sample::select(&RENDERED[..]);
    let calls = (dialect(), 1..4usize, 0..8usize, any::<bool>());
    prop_oneof![
        5 => (dialect(), prop_oneof![9 => 1..60usize, 1 => 300..3000usize]).prop_map(|(d, n)| Exchange::User(d, n)),
        1 => Just(Exchange::System),
        1 => Just(Exchange::Pinned),
        3 => dialect().prop_map(Exchange::Said),
        5 => calls.prop_map(|(d, calls, answered, thinks)| Exchange::Calls(d, calls, answered.min(calls), thinks)),
        1 => dialect().prop_map(Exchange::Orphan),
        1 => dialect().prop_map(Exchange::Opaque),
    ]
}

fn said(role: &str, dialect: Format, words: usize) -> Value {
    let text = "word ".repeat(words);
    let kind = match (dialect, role) {
        (Format::Responses, "assistant") => "output_text",
        (Format::Responses, _) => "input_text",
        _ => "text",
    };
    match dialect {
        Format::Anthropic if words == 1 => json!({"role": role, "content": [{"type": "text", "text": "\n"}]}),
        Format::Chat => json!({"role": role, "content": text}),
        _ => json!({"role": role, "content": [{"type": kind, "text": text}]}),
    }
}

fn results(dialect: Format, ids: &[String]) -> Vec<Value> {
    match dialect {
        Format::Chat => ids
            .iter()
            .map(|id| json!({"role": "tool", "tool_call_id": id, "content": "found"}))
            .collect(),
        Format::Responses => ids
            .iter()
            .map(|id| json!({"type": "function_call_output", "call_id": id, "output": "found"}))
            .collect(),
        _ if ids.is_empty() => vec![],
        _ => {
            let blocks = ids
                .iter()
                .map(|id| json!({"type": "tool_result", "tool_use_id": id, "content": "found"}));
            vec![json!({"role": "user", "content": blocks.collect::<Vec<_>>()})]
        }
    }
}

fn calls_of(dialect: Format, ids: &[String], thinks: bool) -> Vec<Value> {
    match dialect {
        Format::Chat => {
            let calls = ids.iter().map(
                |id| json!({"id": id, "type": "function", "function": {"name": "find", "arguments": "{\"q\":1}"}}),
            );
            vec![json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()})]
        }
        Format::Responses => {
            let reasoning = json!({"type": "reasoning", "id": "r", "summary": []});
            let calls = ids
                .iter()
                .map(|id| json!({"type": "function_call", "call_id": id, "name": "find", "arguments": "{}"}));
            thinks.then_some(reasoning).into_iter().chain(calls).collect()
        }
        _ => {
            let thinking = json!({"type": "thinking", "thinking": "hm", "signature": "s"});
            let calls = ids
                .iter()
                .map(|id| json!({"type": "tool_use", "id": id, "name": "find", "input": {"q": 1}}));
            let blocks = thinks.then_some(thinking).into_iter().chain(calls);
            vec![json!({"role": "assistant", "content": blocks.collect::<Vec<_>>()})]
        }
    }
}

fn bodies(exchange: &Exchange, number: usize) -> Vec<Value> {
    match exchange {
        Exchange::User(dialect, words) => vec![said("user", *dialect, *words)],
        Exchange::System => vec![json!({"role": "system", "content": "be brief"})],
        Exchange::Pinned => vec![json!({"role": "user", "content": "remember", "pinned": true})],
        Exchange::Said(dialect) => vec![said("assistant", *dialect, 5)],
        Exchange::Calls(dialect, calls, answered, thinks) => {
            // Ids that Anthropic would refuse come from the others.
            let mark = if *dialect == Format::Anthropic { '-' } else { ':' };
            let ids: Vec<String> = (0..*calls)
                .map(|call| format!("call{mark}{number}_{call}"))
                .collect();
            let mut bodies = calls_of(*dialect, &ids, *thinks);
            bodies.extend(results(*dialect, &ids[..*answered]));
            bodies
        }
        Exchange::Orphan(dialect) => results(*dialect, &[format!("none{number}")]),
        Exchange::Opaque(Format::Chat) => vec![
            json!({"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}}),
        ],
        Exchange::Opaque(Format::Responses) => vec![json!({"type": "compaction", "encrypted_content": "e"})],
        Exchange::Opaque(_) => vec![json!({"role": "assistant", "content": [
            {"type": "server_tool_use", "id": format!("s{number}"), "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": format!("s{number}"), "content": []}]})],
    }
}

pub(in crate::window::tests) fn all(exchanges: &[Exchange]) -> Vec<Value> {
    exchanges
        .iter()
        .enumerate()
        .flat_map(|(number, exchange)| bodies(exchange, number))
        .collect()
}

/// What a provider caches by: blocks for Anthropic, which merges messages, and messages for the others.
fn cached_units(rendered: &Rendered) -> Vec<String> {
    let units = values(&rendered.messages).into_iter().flat_map(|message| {
        let role = message["role"].as_str().unwrap_or_default().to_owned();
        match (rendered.system.is_empty(), message["content"].as_array()) {
            (false, Some(blocks)) => blocks.iter().map(|block| format!("{role} {block}")).collect(),
            _ => vec![message.to_string()],
        }
    });
    units.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    // F3, and F2 for equal items. Planted: results of Anthropic left out; blank texts kept; unanswered calls kept;
    // reasoning kept that nothing follows; the opening left out.
    #[test]
    fn windows_of_any_conversation_keep_each_providers_rules(
        exchanges in prop::collection::vec(any_exchange(), 0..25),
        budget in prop::sample::select(&[60u64, 200, 600, 1000, 4000, u64::MAX][..]),
        cut in prop_oneof![Just(Cut::Sticky), Just(Cut::Tight)],
    ) {
        let items = sent(&all(&exchanges));
        let window = match assemble(tail_of(&items, budget), budget, cut) {
            Ok(window) => window,
            Err(Error::BudgetTooSmall { .. }) => return Ok(()),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert!(window.tokens <= budget);
        for format in RENDERED {
            let rendered = format.render(&window.items).unwrap();
            if let Err(broken) = rules::check(format, &rendered) {
                return Err(TestCaseError::fail(format!("{format:?}: {broken}")));
            }
            prop_assert_eq!(&format.render(&window.items).unwrap(), &rendered);
            for seq in &window.cache_breakpoints {
                prop_assert!(rendered.message_of(*seq).is_none_or(|index| index < rendered.messages.len()));
            }
        }
    }

}

proptest! {
    // Each case renders after each answer.
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    // F2. Planted: something of the length of the whole in a message.
    #[test]
    fn what_is_appended_after_an_answer_changes_nothing_before(
        exchanges in prop::collection::vec(any_exchange(), 1..20),
    ) {
        // An instruction, a call without answer and a result without call are the exceptions.
        let steady: Vec<Exchange> = exchanges
            .into_iter()
            .filter_map(|exchange| match exchange {
                Exchange::System | Exchange::Orphan(_) => None,
                Exchange::Calls(dialect, calls, _, thinks) => Some(Exchange::Calls(dialect, calls, calls, thinks)),
                other => Some(other),
            })
            .collect();
        let mut bodies = vec![json!({"role": "system", "content": "be brief"})];
        bodies.extend(all(&steady));
        let items = sent(&bodies);
        for format in RENDERED {
            let whole = cached_units(&format.render(&items).unwrap());
            let mut open = std::collections::HashSet::new();
            for (index, item) in items.iter().enumerate() {
                open.extend(&item.traits.links.calls);
                for result in &item.traits.links.results {
                    open.remove(result);
                }
                if open.is_empty() && item.traits.role != Role::Assistant {
                    let earlier = cached_units(&format.render(&items[..=index]).unwrap());
                    prop_assert!(whole.starts_with(&earlier), "{:?}\n{:?}\n{:?}", format, earlier, whole);
                }
            }
        }
    }
}
