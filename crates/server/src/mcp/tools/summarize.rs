//! `context_summarize`.

use contextkeep_core::error::Invalid;
use contextkeep_core::store::SeqRange;
use contextkeep_core::summary::{PutSummary, Summary, SummaryRequest};
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::fault::Fault;
use super::super::reply::Reply;
use super::{Call, Effect};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of the context.
    id: String,
    /// First item to cover, with `last_seq`; what `context_window` leaves out if both are left out.
    first_seq: Option<u64>,
    /// Last item to cover.
    last_seq: Option<u64>,
    /// Your own summary of that range, to be kept and given back from then on.
    text: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct SummaryView<'a> {
    /// extractive (sentences that were said), model (the operator's), or external (a client's own).
    kind: &'static str,
    first_seq: u64,
    last_seq: u64,
    tokens: u32,
    text: &'a str,
    /// True if the text was cut to fit into one result.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    text_cut: bool,
}

#[derive(Serialize, JsonSchema)]
struct SummarizedView<'a> {
    /// Absent if the window leaves nothing out.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<SummaryView<'a>>,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, SummarizedView<'_>>(
        "context_summarize",
        "Summarize a context",
        "Get a short summary of what context_window leaves out, or of a range: sentences that were said, ids, amounts, \
         dates and paths; a model's, if the server has one, at a later call. Or keep your own by sending text.",
        &Effect::Adds { idempotent: true },
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let range = match (arguments.first_seq, arguments.last_seq) {
        (Some(first), Some(last)) => Some(SeqRange { first, last }),
        (None, None) => None,
        (Some(_), None) => return Err(missing("last_seq").into()),
        (None, Some(_)) => return Err(missing("first_seq").into()),
    };
    let summary = match (arguments.text, range) {
        (None, range) => {
            let request = SummaryRequest { range };
            call.manager.summary(&key, request).await?.value
        }
        (Some(text), Some(range)) => {
            let put = PutSummary { range, text };
            Some(call.manager.put_summary(&key, put).await?.value)
        }
        (Some(_), None) => return Err(missing("first_seq").into()),
    };
    Ok(Reply::of(&SummarizedView {
        summary: summary.as_ref().map(|summary| view(summary, call.chars_max)),
    })?)
}

fn missing(field: &'static str) -> Invalid {
    Invalid::new(field, "is missing").hint("send first_seq and last_seq, or neither; both with text")
}

/// A text may be written longer in JSON than it is: half of a result is enough for all but control characters.
fn view(summary: &Summary, chars_max: usize) -> SummaryView<'_> {
    let end = summary.text.floor_char_boundary(chars_max / 2);
    let text = summary.text.get(..end).unwrap_or_default();
    SummaryView {
        kind: summary.kind.as_str(),
        first_seq: summary.range.first,
        last_seq: summary.range.last,
        tokens: summary.tokens,
        text,
        text_cut: text.len() < summary.text.len(),
    }
}
