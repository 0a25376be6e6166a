//! Reads items of any dialect into pieces. Sources: as in `item/recognise.rs`.

use super::json::{Fields, elements};
use super::piece::{Answer, Call, Dialect, Function, Image, Input, Kind, Message, Piece, Speaker};
use crate::{Item, Role};

/// Fields of an item that are ours and mean nothing to a provider.
const OWN_FIELDS: [&str; 4] = ["client_id", "pinned", "importance", "metadata"];
/// Fields that a message has in the chat format only.
const CHAT_FIELDS: [&str; 6] = [
    "tool_calls",
    "function_call",
    "name",
    "refusal",
    "reasoning_content",
    "audio",
];

pub(super) fn read(item: &Item) -> Message {
    let fields = Fields::parse(&item.body).unwrap_or_default();
    let native = fields.without(&OWN_FIELDS);
    let kind = fields.text("type").unwrap_or_else(|| "message".to_owned());
    let (speaker, pieces, native_to) = if kind == "message" {
        message(item.traits.role, &fields, &native)
    } else {
        let piece = Piece {
            dialect: Dialect::Responses,
            raw: native.clone(),
            kind: typed(&kind, &fields),
        };
        let speaker = match (&piece.kind, item.traits.role) {
            (Kind::Result(_), _) => Speaker::Tool,
            (Kind::Call(_) | Kind::Reasoning, _) => Speaker::Assistant,
            (_, role) => speaker(role),
        };
        (speaker, vec![piece], vec![Dialect::Responses])
    };
    Message {
        seq: item.seq,
        speaker,
        pieces,
        native,
        native_to,
    }
}

const fn speaker(role: Role) -> Speaker {
    match role {
        Role::System => Speaker::System,
        Role::Developer => Speaker::Developer,
        Role::User => Speaker::User,
        Role::Assistant => Speaker::Assistant,
        Role::Tool => Speaker::Tool,
    }
}

fn typed(kind: &str, fields: &Fields<'_>) -> Kind {
    if kind == "reasoning" {
        return Kind::Reasoning;
    }
    let Some(id) = fields.text("call_id") else {
        return Kind::Opaque;
    };
    let function = |input: Input| {
        let name = fields.text("name")?;
        Some(Function { name, input })
    };
    match kind {
        "function_call" => Kind::Call(Call {
            id,
            function: function(Input::Arguments(fields.text("arguments").unwrap_or_default())),
        }),
        "custom_tool_call" => Kind::Call(Call {
            id,
            function: function(Input::Text(fields.text("input").unwrap_or_default())),
        }),
        "function_call_output" | "custom_tool_call_output" => Kind::Result(Answer {
            id,
            content: Some(content(fields.get("output"))),
            is_error: false,
        }),
        _ if kind.ends_with("_call") => Kind::Call(Call { id, function: None }),
        _ if kind.ends_with("_output") => Kind::Result(Answer {
            id,
            content: None,
            is_error: false,
        }),
        _ => Kind::Opaque,
    }
}

/// A message of any dialect, with the dialects that take it as it is.
fn message(role: Role, fields: &Fields<'_>, native: &str) -> (Speaker, Vec<Piece>, Vec<Dialect>) {
    if fields.text("role").is_some_and(|role| role == "function") {
        let piece = Piece {
            dialect: Dialect::Chat,
            raw: native.to_owned(),
            kind: Kind::Opaque,
        };
        return (Speaker::User, vec![piece], vec![Dialect::Chat]);
    }
    if let (Role::Tool, Some(id)) = (role, fields.text("tool_call_id")) {
        let answer = Answer {
            id,
            content: Some(content(fields.get("content"))),
            is_error: false,
        };
        let piece = Piece {
            dialect: Dialect::Chat,
            raw: native.to_owned(),
            kind: Kind::Result(answer),
        };
        return (Speaker::Tool, vec![piece], vec![Dialect::Chat]);
    }
    let mut pieces = content(fields.get("content"));
    if let Some(refusal) = fields.text("refusal") {
        pieces.push(text(refusal));
    }
    if fields.get("reasoning_content").is_some() {
        pieces.push(chat(Kind::Reasoning, ""));
    }
    if fields.get("function_call").or(fields.get("audio")).is_some() {
        pieces.push(chat(Kind::Opaque, ""));
    }
    for call in elements(fields.get("tool_calls").unwrap_or_default()) {
        pieces.push(chat(tool_call(call), call));
    }
    let native_to = native_to(fields, &pieces);
    let only_results = !pieces.is_empty() && pieces.iter().all(|piece| matches!(piece.kind, Kind::Result(_)));
    let speaker = if only_results {
        Speaker::Tool
    } else {
        speaker(role)
    };
    (speaker, pieces, native_to)
}

fn native_to(fields: &Fields<'_>, pieces: &[Piece]) -> Vec<Dialect> {
    if fields.get("type").is_some() {
        return vec![Dialect::Responses];
    }
    if CHAT_FIELDS.iter().any(|field| fields.get(field).is_some()) {
        return vec![Dialect::Chat];
    }
    let mut own = pieces
        .iter()
        .map(|piece| piece.dialect)
        .filter(|dialect| *dialect != Dialect::Any);
    let first = own.next();
    if own.any(|dialect| Some(dialect) != first) {
        return Vec::new();
    }
    match first {
        Some(dialect) => vec![dialect],
        // Texts in an array are `text` in two dialects and `input_text` in the third.
        None if fields
            .get("content")
            .is_some_and(|content| content.starts_with('[')) =>
        {
            vec![Dialect::Chat, Dialect::Anthropic]
        }
        None => vec![Dialect::Chat, Dialect::Responses, Dialect::Anthropic],
    }
}

fn chat(kind: Kind, raw: &str) -> Piece {
    Piece {
        dialect: Dialect::Chat,
        raw: raw.to_owned(),
        kind,
    }
}

fn text(text: String) -> Piece {
    Piece {
        dialect: Dialect::Any,
        raw: String::new(),
        kind: Kind::Text(text),
    }
}

fn tool_call(raw: &str) -> Kind {
    let call = Fields::parse(raw).unwrap_or_default();
    let Some(id) = call.text("id") else {
        return Kind::Opaque;
    };
    let inner = |name: &str| call.get(name).and_then(Fields::parse);
    let function = inner("function").and_then(|function| {
        Some(Function {
            name: function.text("name")?,
            input: Input::Arguments(function.text("arguments").unwrap_or_default()),
        })
    });
    let custom = || {
        let custom = inner("custom")?;
        Some(Function {
            name: custom.text("name")?,
            input: Input::Text(custom.text("input").unwrap_or_default()),
        })
    };
    Kind::Call(Call {
        id,
        function: function.or_else(custom),
    })
}

/// A string or an array of parts; anything else is shown as its JSON.
fn content(raw: Option<&str>) -> Vec<Piece> {
    let Some(raw) = raw else { return Vec::new() };
    if let Ok(string) = serde_json::from_str::<String>(raw) {
        return vec![text(string)];
    }
    if raw.starts_with('[') {
        return elements(raw).into_iter().map(part).collect();
    }
    vec![text(raw.to_owned())]
}

fn part(raw: &str) -> Piece {
    if let Ok(string) = serde_json::from_str::<String>(raw) {
        return text(string);
    }
    let fields = Fields::parse(raw).unwrap_or_default();
    let kind = fields.text("type").unwrap_or_default();
    let (dialect, kind) = match kind.as_str() {
        "text" => {
            let plain = fields.without(&["type", "text"]) == "{}";
            let dialect = if plain { Dialect::Any } else { Dialect::Anthropic };
            (dialect, Kind::Text(fields.text("text").unwrap_or_default()))
        }
        "input_text" | "output_text" => (
            Dialect::Responses,
            Kind::Text(fields.text("text").unwrap_or_default()),
        ),
        "refusal" => (
            Dialect::Any,
            Kind::Text(fields.text("refusal").unwrap_or_default()),
        ),
        "image_url" => {
            let url = fields
                .get("image_url")
                .and_then(Fields::parse)
                .and_then(|image| image.text("url"));
            (
                Dialect::Chat,
                url.map_or(Kind::Opaque, |url| Kind::Image(Image::from_url(url))),
            )
        }
        "input_image" => {
            let url = fields.text("image_url");
            (
                Dialect::Responses,
                url.map_or(Kind::Opaque, |url| Kind::Image(Image::from_url(url))),
            )
        }
        "image" => (Dialect::Anthropic, source(&fields)),
        "tool_use" => (Dialect::Anthropic, tool_use(&fields)),
        "tool_result" => (Dialect::Anthropic, tool_result(&fields)),
        "thinking" | "redacted_thinking" => (Dialect::Anthropic, Kind::Reasoning),
        "input_audio" | "file" => (Dialect::Chat, Kind::Opaque),
        "input_file" => (Dialect::Responses, Kind::Opaque),
        _ => (Dialect::Anthropic, Kind::Opaque),
    };
    // A breakpoint is the client's to put where it is useful now; a provider takes four of them.
    let raw = if dialect == Dialect::Anthropic && fields.get("cache_control").is_some() {
        fields.without(&["cache_control"])
    } else {
        raw.to_owned()
    };
    Piece { dialect, raw, kind }
}

fn source(fields: &Fields<'_>) -> Kind {
    let source = fields.get("source").and_then(Fields::parse).unwrap_or_default();
    match (source.text("url"), source.text("media_type"), source.text("data")) {
        (Some(url), _, _) => Kind::Image(Image::Url(url)),
        (None, Some(media_type), Some(data)) => Kind::Image(Image::Base64 { media_type, data }),
        _ => Kind::Opaque,
    }
}

fn tool_use(fields: &Fields<'_>) -> Kind {
    let Some(id) = fields.text("id") else {
        return Kind::Opaque;
    };
    let input = Input::Object(fields.get("input").unwrap_or("{}").to_owned());
    let function = fields.text("name").map(|name| Function { name, input });
    Kind::Call(Call { id, function })
}

fn tool_result(fields: &Fields<'_>) -> Kind {
    let Some(id) = fields.text("tool_use_id") else {
        return Kind::Opaque;
    };
    Kind::Result(Answer {
        id,
        content: Some(content(fields.get("content"))),
        is_error: fields.get("is_error") == Some("true"),
    })
}
