//! `context_truncate`.

use contextkeep_core::TruncateRequest;
use contextkeep_core::truncate::{AutoTruncation, Strategy};
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::fault::Fault;
use super::super::reply::Reply;
use super::super::view::HeadView;
use super::{Call, Effect};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of the context.
    id: String,
    /// Drop items until at most so many tokens are left. Instructions and pinned items stay; a call stays with its results.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    max_tokens: u64,
    /// What goes first: whole turns by age (default), what is not the user's, tool exchanges, the least important, or what
    /// has least to do with query.
    strategy: Option<StrategyName>,
    /// With strategy relevance only: what the rest is needed for, in words.
    query: Option<String>,
    /// True: only say what would be dropped.
    dry_run: Option<bool>,
    /// Truncate only if the context is at this version.
    expected_version: Option<u64>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StrategyName {
    OldestFirst,
    PreservingUser,
    ToolResultsFirst,
    Importance,
    Relevance,
}

/// What a context does by itself.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TruncationName {
    None,
    OldestFirst,
    PreservingUser,
    ToolResultsFirst,
    Importance,
    Relevance,
}

impl From<TruncationName> for AutoTruncation {
    fn from(name: TruncationName) -> Self {
        match name {
            TruncationName::None => Self::None,
            TruncationName::OldestFirst => Self::By(Strategy::OldestFirst),
            TruncationName::PreservingUser => Self::By(Strategy::PreservingUser),
            TruncationName::ToolResultsFirst => Self::By(Strategy::ToolResultsFirst),
            TruncationName::Importance => Self::By(Strategy::Importance),
            TruncationName::Relevance => Self::By(Strategy::Relevance),
        }
    }
}

impl From<StrategyName> for Strategy {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::OldestFirst => Self::OldestFirst,
            StrategyName::PreservingUser => Self::PreservingUser,
            StrategyName::ToolResultsFirst => Self::ToolResultsFirst,
            StrategyName::Importance => Self::Importance,
            StrategyName::Relevance => Self::Relevance,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct RangeView {
    first_seq: u64,
    last_seq: u64,
}

#[derive(Serialize, JsonSchema)]
struct TruncatedView<'a> {
    dropped_items: u64,
    dropped_tokens: u64,
    /// Seqs of which nothing is left, oldest first; the first 64 ranges.
    dropped_ranges: Vec<RangeView>,
    /// True if there are more ranges.
    more_ranges: bool,
    dry_run: bool,
    context: HeadView<'a>,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, TruncatedView<'_>>(
        "context_truncate",
        "Truncate a context",
        "Drop items of a context for good: the oldest turns, or by another strategy. Not needed to fit a model: \
         context_window does that without losing anything. Try it with dry_run first.",
        &Effect::Changes,
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let dry_run = arguments.dry_run.unwrap_or(false);
    let request = TruncateRequest {
        max_tokens: arguments.max_tokens,
        strategy: arguments.strategy.map(Strategy::from).unwrap_or_default(),
        query: arguments.query,
        expected: arguments.expected_version,
        dry_run,
    };
    let truncation = call.manager.truncate(&key, request).await?.value;
    let ranges = truncation.dropped_ranges.iter().map(|range| RangeView {
        first_seq: range.first,
        last_seq: range.last,
    });
    Ok(Reply::of(&TruncatedView {
        dropped_items: truncation.dropped_items,
        dropped_tokens: truncation.dropped_tokens,
        dropped_ranges: ranges.collect(),
        more_ranges: truncation.more_ranges,
        dry_run,
        context: HeadView::of(&truncation.context),
    })?)
}
