//! What the three dialects have in common: who says what, in pieces.

use std::borrow::Cow;

use super::json::{Object, quoted};
use crate::Seq;

/// Whose form something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The same in all of them.
    Any,
    Chat,
    Responses,
    Anthropic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    System,
    Developer,
    User,
    Assistant,
    /// Nothing but results.
    Tool,
}

impl Speaker {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// An item, read.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) seq: Seq,
    pub(super) speaker: Speaker,
    pub(super) pieces: Vec<Piece>,
    /// The whole item without our own fields, and the dialects that take it as it is.
    pub(super) native: String,
    pub(super) native_to: Vec<Dialect>,
}

impl Message {
    pub(super) fn is_native(&self, target: Dialect) -> bool {
        self.native_to.contains(&target)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Whose form `raw` has.
    pub(super) dialect: Dialect,
    /// As it was sent; for a dialect's own pieces only.
    pub(super) raw: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(String),
    Image(Image),
    Call(Call),
    Result(Answer),
    Reasoning,
    /// Means something to its own provider only.
    Opaque,
}

/// A call; `function` is absent if it is to a tool of the provider, which no other provider has.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) function: Option<Function>,
}

#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) input: Input,
}

#[derive(Clone, Debug)]
pub(super) enum Input {
    /// The text of JSON arguments, as `OpenAI` has it; a model may have written anything.
    Arguments(String),
    /// An object, as Anthropic has it.
    Object(String),
    /// The free text of a custom tool.
    Text(String),
}

impl Input {
    /// As the text of JSON.
    pub(super) fn arguments(&self) -> Cow<'_, str> {
        match self {
            Self::Arguments(text) | Self::Object(text) => Cow::Borrowed(text),
            Self::Text(text) => Cow::Owned(Object::new().text("input", text).end()),
        }
    }

    /// As a JSON object; what is not one becomes the field of one.
    pub(super) fn object(&self) -> Cow<'_, str> {
        match self {
            Self::Object(text) => Cow::Borrowed(text),
            Self::Arguments(text) if super::json::Fields::parse(text).is_some() => Cow::Borrowed(text.trim()),
            Self::Arguments(text) if text.trim().is_empty() => Cow::Borrowed("{}"),
            Self::Arguments(text) => Cow::Owned(Object::new().text("arguments", text).end()),
            Self::Text(text) => Cow::Owned(Object::new().text("input", text).end()),
        }
    }
}

/// The result of a call; `content` is absent if the call was to a tool of the provider.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) id: String,
    pub(super) content: Option<Vec<Piece>>,
    pub(super) is_error: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Image {
    Url(String),
    Base64 { media_type: String, data: String },
}

impl Image {
    /// Reads a URL; a data URL is its data.
    pub(super) fn from_url(url: String) -> Self {
        let data = url
            .strip_prefix("data:")
            .and_then(|rest| rest.split_once(";base64,"))
            .map(|(media_type, data)| Self::Base64 {
                media_type: media_type.to_owned(),
                data: data.to_owned(),
            });
        data.unwrap_or(Self::Url(url))
    }

    pub(super) fn url(&self) -> Cow<'_, str> {
        match self {
            Self::Url(url) => Cow::Borrowed(url),
            Self::Base64 { media_type, data } => Cow::Owned(format!("data:{media_type};base64,{data}")),
        }
    }
}

/// How a dialect writes text and images.
pub(super) struct Parts {
    pub(super) dialect: Dialect,
    /// The `type` of text.
    pub(super) text: &'static str,
    pub(super) image: Option<fn(&Image) -> String>,
}

impl Parts {
    /// Content: a string if it is one text, else an array of parts. None if nothing is left. `lost` is called for what this
    /// dialect can't say.
    pub(super) fn content(&self, pieces: &[&Piece], lost: &mut dyn FnMut()) -> Option<String> {
        if let [
            Piece {
                kind: Kind::Text(text),
                ..
            },
        ] = pieces
        {
            return Some(quoted(text));
        }
        let parts = self.parts(pieces, lost);
        (!parts.is_empty()).then(|| super::json::array(&parts))
    }

    pub(super) fn parts(&self, pieces: &[&Piece], lost: &mut dyn FnMut()) -> Vec<String> {
        let mut parts = Vec::new();
        for piece in pieces {
            match (&piece.kind, self.image) {
                _ if piece.dialect == self.dialect => parts.push(piece.raw.clone()),
                (Kind::Text(text), _) => parts.push(Object::of_type(self.text).text("text", text).end()),
                (Kind::Image(image), Some(write)) => parts.push(write(image)),
                _ => lost(),
            }
        }
        parts
    }
}
