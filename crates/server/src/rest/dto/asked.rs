//! What clients say.

#![expect(
    clippy::option_option,
    reason = "absent, null and a value are three different wishes in a merge patch"
)]

use contextkeep_core::item::NewItem;
use contextkeep_core::truncate::{AutoTruncation, Strategy};
use contextkeep_core::{
    ContextId, ContextPatch, Error, Invalid, JsonObject, NewContext, Result, Timestamp, Tokenizer,
    TruncateRequest, Version,
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::semantic::SearchMode;

/// What a client says of a context that it creates.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateContext<'body> {
    /// 1 to 128 letters, digits and `. _ - ~ : @`. Creating the same context twice is one creation. A `UUIDv7` if absent.
    id: Option<String>,
    /// The agent that the context belongs to.
    agent_id: String,
    session_id: Option<String>,
    model_id: Option<String>,
    name: Option<String>,
    description: Option<String>,
    /// The client's own data: a JSON object of at most 64 KiB, kept as sent.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    metadata: Option<&'body RawValue>,
    /// Words to filter lists by.
    labels: Option<Vec<String>>,
    /// The budget that `over_budget` is measured against; 128000 if absent.
    max_tokens: Option<u64>,
    /// `o200k_base`, `cl100k_base`, `claude_estimate`, `gemini_estimate` or `estimate`; if absent, the one of `model_id`,
    /// else `o200k_base`. Fixed for the life of the context.
    tokenizer: Option<String>,
    /// What happens by itself after an append that puts the context over `max_tokens`: `none` (the default), or a
    /// strategy of truncate, down to four fifths of `max_tokens`. It runs beside the appends and makes a version of its
    /// own; `relevance` goes by what the user said last.
    truncation: Option<String>,
    /// RFC 3339. From then on the context is gone.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl CreateContext<'_> {
    pub(crate) fn parse(self) -> Result<NewContext> {
        Ok(NewContext {
            id: self.id.as_deref().map(ContextId::parse).transpose()?,
            agent_id: self.agent_id,
            session_id: self.session_id,
            model_id: self.model_id,
            name: self.name,
            description: self.description,
            metadata: self
                .metadata
                .map(|raw| JsonObject::parse("metadata", raw.get()))
                .transpose()?,
            labels: self.labels,
            max_tokens: self.max_tokens,
            tokenizer: self.tokenizer.as_deref().map(tokenizer).transpose()?,
            truncation: self
                .truncation
                .as_deref()
                .map(AutoTruncation::parse)
                .transpose()?,
            expires_at: self.expires_at,
        })
    }
}

fn tokenizer(name: &str) -> Result<Tokenizer> {
    Tokenizer::parse(name).ok_or_else(|| {
        Invalid::new("tokenizer", format!("{name:?} is not a tokenizer"))
            .hint("use o200k_base, cl100k_base, claude_estimate, gemini_estimate, estimate, or one that the operator has named")
            .into()
    })
}

/// A fork: where to part, and what differs from the parent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fork<'body> {
    /// The last item that both share; the newest if absent.
    pub(crate) at: Option<u64>,
    /// The context to create. Its model and budget are the parent's unless it says otherwise; it counts tokens as the parent does.
    #[serde(borrow)]
    pub(crate) context: CreateContext<'body>,
}

/// A merge patch: absent leaves a field, `null` clears it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchContext<'body> {
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    session_id: Option<Option<String>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    model_id: Option<Option<String>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// Replaces the whole object; `null` empties it.
    #[serde(borrow, default, deserialize_with = "said")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<&'body RawValue>>,
    /// Replaces the whole list; `null` empties it.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<Vec<String>>)]
    labels: Option<Option<Vec<String>>>,
    max_tokens: Option<u64>,
    /// `none`, or a strategy of truncate; `null` means `none`.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    truncation: Option<Option<String>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Timestamp>>,
}

impl PatchContext<'_> {
    pub(crate) fn parse(self) -> Result<ContextPatch> {
        let metadata = match self.metadata {
            None => None,
            Some(None) => Some(JsonObject::default()),
            Some(Some(raw)) => Some(JsonObject::parse("metadata", raw.get())?),
        };
        Ok(ContextPatch {
            session_id: self.session_id,
            model_id: self.model_id,
            name: self.name,
            description: self.description,
            metadata,
            labels: self.labels.map(Option::unwrap_or_default),
            max_tokens: self.max_tokens,
            truncation: match self.truncation {
                None => None,
                Some(None) => Some(AutoTruncation::None),
                Some(Some(name)) => Some(AutoTruncation::parse(&name)?),
            },
            expires_at: self.expires_at,
        })
    }
}

/// Tells `null` from absent.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Items, each exactly as agents have them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Items<'body> {
    /// `OpenAI` chat messages, `OpenAI` responses items or Anthropic messages; `client_id`, `pinned`, `importance`
    /// and `metadata` may stand beside their own fields.
    #[serde(borrow)]
    #[schema(value_type = Vec<Object>)]
    items: Vec<&'body RawValue>,
}

impl Items<'_> {
    pub(crate) fn parse(&self, bytes_max: u64) -> Result<Vec<NewItem>> {
        parse_items(self.items.iter().map(|raw| raw.get()), bytes_max)
    }
}

/// Parses items; an error names the one that is to blame.
pub(crate) fn parse_items<'text>(
    bodies: impl Iterator<Item = &'text str>,
    bytes_max: u64,
) -> Result<Vec<NewItem>> {
    bodies
        .enumerate()
        .map(|(index, body)| {
            NewItem::parse(body, bytes_max).map_err(|error| match error {
                Error::Invalid(invalid) => invalid.under(&format!("items[{index}]")).into(),
                Error::TooLarge { actual, limit, .. } => Error::TooLarge {
                    what: format!("items[{index}] in bytes").into(),
                    actual,
                    limit,
                },
                other => other,
            })
        })
        .collect()
}

/// Which items to drop.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Truncate {
    /// Items are dropped until the tokens are at most this. Instructions and pinned items stay, a call stays with its
    /// results, and of the newest turn at least its beginning and its end.
    max_tokens: u64,
    /// What goes first. `oldest_first` (the default): whole turns. `preserving_user`: tool exchanges and what the model
    /// said; what the user said after all of that. `tool_results_first`: calls with their results; other items after all
    /// of these. `importance`: the least important; 0.5 where an item names none. `relevance`: what has least to do with
    /// `query`, by its words. The oldest first among equals. All but `oldest_first` read the whole context, which may have
    /// at most 20,000 items and 16 MiB.
    #[schema(example = "oldest_first")]
    strategy: Option<String>,
    /// What the rest is needed for; `relevance` needs it, the others refuse it. At most 8 KiB.
    query: Option<String>,
    /// Only say what would be dropped.
    #[serde(default)]
    dry_run: bool,
}

impl Truncate {
    pub(crate) fn request(self, expected: Option<Version>) -> Result<TruncateRequest> {
        Ok(TruncateRequest {
            max_tokens: self.max_tokens,
            strategy: self
                .strategy
                .as_deref()
                .map(Strategy::parse)
                .transpose()?
                .unwrap_or_default(),
            query: self.query,
            expected,
            dry_run: self.dry_run,
        })
    }
}

/// What to look for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// Words that must all be there; `"a phrase"`, `pre*`, `-without`, `a OR b`. With mode `semantic` a question in anybody's
    /// words.
    pub(crate) query: String,
    /// `text` if absent: by words. `semantic`: by meaning. `hybrid`: the best hundred of both, put together. The last two need
    /// `context_manager.semantic`.
    pub(crate) mode: Option<SearchMode>,
    /// Only items of this role.
    pub(crate) role: Option<String>,
    /// Only items acknowledged at this time or later, RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) since: Option<Timestamp>,
    /// Only items acknowledged before this time, RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) until: Option<Timestamp>,
    /// Hits on a page: 1 to 100, 20 if absent.
    pub(crate) limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}
