//! A window in a provider's words. Pure functions over items that may have come in any of the three dialects.
//!
//! - **F1** What is in the target's dialect already passes through byte for byte, without our own fields; text, images, calls
//!   and results of the others are converted.
//! - **F2** The same items give the same bytes. What is appended after a message of the user or a result, when all calls are
//!   answered, changes nothing before it, so that the prefix that a provider cached stays. Two things do: an instruction,
//!   which joins the others in Anthropic's `system`, and a result that comes after somebody else has spoken.
//! - **F3** The output keeps the provider's rules, which are written down in `rules.rs` with their sources, whatever the
//!   client has sent: a result without call, and a call that was not answered before somebody else spoke, are left out. No
//!   result is invented.
//! - **F4** What is left out is named in the reasons.
//!
//! Tokens are those of the items, counted as they came; what a dialect needs around them is not counted anew.

mod anthropic;
mod chat;
mod json;
mod pair;
mod piece;
mod read;
mod responses;

use super::Reason;
use crate::{Item, Seq};
use piece::Message;

/// How a window can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The items as they were sent.
    #[default]
    Items,
    /// Messages of `OpenAI` Chat Completions.
    Chat,
    /// Input of `OpenAI` Responses.
    Responses,
    /// System and messages of Anthropic.
    Anthropic,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Items, Self::Chat, Self::Responses, Self::Anthropic];

    /// The name used in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Chat => "openai.chat",
            Self::Responses => "openai.responses",
            Self::Anthropic => "anthropic",
        }
    }

    /// Reads [`Format::as_str`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// Writes items; `None` if they are to be left as they are.
    pub fn render(self, items: &[Item]) -> Option<Rendered> {
        match self {
            Self::Items => None,
            Self::Chat => Some(chat(items)),
            Self::Responses => Some(responses(items)),
            Self::Anthropic => Some(anthropic(items)),
        }
    }
}

/// Items in a provider's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// JSON of the blocks of Anthropic's `system`; empty for the others, which have instructions among the messages.
    pub system: Vec<String>,
    /// JSON of the messages, or of the input items.
    pub messages: Vec<String>,
    /// What was left out or added, each at most once.
    pub reasons: Vec<Reason>,
    /// Seq of the first item in each message.
    seqs: Vec<Seq>,
}

impl Rendered {
    /// Index of the message in which the items up to `seq` end. `None` if they are all in `system`, or nowhere.
    pub fn message_of(&self, seq: Seq) -> Option<usize> {
        self.seqs.iter().rposition(|first| *first <= seq)
    }
}

/// As messages of Chat Completions.
pub fn chat(items: &[Item]) -> Rendered {
    Out::of(items, chat::render)
}

/// As input of Responses.
pub fn responses(items: &[Item]) -> Rendered {
    Out::of(items, responses::render)
}

/// As Anthropic's `system` and `messages`.
pub fn anthropic(items: &[Item]) -> Rendered {
    Out::of(items, anthropic::render)
}

/// Collects what a renderer writes.
#[derive(Default)]
struct Out {
    system: Vec<String>,
    messages: Vec<(Seq, String)>,
    loss: Loss,
}

impl Out {
    fn of(items: &[Item], render: fn(&[Message], &mut Self)) -> Rendered {
        let messages: Vec<Message> = items.iter().map(read::read).collect();
        let mut out = Self::default();
        render(&messages, &mut out);
        let (seqs, messages) = out.messages.into_iter().unzip();
        Rendered {
            system: out.system,
            messages,
            reasons: out.loss.0,
            seqs,
        }
    }

    fn push(&mut self, seq: Seq, json: String) {
        self.messages.push((seq, json));
    }
}

/// What a renderer could not say.
#[derive(Default)]
struct Loss(Vec<Reason>);

impl Loss {
    fn note(&mut self, reason: Reason) {
        if !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }
}
