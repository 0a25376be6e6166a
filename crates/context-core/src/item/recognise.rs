//! Tells apart what the providers' formats call a message, a call and a result.
//!
//! Sources: the `OpenAI` Chat Completions and Responses references and the Anthropic Messages reference, as
//! of 2026. An item is kept as it came whatever is recognised here; recognition only decides who speaks,
//! which calls and results belong together, and what text is counted and searched.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::{Kind, Links, Role, Traits};
use crate::error::{Invalid, Result};
use crate::id::ClientId;

/// Longest call id accepted, in bytes; providers use 9 to 64.
const CALL_ID_BYTES_MAX: usize = 256;

pub(super) struct Recognised {
    pub(super) traits: Traits,
    pub(super) text: String,
    /// Parts that are not text: images, audio, files.
    pub(super) media: u32,
}

pub(super) fn recognise(value: &Value) -> Result<Recognised> {
    let Value::Object(item) = value else {
        return Err(Invalid::new("", "is not a JSON object").hint(ITEM_HINT).into());
    };
    let mut reader = Reader::default();
    let (role, kind) = match (text_field(item, "type")?, text_field(item, "role")?) {
        (None | Some("message"), Some(role)) => reader.message(item, role)?,
        (Some(kind), role) => reader.typed(item, kind, role)?,
        (None, None) => return Err(Invalid::new("role", "is missing").hint(ITEM_HINT).into()),
    };
    let traits = Traits {
        role,
        kind,
        links: reader.links,
        client_id: text_field(item, "client_id")?.map(ClientId::parse).transpose()?,
        pinned: pinned(item)?,
        importance: importance(item)?,
    };
    if traits.pinned && (traits.kind != Kind::Message || !traits.links.is_empty()) {
        return Err(
            Invalid::new("pinned", "is true on an item that calls, answers or reasons")
                .hint("pin messages; a call and its result are kept together and cut together")
                .into(),
        );
    }
    if item
        .get("metadata")
        .is_some_and(|metadata| !metadata.is_object() && !metadata.is_null())
    {
        return Err(Invalid::new("metadata", "is not an object").into());
    }
    Ok(Recognised {
        traits,
        text: reader.text,
        media: reader.media,
    })
}

const ITEM_HINT: &str = "send an OpenAI chat message, an OpenAI responses item or an Anthropic message, \
                         such as {\"role\": \"user\", \"content\": \"…\"}";

/// Collects text and links on the way through an item.
#[derive(Default)]
struct Reader {
    text: String,
    media: u32,
    links: Links,
}

impl Reader {
    /// A message of any of the three dialects.
    fn message(&mut self, item: &Map<String, Value>, role: &str) -> Result<(Role, Kind)> {
        // `function` is the name that tool results had before 2023-11; it has no call id.
        let known = if role == "function" {
            Some(Role::Tool)
        } else {
            Role::parse(role)
        };
        let Some(speaker) = known else {
            return Err(Invalid::new("role", format!("{role:?} is not a role"))
                .hint("use system, developer, user, assistant or tool")
                .into());
        };
        self.push(item.get("name"));
        let only_results = self.content("content", item.get("content"))?;
        self.tool_calls(item.get("tool_calls"))?;
        self.push(item.get("refusal"));
        self.push(item.get("reasoning_content"));
        if role == "tool" {
            let Some(call_id) = text_field(item, "tool_call_id")? else {
                return Err(Invalid::new("tool_call_id", "is missing")
                    .hint("a tool result names the call that it answers")
                    .into());
            };
            self.result("tool_call_id", call_id)?;
        }
        let kind = if speaker == Role::Tool || only_results {
            Kind::ToolResult
        } else {
            Kind::Message
        };
        Ok((speaker, kind))
    }

    /// An item of the Responses format that is not a message, or a provider's own.
    fn typed(&mut self, item: &Map<String, Value>, kind: &str, role: Option<&str>) -> Result<(Role, Kind)> {
        let role = role.and_then(Role::parse);
        if kind == "reasoning" {
            self.strings(item.get("summary"));
            self.strings(item.get("content"));
            return Ok((Role::Assistant, Kind::Reasoning));
        }
        let call_id = text_field(item, "call_id")?;
        if let Some(call_id) = call_id.filter(|_| kind.ends_with("_output")) {
            self.result("call_id", call_id)?;
            self.content("output", item.get("output"))?;
            return Ok((Role::Tool, Kind::ToolResult));
        }
        if let Some(call_id) = call_id.filter(|_| kind.ends_with("_call")) {
            self.call("call_id", call_id)?;
            self.push(item.get("name"));
            self.strings(
                item.get("arguments")
                    .or_else(|| item.get("input"))
                    .or_else(|| item.get("action")),
            );
            return Ok((Role::Assistant, Kind::Message));
        }
        for (key, value) in item {
            // Opaque by contract: these are passed back to the provider unread.
            if !matches!(
                key.as_str(),
                "type" | "id" | "client_id" | "encrypted_content" | "status"
            ) {
                self.strings(Some(value));
            }
        }
        Ok((role.unwrap_or(Role::Assistant), Kind::Other))
    }

    /// `tool_calls` of a chat message.
    fn tool_calls(&mut self, calls: Option<&Value>) -> Result<()> {
        let calls = match calls {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(calls)) => calls,
            Some(_) => return Err(Invalid::new("tool_calls", "is not an array").into()),
        };
        for (index, call) in calls.iter().enumerate() {
            let at = format!("tool_calls[{index}].id");
            match call.get("id").and_then(Value::as_str) {
                Some(id) => self.call(&at, id)?,
                None => {
                    return Err(Invalid::new(at, "is missing or not a string")
                        .hint("results are matched to calls by this id")
                        .into());
                }
            }
            if let Some(function) = call.get("function").or_else(|| call.get("custom")) {
                self.push(function.get("name"));
                self.strings(function.get("arguments").or_else(|| function.get("input")));
            }
        }
        Ok(())
    }

    /// A string, `null`, or an array of parts. Says whether it is nothing but tool results.
    fn content(&mut self, field: &str, content: Option<&Value>) -> Result<bool> {
        match content {
            None | Some(Value::Null) => Ok(false),
            Some(Value::String(text)) => {
                self.add(text);
                Ok(false)
            }
            Some(Value::Array(parts)) => {
                let mut results = 0;
                for (index, part) in parts.iter().enumerate() {
                    results += usize::from(self.part(&format!("{field}[{index}]"), part)?);
                }
                Ok(results > 0 && results == parts.len())
            }
            // A responses output or a tool's own structure: text wherever it has text.
            Some(other) if field == "output" => {
                self.strings(Some(other));
                Ok(false)
            }
            Some(_) => Err(Invalid::new(
                field.to_owned(),
                "is neither a string, an array of parts nor null",
            )
            .into()),
        }
    }

    /// One part; says whether it is a tool result.
    fn part(&mut self, at: &str, part: &Value) -> Result<bool> {
        if let Value::String(text) = part {
            self.add(text);
            return Ok(false);
        }
        let Value::Object(part) = part else {
            return Err(Invalid::new(at.to_owned(), "is neither an object nor a string").into());
        };
        match part.get("type").and_then(Value::as_str).unwrap_or_default() {
            "tool_use" | "server_tool_use" => {
                self.part_call(at, part.get("id"), Self::call)?;
                self.push(part.get("name"));
                self.strings(part.get("input"));
            }
            kind if kind.ends_with("tool_result") => {
                self.part_call(at, part.get("tool_use_id"), Self::result)?;
                match part.get("content") {
                    content @ (None | Some(Value::Null | Value::String(_) | Value::Array(_))) => {
                        self.content("content", content)
                            .map(|_| ())
                            .map_err(|error| under(error, at))?;
                    }
                    other => self.strings(other),
                }
                return Ok(true);
            }
            "thinking" | "redacted_thinking" => self.push(part.get("thinking")),
            kind if part.get("text").is_some_and(Value::is_string) && !kind.contains("image") => {
                self.push(part.get("text"));
            }
            "refusal" => self.push(part.get("refusal")),
            _ => self.media = self.media.saturating_add(1),
        }
        Ok(false)
    }

    fn part_call(
        &mut self,
        at: &str,
        id: Option<&Value>,
        note: fn(&mut Self, &str, &str) -> Result<()>,
    ) -> Result<()> {
        match id.and_then(Value::as_str) {
            Some(id) => note(self, at, id),
            None => Err(Invalid::new(at.to_owned(), "has no id of its call").into()),
        }
    }

    fn call(&mut self, at: &str, id: &str) -> Result<()> {
        self.links.calls.push(call_id(at, id)?);
        Ok(())
    }

    fn result(&mut self, at: &str, id: &str) -> Result<()> {
        self.links.results.push(call_id(at, id)?);
        Ok(())
    }

    fn push(&mut self, value: Option<&Value>) {
        if let Some(Value::String(text)) = value {
            self.add(text);
        }
    }

    /// Every string below a value; structure that is not text is written out, as a model would see it.
    fn strings(&mut self, value: Option<&Value>) {
        match value {
            Some(Value::String(text)) => self.add(text),
            Some(Value::Array(values)) => values.iter().for_each(|value| self.strings(Some(value))),
            Some(Value::Object(map)) => {
                for (key, value) in map {
                    if key != "type" {
                        self.add(key);
                        self.strings(Some(value));
                    }
                }
            }
            Some(Value::Null) | None => {}
            Some(scalar) => self.add(&scalar.to_string()),
        }
    }

    fn add(&mut self, text: &str) {
        if !text.is_empty() {
            if !self.text.is_empty() {
                self.text.push('\n');
            }
            self.text.push_str(text);
        }
    }
}

fn under(error: crate::Error, at: &str) -> crate::Error {
    match error {
        crate::Error::Invalid(invalid) => invalid.under(at).into(),
        other => other,
    }
}

fn call_id(at: &str, id: &str) -> Result<String> {
    if id.is_empty() || id.len() > CALL_ID_BYTES_MAX {
        return Err(Invalid::new(
            at.to_owned(),
            format!("is empty or longer than {CALL_ID_BYTES_MAX} bytes"),
        )
        .into());
    }
    Ok(id.to_owned())
}

fn text_field<'item>(item: &'item Map<String, Value>, name: &'static str) -> Result<Option<&'item str>> {
    match item.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Invalid::new(name, "is not a string").into()),
    }
}

fn pinned(item: &Map<String, Value>) -> Result<bool> {
    match item.get("pinned") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(pinned)) => Ok(*pinned),
        Some(_) => Err(Invalid::new("pinned", "is not true or false").into()),
    }
}

fn importance(item: &Map<String, Value>) -> Result<Option<f64>> {
    match item.get("importance") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(weight) if (0.0..=1.0).contains(&weight) => Ok(Some(weight)),
            _ => Err(Invalid::new("importance", "is not a number from 0 to 1").into()),
        },
    }
}
