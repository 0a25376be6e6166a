//! Shapes on the wire. They exist here only; the core's types are not serialised for the wire's sake.

#![expect(
    clippy::option_option,
    reason = "absent, null and a value are three different wishes in a merge patch"
)]

use contextkeep_core::item::NewItem;
use contextkeep_core::semantic::SemanticPage;
use contextkeep_core::store::{Appended, Hit, ItemPage, SeqRange};
use contextkeep_core::truncate::{AutoTruncation, Strategy};
use contextkeep_core::{
    Context, ContextId, ContextPatch, Error, ForkedFrom, Invalid, Item, JsonObject, NewContext, Result,
    Timestamp, Tokenizer, TruncateRequest, Truncation, Version,
};
use serde::{Deserialize, Deserializer, Serialize};
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

/// The head of a context.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Context)]
pub(crate) struct ContextBody<'context> {
    id: &'context str,
    agent_id: &'context str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'context str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'context str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'context str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'context str>,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    labels: &'context [String],
    max_tokens: u64,
    tokenizer: &'static str,
    /// `none`, or the strategy by which it is truncated by itself.
    truncation: &'static str,
    /// What it was forked from, as it was then; the parent may be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    forked_from: Option<ForkedFromBody<'context>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// One more with each committed change; also the `ETag`.
    version: u64,
    /// The oldest item that is there; equals `next_seq` when there is none.
    first_seq: u64,
    /// The seq that the next item gets.
    next_seq: u64,
    item_count: u64,
    tokens: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// Where a fork parted from its parent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ForkedFrom)]
pub(crate) struct ForkedFromBody<'context> {
    id: &'context str,
    /// The last item that was shared.
    at_seq: u64,
}

impl<'context> From<&'context ForkedFrom> for ForkedFromBody<'context> {
    fn from(parent: &'context ForkedFrom) -> Self {
        Self {
            id: parent.id.as_str(),
            at_seq: parent.at_seq,
        }
    }
}

impl<'context> From<&'context Context> for ContextBody<'context> {
    fn from(context: &'context Context) -> Self {
        Self {
            id: context.id.as_str(),
            agent_id: &context.agent_id,
            session_id: context.session_id.as_deref(),
            model_id: context.model_id.as_deref(),
            name: context.name.as_deref(),
            description: context.description.as_deref(),
            metadata: RawValue::from_string(context.metadata.as_str().to_owned())
                .expect("invariant: metadata was parsed as JSON on its way in"),
            labels: &context.labels,
            max_tokens: context.max_tokens,
            tokenizer: context.tokenizer.as_str(),
            truncation: context.truncation.as_str(),
            forked_from: context.forked_from.as_ref().map(ForkedFromBody::from),
            expires_at: context.expires_at,
            version: context.version,
            first_seq: context.first_seq,
            next_seq: context.next_seq,
            item_count: context.item_count,
            tokens: context.tokens,
            created_at: context.created_at,
            updated_at: context.updated_at,
        }
    }
}

/// A page of contexts, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContextList<'context> {
    pub(crate) contexts: Vec<ContextBody<'context>>,
    /// Send it as `cursor` for the next page; `null` on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// What an append answers; the same for a retry.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppendedBody {
    first_seq: u64,
    last_seq: u64,
    /// Tokens of these items.
    tokens: u64,
    version: u64,
    /// Whether the context was over `max_tokens` after it.
    over_budget: bool,
}

impl From<Appended> for AppendedBody {
    fn from(appended: Appended) -> Self {
        Self {
            first_seq: appended.first_seq,
            last_seq: appended.last_seq,
            tokens: appended.tokens,
            version: appended.version,
            over_budget: appended.over_budget,
        }
    }
}

/// An item at its place. Only documents the shape: bodies are written as they are, not serialised again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredItem)]
pub(crate) struct StoredItem {
    seq: u64,
    tokens: u32,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Exactly as it was sent.
    #[schema(value_type = Object)]
    item: Box<RawValue>,
}

/// A page of items. Only documents the shape.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemList {
    items: Vec<StoredItem>,
    next_cursor: Option<String>,
}

/// A page of hits, best first. Only documents the shape.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HitList {
    hits: Vec<HitBody>,
    next_cursor: Option<String>,
    /// Acknowledged items that cannot be found yet.
    lag_items: u64,
    /// How a search by meaning went; absent with mode `text`.
    semantic: Option<SemanticScan>,
    /// `embedder_unavailable` if a hybrid search was answered by words alone; else absent.
    degraded: Option<&'static str>,
}

/// How a search by meaning went. Only documents the shape.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SemanticScan {
    /// The embedder's model.
    model: String,
    /// Items that the question was compared with.
    scanned: u64,
    /// Whether there were more, older ones, that it was not compared with: `context_manager.semantic.scan_max`.
    cut_off: bool,
}

/// One hit. Only documents the shape.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hit)]
pub(crate) struct HitBody {
    context_id: String,
    seq: u64,
    /// Larger is better; comparable within one page.
    score: f64,
    /// Text around what was found, hits between « and ».
    snippet: String,
    #[schema(value_type = Object)]
    item: Box<RawValue>,
}

/// What a truncation did or would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Truncation)]
pub(crate) struct TruncationBody<'context> {
    dropped_items: u64,
    dropped_tokens: u64,
    /// The seqs of which nothing is left, oldest first; the first 64 ranges. What was left out of the middle before
    /// counts as well.
    dropped_ranges: Vec<RangeBody>,
    /// Whether there are more ranges.
    more_ranges: bool,
    context: ContextBody<'context>,
}

impl<'context> From<&'context Truncation> for TruncationBody<'context> {
    fn from(truncation: &'context Truncation) -> Self {
        Self {
            dropped_items: truncation.dropped_items,
            dropped_tokens: truncation.dropped_tokens,
            dropped_ranges: truncation.dropped_ranges.iter().map(RangeBody::from).collect(),
            more_ranges: truncation.more_ranges,
            context: ContextBody::from(&truncation.context),
        }
    }
}

/// Seqs from first to last, both included.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeqRange)]
pub(crate) struct RangeBody {
    first_seq: u64,
    last_seq: u64,
}

impl From<&SeqRange> for RangeBody {
    fn from(range: &SeqRange) -> Self {
        Self {
            first_seq: range.first,
            last_seq: range.last,
        }
    }
}

/// Writes JSON whose items are copied as they are: neither parsed nor serialised again.
pub(crate) mod write {
    use std::io::Write as _;

    use super::{Hit, Item, ItemPage, SemanticPage};

    /// A JSON string.
    pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
        serde_json::to_writer(out, text).expect("invariant: writing a string to memory does not fail");
    }

    pub(crate) fn number(out: &mut Vec<u8>, name: &str, value: u64) {
        write!(out, "\"{name}\":{value}").expect("invariant: writing to memory does not fail");
    }

    fn cursor(out: &mut Vec<u8>, cursor: Option<&str>) {
        out.extend_from_slice(b",\"next_cursor\":");
        match cursor {
            Some(cursor) => string(out, cursor),
            None => out.extend_from_slice(b"null"),
        }
    }

    pub(crate) fn each<T>(
        out: &mut Vec<u8>,
        name: &str,
        values: &[T],
        mut one: impl FnMut(&mut Vec<u8>, &T),
    ) {
        write!(out, "\"{name}\":[").expect("invariant: writing to memory does not fail");
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            one(out, value);
        }
        out.push(b']');
    }

    /// One stored item.
    pub(crate) fn item(out: &mut Vec<u8>, item: &Item) {
        write!(
            out,
            "{{\"seq\":{},\"tokens\":{},\"created_at\":\"{}\",\"item\":{}}}",
            item.seq, item.tokens, item.created_at, item.body
        )
        .expect("invariant: writing to memory does not fail");
    }

    pub(crate) fn capacity(items: &[Item]) -> usize {
        items.iter().map(|item| item.body.len() + 96).sum::<usize>() + 256
    }

    pub(crate) fn page(page: &ItemPage, next: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(capacity(&page.items));
        out.push(b'{');
        each(&mut out, "items", &page.items, item);
        cursor(&mut out, next);
        out.push(b'}');
        out
    }

    pub(crate) fn hits(
        hits: &[Hit],
        next: Option<&str>,
        lag_items: u64,
        semantic: Option<&SemanticPage>,
    ) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(hits.iter().map(|hit| hit.item.body.len() + 512).sum::<usize>() + 128);
        out.push(b'{');
        each(&mut out, "hits", hits, |out, hit| {
            out.extend_from_slice(b"{\"context_id\":");
            string(out, hit.context.as_str());
            out.push(b',');
            number(out, "seq", hit.item.seq);
            write!(out, ",\"score\":{:.6},\"snippet\":", hit.score)
                .expect("invariant: writing to memory does not fail");
            string(out, &hit.snippet);
            out.extend_from_slice(b",\"item\":");
            out.extend_from_slice(hit.item.body.as_bytes());
            out.push(b'}');
        });
        cursor(&mut out, next);
        out.push(b',');
        number(&mut out, "lag_items", lag_items);
        if let Some(page) = semantic {
            scan(&mut out, page);
        }
        out.push(b'}');
        out
    }

    fn scan(out: &mut Vec<u8>, page: &SemanticPage) {
        out.extend_from_slice(b",\"semantic\":{\"model\":");
        string(out, &page.model);
        out.push(b',');
        number(out, "scanned", page.scanned);
        write!(out, ",\"cut_off\":{}}}", page.cut_off).expect("invariant: writing to memory does not fail");
        if let Some(degraded) = page.degraded {
            out.extend_from_slice(b",\"degraded\":");
            string(out, degraded);
        }
    }
}
