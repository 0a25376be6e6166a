//! What clients are told.

use contextkeep_core::store::{Appended, SeqRange};
use contextkeep_core::{Context, ForkedFrom, Timestamp, Truncation};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contextkeep_core::truncate::AutoTruncation;
    use contextkeep_core::{
        Context, ContextId, ForkedFrom, Head, JsonObject, NewContext, Timestamp, Tokenizer,
    };

    use super::*;

    fn least() -> Context {
        NewContext::of_agent("support").into_context(
            ContextId::generate(),
            Timestamp::from_micros(1_767_225_600_000_001),
        )
    }

    /// With all that a head can have.
    fn most() -> Context {
        Context {
            session_id: Some("s".to_owned()),
            model_id: Some("m".to_owned()),
            name: Some("n".to_owned()),
            description: Some("d".to_owned()),
            metadata: JsonObject::parse("metadata", r#"{ "a" : [1, 2.50] }"#).unwrap(),
            labels: vec!["x".to_owned(); 32],
            max_tokens: u64::MAX,
            tokenizer: Tokenizer::GeminiEstimate,
            truncation: AutoTruncation::parse("tool_results_first").unwrap(),
            forked_from: Some(ForkedFrom {
                id: ContextId::generate(),
                at_seq: u64::MAX,
            }),
            expires_at: Some(Timestamp::from_micros(-5)),
            version: u64::MAX,
            first_seq: u64::MAX,
            next_seq: u64::MAX,
            item_count: u64::MAX,
            tokens: u64::MAX,
            ..least()
        }
    }

    #[test]
    fn a_head_is_written_as_it_is_documented() {
        let escaped = Context {
            description: Some("über \"quotes\"\n\u{1}\u{2028}".to_owned()),
            labels: vec!["\\".to_owned()],
            ..least()
        };
        for head in [least(), most(), escaped] {
            let documented = serde_json::to_string(&ContextBody::from(&head)).unwrap();
            assert_eq!(Arc::new(Head::from(head)).document(), documented);
        }
    }
}
