//! What a line of an export file can be.

use contextkeep_core::truncate::AutoTruncation;
use contextkeep_core::{ContextId, Invalid, JsonObject, NewContext, Result, Timestamp, Tokenizer};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest line that is read, in bytes: one whole conversation in the chat format.
pub const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A line, told apart by its keys.
#[derive(Deserialize)]
pub(super) struct Line<'line> {
    /// Ours: a context begins.
    #[serde(default, borrow)]
    pub(super) context: Option<&'line RawValue>,
    /// Ours: the version of the format.
    #[serde(default)]
    pub(super) contextkeep: Option<u32>,
    /// Ours: an item.
    #[serde(default, borrow)]
    pub(super) item: Option<&'line RawValue>,
    /// Ours: a context ends.
    #[serde(default)]
    pub(super) end: Option<End>,
    /// Chat: the id.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// Chat: the conversation.
    #[serde(default, borrow)]
    pub(super) messages: Option<Vec<&'line RawValue>>,
}

#[derive(Deserialize)]
pub(super) struct End {
    pub(super) items: u64,
}

/// The head that an export wrote. What the server assigns (version, seqs, counts) is assigned anew.
#[derive(Deserialize)]
pub(super) struct ExportedContext<'line> {
    id: String,
    agent_id: String,
    session_id: Option<String>,
    model_id: Option<String>,
    name: Option<String>,
    description: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'line RawValue>,
    labels: Option<Vec<String>>,
    max_tokens: Option<u64>,
    tokenizer: Option<String>,
    truncation: Option<String>,
    expires_at: Option<Timestamp>,
}

impl ExportedContext<'_> {
    pub(super) fn parse(self) -> Result<NewContext> {
        let tokenizer =
            match self.tokenizer.as_deref() {
                None => None,
                Some(name) => Some(Tokenizer::parse(name).ok_or_else(|| {
                    Invalid::new("context.tokenizer", format!("{name:?} is not a tokenizer"))
                })?),
            };
        Ok(NewContext {
            id: Some(ContextId::parse(&self.id)?),
            agent_id: self.agent_id,
            session_id: self.session_id,
            model_id: self.model_id,
            name: self.name,
            description: self.description,
            metadata: self
                .metadata
                .map(|raw| JsonObject::parse("context.metadata", raw.get()))
                .transpose()?,
            labels: self.labels,
            max_tokens: self.max_tokens,
            tokenizer,
            truncation: self
                .truncation
                .as_deref()
                .map(AutoTruncation::parse)
                .transpose()?,
            expires_at: self.expires_at,
        })
    }
}
