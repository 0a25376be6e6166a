//! Contexts: the small mutable head of a conversation, everything but its items.

use std::sync::Arc;

use crate::error::{Invalid, Result};
use crate::id::ContextId;
use crate::json;
use crate::truncate::AutoTruncation;
use crate::{Seq, Timestamp, Tokenizer, Version};

/// Longest of the short texts of a context (agent, session, model, name, label), in bytes.
pub const SHORT_TEXT_BYTES_MAX: usize = 256;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 8 * 1024;
/// Largest metadata object, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Most labels a context may have.
pub const LABELS_MAX: usize = 32;
/// The budget of a context that did not name one, in tokens.
pub const MAX_TOKENS_DEFAULT: u64 = 128_000;
/// The largest budget a context may name, in tokens.
pub const MAX_TOKENS_MAX: u64 = 1 << 40;

/// The text of a JSON object, kept as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonObject(Arc<str>);

impl JsonObject {
    /// Accepts the text of a strict JSON object of at most [`METADATA_BYTES_MAX`] bytes.
    pub fn parse(field: &'static str, text: &str) -> Result<Self> {
        if text.len() > METADATA_BYTES_MAX {
            return Err(crate::Error::TooLarge {
                what: format!("{field} in bytes").into(),
                actual: text.len() as u64,
                limit: METADATA_BYTES_MAX as u64,
            });
        }
        match json::parse_strict(text) {
            Ok(serde_json::Value::Object(_)) => Ok(Self(Arc::from(text))),
            Ok(_) => Err(Invalid::new(field, "is not a JSON object").into()),
            Err(problem) => Err(Invalid::new(field, problem).into()),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether two texts mean the same object, whatever their spacing and order.
    pub fn same_as(&self, other: &Self) -> bool {
        self == other || json::parse_strict(&self.0) == json::parse_strict(&other.0)
    }

    /// For text that a store returns, which was parsed on its way in.
    #[cfg(any(feature = "cache", feature = "embedded", feature = "postgres"))]
    pub(crate) fn trusted(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl Default for JsonObject {
    fn default() -> Self {
        Self(Arc::from("{}"))
    }
}

/// What a context was forked from, as it was then. The parent may be gone since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkedFrom {
    /// The parent.
    pub id: ContextId,
    /// The last item that was shared.
    pub at_seq: Seq,
}

/// The head of a context. `version` grows by one with each committed change, its deletion included.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Its id, unique within the tenant.
    pub id: ContextId,
    /// The agent that it belongs to.
    pub agent_id: String,
    /// The agent's session, if it has several.
    pub session_id: Option<String>,
    /// The model that it is meant for.
    pub model_id: Option<String>,
    /// A short name for people.
    pub name: Option<String>,
    /// A longer text for people.
    pub description: Option<String>,
    /// The client's own data.
    pub metadata: JsonObject,
    /// Words to filter by.
    pub labels: Vec<String>,
    /// The budget that `over_budget` is measured against, in tokens.
    pub max_tokens: u64,
    /// How tokens are counted.
    pub tokenizer: Tokenizer,
    /// What it does by itself when it is over its budget.
    pub truncation: AutoTruncation,
    /// What it was forked from, if it was.
    pub forked_from: Option<ForkedFrom>,
    /// When it stops to exist.
    pub expires_at: Option<Timestamp>,
    /// One more with each committed change.
    pub version: Version,
    /// The oldest item that is there; equals `next_seq` when there is none.
    pub first_seq: Seq,
    /// The seq that the next item gets.
    pub next_seq: Seq,
    /// Items that are there.
    pub item_count: u64,
    /// Their tokens.
    pub tokens: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The store's number for the run of items that the head points at. Two heads of one context with the same number:
    /// the items of the older one are the first items of the newer one. Not for clients.
    pub stream: u64,
}

impl Context {
    /// Whether the items are more than the budget.
    pub fn over_budget(&self) -> bool {
        self.tokens > self.max_tokens
    }
}

/// What a client says of a context that it creates. Absent fields take their defaults.
#[derive(Clone, Debug, Default)]
pub struct NewContext {
    /// Chosen by the client, which makes the creation idempotent; else a `UUIDv7`.
    pub id: Option<ContextId>,
    /// The agent that it belongs to.
    pub agent_id: String,
    /// See [`Context::session_id`].
    pub session_id: Option<String>,
    /// See [`Context::model_id`].
    pub model_id: Option<String>,
    /// See [`Context::name`].
    pub name: Option<String>,
    /// See [`Context::description`].
    pub description: Option<String>,
    /// See [`Context::metadata`].
    pub metadata: Option<JsonObject>,
    /// See [`Context::labels`].
    pub labels: Option<Vec<String>>,
    /// See [`Context::max_tokens`]; [`MAX_TOKENS_DEFAULT`] if absent.
    pub max_tokens: Option<u64>,
    /// See [`Context::tokenizer`]; if absent, [`Tokenizer::for_model`] of the model, else the default.
    pub tokenizer: Option<Tokenizer>,
    /// See [`Context::truncation`].
    pub truncation: Option<AutoTruncation>,
    /// See [`Context::expires_at`].
    pub expires_at: Option<Timestamp>,
}

impl NewContext {
    /// A context of this agent with nothing else said.
    pub fn of_agent(agent_id: impl Into<String>) -> Self {
        Self {
            agent_id: agent_id.into(),
            ..Self::default()
        }
    }

    /// The same, under an id that the client chose.
    #[must_use]
    pub fn with_id(mut self, id: ContextId) -> Self {
        self.id = Some(id);
        self
    }

    /// Checks lengths and counts.
    pub fn validate(&self) -> Result<()> {
        if self.agent_id.is_empty() {
            return Err(Invalid::new("agent_id", "is empty")
                .hint("name the agent, such as \"planner\"")
                .into());
        }
        short("agent_id", Some(&self.agent_id))?;
        short("session_id", self.session_id.as_deref())?;
        short("model_id", self.model_id.as_deref())?;
        short("name", self.name.as_deref())?;
        text("description", self.description.as_deref(), DESCRIPTION_BYTES_MAX)?;
        check_labels(self.labels.as_deref())?;
        check_max_tokens(self.max_tokens)
    }

    /// What a fork of `parent` is: as said, and the parent's where nothing was said.
    ///
    /// # Errors
    /// Another tokenizer than the parent's: the counts of the shared items are the parent's.
    pub fn forked_from(self, parent: &Context) -> Result<Self> {
        if self
            .tokenizer
            .is_some_and(|tokenizer| tokenizer != parent.tokenizer)
        {
            return Err(
                Invalid::new("tokenizer", format!("is not the parent's, {}", parent.tokenizer))
                    .hint("leave it out: a fork counts as its parent does")
                    .into(),
            );
        }
        Ok(Self {
            tokenizer: Some(parent.tokenizer),
            max_tokens: self.max_tokens.or(Some(parent.max_tokens)),
            truncation: self.truncation.or(Some(parent.truncation)),
            model_id: self.model_id.or_else(|| parent.model_id.clone()),
            ..self
        })
    }

    /// The head of a context that was just created so: empty, at version 1.
    pub fn into_context(self, id: ContextId, now: Timestamp) -> Context {
        let of_model = || self.model_id.as_deref().and_then(Tokenizer::for_model);
        let tokenizer = self.tokenizer.or_else(of_model).unwrap_or_default();
        Context {
            id,
            agent_id: self.agent_id,
            session_id: self.session_id,
            model_id: self.model_id,
            name: self.name,
            description: self.description,
            metadata: self.metadata.unwrap_or_default(),
            labels: self.labels.unwrap_or_default(),
            max_tokens: self.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT),
            tokenizer,
            truncation: self.truncation.unwrap_or_default(),
            forked_from: None,
            expires_at: self.expires_at,
            version: 1,
            first_seq: 1,
            next_seq: 1,
            item_count: 0,
            tokens: 0,
            created_at: now,
            updated_at: now,
            stream: 0,
        }
    }

    /// The first field that was said here and that `context` has otherwise.
    pub fn differs_from(&self, context: &Context) -> Option<&'static str> {
        fn said<T: PartialEq>(said: Option<&T>, is: Option<&T>) -> bool {
            said.is_some() && said != is
        }
        if self.agent_id != context.agent_id {
            Some("agent_id")
        } else if said(self.session_id.as_ref(), context.session_id.as_ref()) {
            Some("session_id")
        } else if said(self.model_id.as_ref(), context.model_id.as_ref()) {
            Some("model_id")
        } else if said(self.name.as_ref(), context.name.as_ref()) {
            Some("name")
        } else if said(self.description.as_ref(), context.description.as_ref()) {
            Some("description")
        } else if self
            .metadata
            .as_ref()
            .is_some_and(|metadata| !metadata.same_as(&context.metadata))
        {
            Some("metadata")
        } else if said(self.labels.as_ref(), Some(&context.labels)) {
            Some("labels")
        } else if said(self.max_tokens.as_ref(), Some(&context.max_tokens)) {
            Some("max_tokens")
        } else if said(self.tokenizer.as_ref(), Some(&context.tokenizer)) {
            Some("tokenizer")
        } else if said(self.truncation.as_ref(), Some(&context.truncation)) {
            Some("truncation")
        } else if said(self.expires_at.as_ref(), context.expires_at.as_ref()) {
            Some("expires_at")
        } else {
            None
        }
    }
}

/// A change of a head. `None` leaves a field as it is; `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContextPatch {
    /// See [`Context::session_id`].
    pub session_id: Option<Option<String>>,
    /// See [`Context::model_id`].
    pub model_id: Option<Option<String>>,
    /// See [`Context::name`].
    pub name: Option<Option<String>>,
    /// See [`Context::description`].
    pub description: Option<Option<String>>,
    /// Replaces the whole object; clearing makes it empty.
    pub metadata: Option<JsonObject>,
    /// Replaces the whole list.
    pub labels: Option<Vec<String>>,
    /// See [`Context::max_tokens`].
    pub max_tokens: Option<u64>,
    /// See [`Context::truncation`].
    pub truncation: Option<AutoTruncation>,
    /// See [`Context::expires_at`].
    pub expires_at: Option<Option<Timestamp>>,
}

impl ContextPatch {
    /// Checks lengths and counts, and that something is to be changed.
    pub fn validate(&self) -> Result<()> {
        if *self == Self::default() {
            return Err(Invalid::new("", "changes nothing")
                .hint("send at least one of session_id, model_id, name, description, metadata, labels, max_tokens, truncation, expires_at")
                .into());
        }
        let inner = |field: &'static str, value: &Option<Option<String>>, max| {
            text(field, value.as_ref().and_then(|value| value.as_deref()), max)
        };
        inner("session_id", &self.session_id, SHORT_TEXT_BYTES_MAX)?;
        inner("model_id", &self.model_id, SHORT_TEXT_BYTES_MAX)?;
        inner("name", &self.name, SHORT_TEXT_BYTES_MAX)?;
        inner("description", &self.description, DESCRIPTION_BYTES_MAX)?;
        check_labels(self.labels.as_deref())?;
        check_max_tokens(self.max_tokens)
    }

    /// Makes the change. The version is the store's business.
    pub fn apply(&self, context: &mut Context) {
        fn set<T: Clone>(field: &mut T, change: Option<&T>) {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        set(&mut context.session_id, self.session_id.as_ref());
        set(&mut context.model_id, self.model_id.as_ref());
        set(&mut context.name, self.name.as_ref());
        set(&mut context.description, self.description.as_ref());
        set(&mut context.metadata, self.metadata.as_ref());
        set(&mut context.labels, self.labels.as_ref());
        set(&mut context.max_tokens, self.max_tokens.as_ref());
        set(&mut context.truncation, self.truncation.as_ref());
        set(&mut context.expires_at, self.expires_at.as_ref());
    }
}

fn short(field: &'static str, value: Option<&str>) -> Result<()> {
    text(field, value, SHORT_TEXT_BYTES_MAX)
}

fn text(field: &'static str, value: Option<&str>, bytes_max: usize) -> Result<()> {
    match value {
        Some(value) if value.len() > bytes_max => Err(Invalid::new(
            field,
            format!("is {} bytes long; the limit is {bytes_max}", value.len()),
        )
        .into()),
        Some(value) if value.contains('\0') => {
            Err(Invalid::new(field, "has a NUL character, which no database stores as text").into())
        }
        _ => Ok(()),
    }
}

fn check_labels(labels: Option<&[String]>) -> Result<()> {
    let labels = labels.unwrap_or_default();
    if labels.len() > LABELS_MAX {
        return Err(Invalid::new(
            "labels",
            format!("has {} entries; the limit is {LABELS_MAX}", labels.len()),
        )
        .into());
    }
    for (index, label) in labels.iter().enumerate() {
        if label.is_empty() || label.len() > SHORT_TEXT_BYTES_MAX || label.contains('\0') {
            return Err(Invalid::new(
                format!("labels[{index}]"),
                format!("is empty, has a NUL, or is over {SHORT_TEXT_BYTES_MAX} bytes"),
            )
            .into());
        }
        if labels.iter().take(index).any(|other| other == label) {
            return Err(Invalid::new(format!("labels[{index}]"), format!("{label:?} stands twice")).into());
        }
    }
    Ok(())
}

fn check_max_tokens(max_tokens: Option<u64>) -> Result<()> {
    match max_tokens {
        Some(tokens) if tokens == 0 || tokens > MAX_TOKENS_MAX => {
            Err(Invalid::new("max_tokens", format!("is not between 1 and {MAX_TOKENS_MAX}")).into())
        }
        _ => Ok(()),
    }
}
