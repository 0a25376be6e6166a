//! The providers' rules for messages, to check what is rendered. For tests (feature `test-util`).
//!
//! The rules are those that the providers' references state or that their servers' refusals name; each refusal is quoted
//! in public threads, of which one is named:
//!
//! - **C1** A `tool` message answers a call of the assistant's message before it, with nothing but `tool` messages in
//!   between; **C2** each call is answered once before anybody else speaks (agno-agi/agno#3105); at the very end answers may
//!   be outstanding. **C3** `tool_calls` is not empty, arguments are a string; content is a string or parts that the role can
//!   have.
//! - **R1** An output comes after its call (continuedev/continue#10092); **R2** each call has one output ("No tool output
//!   found for function call", lace-ai/gai#49), which may be outstanding while nobody else speaks; **R3** reasoning is
//!   followed by what the model made of it (vercel/ai#7099). **R4** Content parts have the types of the role.
//! - **A1** The first message is the user's (lobehub/lobehub#1601); **A2** users and assistants take turns, instructions
//!   are not among them; **A3** each `tool_use` is answered in the very next message (anthropics/claude-code#2697), unless
//!   that is outstanding at the end; **A4** results come first in it (Zoo-Code-Org/Zoo-Code#1705); **A5** a result answers a
//!   `tool_use` of the message before. **A6** No content is empty and no text blank (aliasrobotics/cai#182); **A7** at most
//!   four breakpoints; **A8** ids are letters, digits, `_` and `-`, `input` is an object; **A9** thinking is not all of a
//!   message.
//! - **P1** None of our own fields is in a message.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Format, Rendered};

/// Checks what [`Format::render`] made. `Items` has no rules.
///
/// # Errors
/// The rule that is broken, and where.
pub fn check(format: Format, rendered: &Rendered) -> Result<(), String> {
    let parse = |texts: &[String]| -> Result<Vec<Value>, String> {
        let parsed = texts.iter().map(|text| serde_json::from_str(text));
        parsed
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    };
    let (system, messages) = (parse(&rendered.system)?, parse(&rendered.messages)?);
    match format {
        Format::Items => Ok(()),
        Format::Chat => chat(&messages),
        Format::Responses => responses(&messages),
        Format::Anthropic => anthropic(&system, &messages),
    }
}

/// Fails with a rule and the place where it is broken.
fn rule(holds: bool, name: &str, at: usize, message: &Value) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("{name} at {at}: {message}"))
    }
}

fn own_fields(at: usize, message: &Value) -> Result<(), String> {
    let own = ["client_id", "pinned", "importance", "metadata"];
    rule(
        own.iter().all(|field| message.get(field).is_none()),
        "P1",
        at,
        message,
    )
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn parts_are(content: &Value, types: &[&str]) -> bool {
    match content {
        Value::String(_) => true,
        Value::Array(parts) => {
            !parts.is_empty() && parts.iter().all(|part| types.contains(&text(part, "type")))
        }
        _ => false,
    }
}

/// The rules of Chat Completions.
///
/// # Errors
/// The rule that is broken, and where.
pub fn chat(messages: &[Value]) -> Result<(), String> {
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for (at, message) in messages.iter().enumerate() {
        own_fields(at, message)?;
        let content = &message["content"];
        let role = text(message, "role");
        if role == "tool" {
            rule(open.remove(text(message, "tool_call_id")), "C1", at, message)?;
            rule(parts_are(content, &["text"]), "C3", at, message)?;
            continue;
        }
        rule(open.is_empty(), "C2", at, message)?;
        let types: &[&str] = match role {
            "system" | "developer" => &["text"],
            "user" => &["text", "image_url", "input_audio", "file"],
            "assistant" => &["text", "refusal"],
            "function" => continue,
            _ => return rule(false, "C3", at, message),
        };
        let calls = array(message, "tool_calls");
        let speaks = parts_are(content, types) || (role == "assistant" && content.is_null());
        rule(speaks, "C3", at, message)?;
        rule(
            message.get("tool_calls").is_none() || !calls.is_empty(),
            "C3",
            at,
            message,
        )?;
        for call in calls {
            let complete = call["function"]["arguments"].is_string() || call["custom"]["input"].is_string();
            rule(complete && open.insert(text(call, "id")), "C3", at, message)?;
        }
    }
    Ok(())
}

/// The rules of Responses.
///
/// # Errors
/// The rule that is broken, and where.
pub fn responses(input: &[Value]) -> Result<(), String> {
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let mut reasoned = false;
    for (at, item) in input.iter().enumerate() {
        own_fields(at, item)?;
        let kind = text(item, "type");
        let role = text(item, "role");
        let by_model = role == "assistant" || (role.is_empty() && !kind.ends_with("_output"));
        rule(!reasoned || by_model, "R3", at, item)?;
        reasoned = kind == "reasoning";
        let call_id = text(item, "call_id");
        if kind.ends_with("_call_output") {
            rule(open.remove(call_id), "R1", at, item)?;
        } else if kind.ends_with("_call") && !call_id.is_empty() {
            rule(open.insert(call_id), "R2", at, item)?;
            rule(
                item["arguments"].is_string() || kind != "function_call",
                "R4",
                at,
                item,
            )?;
        } else if !role.is_empty() {
            let types: &[&str] = match role {
                "assistant" => &["output_text", "refusal"],
                "system" | "developer" | "user" => &["input_text", "input_image", "input_file"],
                _ => &[],
            };
            rule(
                !types.is_empty() && parts_are(&item["content"], types),
                "R4",
                at,
                item,
            )?;
            let answered = open.iter().all(|id| {
                let later = input
                    .iter()
                    .skip(at)
                    .filter(|later| text(later, "type").ends_with("_output"));
                later.into_iter().any(|later| text(later, "call_id") == *id)
            });
            rule(role == "assistant" || answered, "R2", at, item)?;
        }
    }
    rule(!reasoned, "R3", input.len(), &Value::Null)
}

/// The rules of Anthropic's messages.
///
/// # Errors
/// The rule that is broken, and where.
pub fn anthropic(system: &[Value], messages: &[Value]) -> Result<(), String> {
    for (at, block) in system.iter().enumerate() {
        let said = text(block, "type") == "text" && !text(block, "text").trim().is_empty();
        rule(said, "A6 in system", at, block)?;
    }
    let mut role = "assistant";
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let mut breakpoints = 0;
    for (at, message) in messages.iter().enumerate() {
        own_fields(at, message)?;
        let next = text(message, "role");
        rule(at > 0 || next == "user", "A1", at, message)?;
        rule(
            matches!(next, "user" | "assistant") && next != role,
            "A2",
            at,
            message,
        )?;
        role = next;
        let blocks = array(message, "content");
        rule(!blocks.is_empty(), "A6", at, message)?;
        let results = blocks
            .iter()
            .take_while(|block| text(block, "type") == "tool_result");
        let count = results.clone().count();
        for result in results {
            rule(open.remove(text(result, "tool_use_id")), "A5", at, message)?;
        }
        rule(
            open.is_empty() || at + 1 == messages.len() && blocks.len() == count,
            "A3",
            at,
            message,
        )?;
        rule(
            !blocks
                .iter()
                .all(|block| text(block, "type").ends_with("thinking")),
            "A9",
            at,
            message,
        )?;
        for block in blocks.iter().skip(count) {
            block_holds(block, next, at, message)?;
            if text(block, "type") == "tool_use" {
                rule(open.insert(text(block, "id")), "A8", at, message)?;
            }
        }
        breakpoints += blocks
            .iter()
            .filter(|block| block.get("cache_control").is_some())
            .count();
        rule(breakpoints <= super::BREAKPOINTS_MAX, "A7", at, message)?;
    }
    Ok(())
}

fn block_holds(block: &Value, role: &str, at: usize, message: &Value) -> Result<(), String> {
    match text(block, "type") {
        "tool_result" => rule(false, "A4", at, message),
        "text" => rule(!text(block, "text").trim().is_empty(), "A6", at, message),
        "tool_use" => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            let id = text(block, "id");
            let named = !id.is_empty() && id.bytes().all(fits);
            rule(
                named && block["input"].is_object() && role == "assistant",
                "A8",
                at,
                message,
            )
        }
        "" => rule(false, "A6", at, message),
        _ => Ok(()),
    }
}
