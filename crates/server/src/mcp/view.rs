//! Shapes of results.

use contextkeep_core::window::{Format, Omitted, Rendered};
use contextkeep_core::{Context, Item, Timestamp, Window};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

type Object = serde_json::Map<String, serde_json::Value>;

/// What a write may have changed of a context.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct HeadView<'a> {
    id: &'a str,
    agent_id: &'a str,
    /// Pass as `expected_version` to make a write conditional.
    version: u64,
    first_seq: u64,
    next_seq: u64,
    item_count: u64,
    /// Tokens of all items.
    tokens: u64,
    /// The budget in tokens.
    max_tokens: u64,
    over_budget: bool,
}

impl<'a> HeadView<'a> {
    pub(super) fn of(context: &'a Context) -> Self {
        Self {
            id: context.id.as_str(),
            agent_id: &context.agent_id,
            version: context.version,
            first_seq: context.first_seq,
            next_seq: context.next_seq,
            item_count: context.item_count,
            tokens: context.tokens,
            max_tokens: context.max_tokens,
            over_budget: context.over_budget(),
        }
    }
}

/// Where a fork parted from its parent.
#[derive(Debug, Serialize, JsonSchema)]
struct ForkedFromView<'a> {
    id: &'a str,
    /// The last item that was shared.
    at_seq: u64,
}

/// A context without its items.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ContextView<'a> {
    id: &'a str,
    agent_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Only when one context was asked for by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// Only when one context was asked for by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Object>")]
    metadata: Option<&'a RawValue>,
    labels: &'a [String],
    /// The budget in tokens.
    max_tokens: u64,
    tokenizer: &'static str,
    /// none, or the strategy by which it is truncated by itself.
    truncation: &'static str,
    /// What it was forked from; that may be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    forked_from: Option<ForkedFromView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    expires_at: Option<Timestamp>,
    /// Pass as `expected_version` to make a write conditional.
    version: u64,
    first_seq: u64,
    next_seq: u64,
    item_count: u64,
    /// Tokens of all items.
    tokens: u64,
    over_budget: bool,
    #[schemars(with = "String")]
    created_at: Timestamp,
    #[schemars(with = "String")]
    updated_at: Timestamp,
}

impl<'a> ContextView<'a> {
    /// What a list shows.
    pub(super) fn brief(context: &'a Context) -> Self {
        Self {
            id: context.id.as_str(),
            agent_id: &context.agent_id,
            session_id: context.session_id.as_deref(),
            model_id: context.model_id.as_deref(),
            name: context.name.as_deref(),
            description: None,
            metadata: None,
            labels: &context.labels,
            max_tokens: context.max_tokens,
            tokenizer: context.tokenizer.as_str(),
            truncation: context.truncation.as_str(),
            forked_from: context.forked_from.as_ref().map(|parent| ForkedFromView {
                id: parent.id.as_str(),
                at_seq: parent.at_seq,
            }),
            expires_at: context.expires_at,
            version: context.version,
            first_seq: context.first_seq,
            next_seq: context.next_seq,
            item_count: context.item_count,
            tokens: context.tokens,
            over_budget: context.over_budget(),
            created_at: context.created_at,
            updated_at: context.updated_at,
        }
    }

    /// Everything.
    pub(super) fn full(context: &'a Context) -> Self {
        Self {
            description: context.description.as_deref(),
            metadata: raw(context.metadata.as_str()),
            ..Self::brief(context)
        }
    }
}

/// An item at its place.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ItemView<'a> {
    seq: u64,
    tokens: u32,
    #[schemars(with = "String")]
    created_at: Timestamp,
    /// Exactly as it was sent.
    #[schemars(with = "Object")]
    item: Option<&'a RawValue>,
}

impl<'a> ItemView<'a> {
    pub(super) fn of(item: &'a Item) -> Self {
        Self {
            seq: item.seq,
            tokens: item.tokens,
            created_at: item.created_at,
            item: raw(&item.body),
        }
    }
}

/// What is not in a window.
#[derive(Debug, Serialize, JsonSchema)]
struct OmittedView {
    first_seq: u64,
    last_seq: u64,
    items: u64,
    tokens: u64,
}

impl From<Omitted> for OmittedView {
    fn from(omitted: Omitted) -> Self {
        Self {
            first_seq: omitted.first_seq,
            last_seq: omitted.last_seq,
            items: omitted.items,
            tokens: omitted.tokens,
        }
    }
}

/// Which of the items or messages summarises what is omitted.
#[derive(Debug, Serialize, JsonSchema)]
struct PlacedView {
    kind: &'static str,
    tokens: u32,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

/// A window.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WindowView<'a> {
    id: &'a str,
    version: u64,
    /// Tokens of the items here.
    tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<ItemView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Object>>")]
    messages: Option<Vec<Option<&'a RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Object>>")]
    input: Option<Vec<Option<&'a RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Object>>")]
    system: Option<Vec<Option<&'a RawValue>>>,
    /// What is not here; absent if everything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<OmittedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<PlacedView>,
    /// Equal while the beginning stays: the older window is then a prefix of the newer.
    prefix_hash: &'a str,
    /// The oldest item that is neither instruction nor pinned.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_seq: Option<u64>,
    /// Put a provider's cache breakpoints after these.
    cache_breakpoints: Vec<BreakpointView>,
    /// Why the window is what it is.
    reasons: Vec<&'static str>,
    /// True if the size limit of results, not the budget in tokens, decided what is here.
    truncated: bool,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// l1, l2, replica, primary or stale.
    origin: &'static str,
}

impl<'a> WindowView<'a> {
    /// `shrunk_to` is the budget that made it fit, if the one that was asked for did not.
    pub(super) fn of(id: &'a str, window: &'a Window, origin: &'static str, shrunk_to: Option<u64>) -> Self {
        Self {
            id,
            version: window.version,
            tokens: window.tokens,
            items: None,
            messages: None,
            input: None,
            system: None,
            omitted: window.omitted.map(OmittedView::from),
            summary: None,
            prefix_hash: &window.prefix_hash,
            cut_seq: window.cut_seq,
            cache_breakpoints: Vec::new(),
            reasons: window.reasons.iter().map(|reason| reason.as_str()).collect(),
            truncated: shrunk_to.is_some(),
            hint: shrunk_to.map(|budget| {
                format!(
                    "the window was cut to max_tokens {budget} to fit into one result; whole turns were left out, \
                     see omitted; find older items with context_search"
                )
            }),
            origin,
        }
    }

    /// Adds what is to be seen, as items or in a provider's words.
    pub(super) fn rendered(
        mut self,
        format: Format,
        window: &'a Window,
        rendered: Option<&'a Rendered>,
    ) -> Self {
        let texts = |texts: &'a [String]| Some(texts.iter().map(|text| raw(text)).collect());
        match rendered {
            None => self.items = Some(window.items.iter().map(ItemView::of).collect()),
            Some(rendered) => {
                match format {
                    Format::Responses => self.input = texts(&rendered.messages),
                    _ => self.messages = texts(&rendered.messages),
                }
                if format == Format::Anthropic {
                    self.system = texts(&rendered.system);
                }
                self.reasons
                    .extend(rendered.reasons.iter().map(|reason| reason.as_str()));
            }
        }
        self.summary = window.summary.map(|placed| PlacedView {
            kind: placed.kind.as_str(),
            tokens: placed.tokens,
            seq: placed.seq,
            index: window.summary_index(rendered),
        });
        let breakpoints = window.breakpoints(rendered).into_iter();
        self.cache_breakpoints = breakpoints
            .map(|(seq, index)| BreakpointView { seq, index })
            .collect();
        self
    }
}

/// A place after which the prompt is likely to go on unchanged next time.
#[derive(Debug, Serialize, JsonSchema)]
struct BreakpointView {
    seq: u64,
    /// In items, messages or input; absent for the end of system.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

/// Stored JSON text; a store returns nothing else.
pub(super) fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}
