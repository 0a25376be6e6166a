//! Items: what agents already send, kept byte for byte, understood just enough to cut between them safely.

mod recognise;

use std::sync::Arc;

use crate::error::{Error, Invalid, Result};
use crate::id::ClientId;
use crate::json;
use crate::{Seq, Timestamp, Tokenizer};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions of the platform.
    System,
    /// Instructions of the developer.
    Developer,
    /// The person, or what stands in for one.
    User,
    /// The model.
    Assistant,
    /// A tool's answer.
    Tool,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [
        Self::System,
        Self::Developer,
        Self::User,
        Self::Assistant,
        Self::Tool,
    ];

    /// The name that providers use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Reads [`Role::as_str`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Instructions are always part of a window.
    pub const fn is_instruction(self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }
}

/// What kind of thing an item is, as far as cutting between items goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something said, possibly with tool calls.
    Message,
    /// One or more tool results and nothing else.
    ToolResult,
    /// A provider's reasoning, which belongs to what follows it.
    Reasoning,
    /// A provider's item of another kind: passed through.
    Other,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Message, Self::ToolResult, Self::Reasoning, Self::Other];

    /// Stable name, used by the stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::ToolResult => "tool_result",
            Self::Reasoning => "reasoning",
            Self::Other => "other",
        }
    }

    /// Reads [`Kind::as_str`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The tool calls that an item makes and answers, by the provider's call id.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Links {
    /// Calls made.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// Calls answered.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<String>,
}

impl Links {
    /// Whether the item neither calls nor answers.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.results.is_empty()
    }
}

/// What was understood of an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Traits {
    /// Who speaks.
    pub role: Role,
    /// What kind of thing it is.
    pub kind: Kind,
    /// The calls it makes and answers.
    pub links: Links,
    /// The client's name for it.
    pub client_id: Option<ClientId>,
    /// Always part of a window.
    pub pinned: bool,
    /// From 0 (drop first) to 1 (drop last).
    pub importance: Option<f64>,
}

impl Traits {
    /// A turn begins where the user speaks; tool results in a user message do not begin one.
    pub fn starts_turn(&self) -> bool {
        self.role == Role::User && self.kind == Kind::Message
    }

    /// Instructions and pinned items are in every window.
    pub fn always_kept(&self) -> bool {
        self.pinned || self.role.is_instruction()
    }
}

/// An item on its way in: the bytes as sent, what was understood, and its size in tokens.
#[derive(Clone, Debug)]
pub struct NewItem {
    /// The JSON object exactly as the client sent it.
    pub body: Arc<str>,
    /// What was understood of it.
    pub traits: Traits,
    /// Its size, counted with the tokenizer that the append names.
    pub tokens: u32,
    text: Arc<str>,
    media: u32,
}

impl NewItem {
    /// Recognises an item. `tokens` is 0 until [`NewItem::count`] is called.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over `bytes_max`; [`Error::Invalid`] for text that is not strict JSON or not an
    /// item, with a field path relative to the item.
    pub fn parse(body: &str, bytes_max: u64) -> Result<Self> {
        let actual = body.len() as u64;
        if actual > bytes_max {
            return Err(Error::TooLarge {
                what: "an item in bytes".into(),
                actual,
                limit: bytes_max,
            });
        }
        let value = json::parse_strict(body).map_err(|problem| Invalid::new("", problem))?;
        let recognised = recognise::recognise(&value)?;
        Ok(Self {
            body: Arc::from(body),
            traits: recognised.traits,
            tokens: 0,
            text: Arc::from(recognised.text),
            media: recognised.media,
        })
    }

    /// Counts the item's tokens. Linear in the length of the text; call it off the reactor for big items.
    pub fn count(&mut self, tokenizer: Tokenizer) {
        self.tokens = tokenizer.count_item(&self.text, self.media);
    }

    /// The text that is counted and searched: what is said, called and answered.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The text of a stored item, for a search index. Empty if the body is not an item, which no store returns.
pub fn searchable_text(body: &str) -> String {
    json::parse_strict(body)
        .ok()
        .and_then(|value| recognise::recognise(&value).ok())
        .map(|recognised| recognised.text)
        .unwrap_or_default()
}

/// An item at its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its place: assigned by the server, gap-free in append order, never from a clock (G3).
    pub seq: Seq,
    /// Its size in tokens, counted once at append.
    pub tokens: u32,
    /// When it was acknowledged.
    pub created_at: Timestamp,
    /// What was understood of it.
    pub traits: Traits,
    /// The JSON object exactly as the client sent it.
    pub body: Arc<str>,
}
