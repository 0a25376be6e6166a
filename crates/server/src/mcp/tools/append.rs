//! `context_append`.

use contextkeep_core::error::Invalid;
use contextkeep_core::{AppendRequest, Error, IdempotencyKey, NewItem};
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::super::fault::Fault;
use super::super::message::Message;
use super::super::reply::Reply;
use super::{Call, Effect};

/// Requests over this size are taken apart off the reactor.
const INLINE_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of the context.
    id: String,
    #[schemars(
        description = "Messages in order, each as your model provider has it: OpenAI chat or responses items, or \
                       Anthropic messages, tool calls and tool results included. Optional own fields beside \
                       them: client_id, pinned, importance (0 to 1), metadata."
    )]
    // Looked at as text, see `Message`.
    #[serde(rename = "items")]
    #[schemars(
        with = "Vec<serde_json::Map<String, serde_json::Value>>",
        length(min = 1, max = 1000)
    )]
    _items: Vec<IgnoredAny>,
    /// Your name for this append, up to 128 characters; a retry with the same key and items adds nothing.
    idempotency_key: Option<String>,
    /// Append only if the context is at this version. Leave it out unless order against other writers matters.
    expected_version: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct AppendView {
    first_seq: u64,
    last_seq: u64,
    /// Tokens of these items.
    tokens: u64,
    version: u64,
    /// True if all items together are now over the context's `max_tokens`.
    over_budget: bool,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, AppendView>(
        "context_append",
        "Append to a context",
        "Store the next messages of a conversation or task, in order. Append after each step, with tool calls \
         and their results, so that context_window can give them back later. Send an idempotency_key to make \
         retries safe.",
        &Effect::Adds { idempotent: false },
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let idempotency_key = arguments
        .idempotency_key
        .as_deref()
        .map(IdempotencyKey::parse)
        .transpose()?;
    let request = AppendRequest {
        items: items(call.message, call.limits.item_size.as_u64()).await?,
        expected: arguments.expected_version,
        idempotency_key,
    };
    let appended = call.manager.append(&key, request).await?.value;
    Ok(Reply::of(&AppendView {
        first_seq: appended.first_seq,
        last_seq: appended.last_seq,
        tokens: appended.tokens,
        version: appended.version,
        over_budget: appended.over_budget,
    })?)
}

async fn items(message: &Message, bytes_max: u64) -> Result<Vec<NewItem>, Error> {
    if message.0.len() <= INLINE_BYTES_MAX {
        return parse(message, bytes_max);
    }
    let message = message.clone();
    tokio::task::spawn_blocking(move || parse(&message, bytes_max))
        .await
        .map_err(|error| Error::Internal {
            detail: format!("reading items: {error}"),
        })?
}

fn parse(message: &Message, bytes_max: u64) -> Result<Vec<NewItem>, Error> {
    let verbatim = message.verbatim()?;
    let parse_one = |(index, text): (usize, &&serde_json::value::RawValue)| {
        NewItem::parse(text.get(), bytes_max).map_err(|error| at(index, error))
    };
    verbatim.items.iter().enumerate().map(parse_one).collect()
}

/// Says which item it was.
fn at(index: usize, error: Error) -> Error {
    let place = format!("items[{index}]");
    match error {
        Error::Invalid(invalid) => Error::Invalid(Invalid::under(invalid, &place)),
        Error::TooLarge { actual, limit, .. } => Error::TooLarge {
            what: format!("{place} in bytes").into(),
            actual,
            limit,
        },
        error => error,
    }
}
