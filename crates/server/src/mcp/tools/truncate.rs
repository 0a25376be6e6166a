//! `context_truncate`.

use contextkeep_core::TruncateRequest;
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
    /// Drop whole turns, oldest first, until at most so many tokens are left. Instructions and pinned items stay.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    max_tokens: u64,
    /// True: only say what would be dropped.
    dry_run: Option<bool>,
    /// Truncate only if the context is at this version.
    expected_version: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct TruncatedView<'a> {
    dropped_items: u64,
    dropped_tokens: u64,
    dry_run: bool,
    context: HeadView<'a>,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, TruncatedView<'_>>(
        "context_truncate",
        "Truncate a context",
        "Drop the oldest turns of a context for good. Not needed to fit a model: context_window does that \
         without losing anything. Try it with dry_run first.",
        &Effect::Changes,
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let dry_run = arguments.dry_run.unwrap_or(false);
    let request = TruncateRequest {
        max_tokens: arguments.max_tokens,
        expected: arguments.expected_version,
        dry_run,
    };
    let truncation = call.manager.truncate(&key, request).await?.value;
    Ok(Reply::of(&TruncatedView {
        dropped_items: truncation.dropped_items,
        dropped_tokens: truncation.dropped_tokens,
        dry_run,
        context: HeadView::of(&truncation.context),
    })?)
}
