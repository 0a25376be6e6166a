//! `context_window`.

use contextkeep_core::WindowRequest;
use contextkeep_core::window::{Cut, Format};
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::fault::Fault;
use super::super::fit;
use super::super::reply::Reply;
use super::super::view::WindowView;
use super::{Call, Effect};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of the context.
    id: String,
    /// The budget in tokens; the context's own if left out.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    max_tokens: Option<u64>,
    /// Tokens of the budget to leave free for the answer.
    #[schemars(range(min = 0, max = 1_099_511_627_776_u64))]
    reserve: Option<u64>,
    /// items (default) are as they were sent; the others are messages, input, or system and messages for a provider.
    format: Option<FormatName>,
    /// sticky (default) keeps the beginning while the context grows, for prompt caches; tight fills the budget.
    cut: Option<CutName>,
    /// true puts a summary of what is left out into its place; false is the default.
    summary: Option<bool>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
enum FormatName {
    #[serde(rename = "items")]
    Items,
    #[serde(rename = "openai.chat")]
    Chat,
    #[serde(rename = "openai.responses")]
    Responses,
    #[serde(rename = "anthropic")]
    Anthropic,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Items => Self::Items,
            FormatName::Chat => Self::Chat,
            FormatName::Responses => Self::Responses,
            FormatName::Anthropic => Self::Anthropic,
        }
    }
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum CutName {
    Sticky,
    Tight,
}

impl From<CutName> for Cut {
    fn from(name: CutName) -> Self {
        match name {
            CutName::Sticky => Self::Sticky,
            CutName::Tight => Self::Tight,
        }
    }
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, WindowView<'_>>(
        "context_window",
        "Read a context's window",
        "Get back what a model should see of a context: the newest whole turns that fit the token budget, tool \
         calls kept with their results, instructions and pinned items always in. Use it to resume a conversation \
         or task.",
        &Effect::Reads,
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let request = WindowRequest {
        max_tokens: arguments.max_tokens,
        reserve: arguments.reserve.unwrap_or(0),
        cut: arguments.cut.map_or_else(Cut::default, Cut::from),
        summary: arguments.summary.unwrap_or(false),
    };
    let format = arguments.format.map_or_else(Format::default, Format::from);
    fit::window(call.manager, &key, request, format, call.chars_max).await
}
