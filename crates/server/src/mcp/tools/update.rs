//! `context_update`.

use contextkeep_core::ContextPatch;
use contextkeep_core::error::Invalid;
use contextkeep_core::truncate::AutoTruncation;
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::super::fault::Fault;
use super::super::reply::Reply;
use super::super::view::HeadView;
use super::truncate::TruncationName;
use super::{Call, Effect};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of the context.
    id: String,
    /// The agent's session or run.
    session_id: Option<String>,
    /// The model that it is meant for.
    model_id: Option<String>,
    /// A short name for people.
    name: Option<String>,
    /// A longer text for people.
    description: Option<String>,
    /// Your own data, up to 64 KiB; replaces the whole object.
    // Looked at as text, see `Message`.
    #[serde(rename = "metadata")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    _metadata: Option<IgnoredAny>,
    /// Replaces all labels.
    #[schemars(length(max = 32))]
    labels: Option<Vec<String>>,
    /// The token budget of the model.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    max_tokens: Option<u64>,
    /// What happens by itself after an append that puts it over `max_tokens`: none, or a strategy of
    /// `context_truncate`.
    truncation: Option<TruncationName>,
    /// When it is deleted by itself, as 2026-01-31T12:00:00Z.
    expires_at: Option<String>,
    /// Fields to empty.
    #[schemars(length(max = 5))]
    clear: Option<Vec<Clearable>>,
    /// Change only if the context is at this version.
    expected_version: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Clearable {
    SessionId,
    ModelId,
    Name,
    Description,
    ExpiresAt,
}

#[derive(Serialize, JsonSchema)]
struct UpdatedView<'a> {
    context: HeadView<'a>,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, UpdatedView<'_>>(
        "context_update",
        "Update a context",
        "Change what is known about a context: name, description, labels, metadata, budget, expiry. Its items are \
         not touched. Only the fields that you send change.",
        &Effect::Changes,
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let metadata = call.metadata()?;
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let expires_at = super::time("expires_at", arguments.expires_at.as_deref())?;
    let clear = arguments.clear.unwrap_or_default();
    let patch = ContextPatch {
        session_id: wish(
            "session_id",
            arguments.session_id,
            clear.contains(&Clearable::SessionId),
        )?,
        model_id: wish(
            "model_id",
            arguments.model_id,
            clear.contains(&Clearable::ModelId),
        )?,
        name: wish("name", arguments.name, clear.contains(&Clearable::Name))?,
        description: wish(
            "description",
            arguments.description,
            clear.contains(&Clearable::Description),
        )?,
        metadata,
        labels: arguments.labels,
        max_tokens: arguments.max_tokens,
        truncation: arguments.truncation.map(AutoTruncation::from),
        expires_at: wish("expires_at", expires_at, clear.contains(&Clearable::ExpiresAt))?,
    };
    let context = call
        .manager
        .update(&key, patch, arguments.expected_version)
        .await?
        .value;
    Ok(Reply::of(&UpdatedView {
        context: HeadView::of(&context),
    })?)
}

/// A field that may be set or emptied, not both.
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three different wishes in a merge patch"
)]
fn wish<T>(field: &'static str, value: Option<T>, clear: bool) -> Result<Option<Option<T>>, Invalid> {
    match (value, clear) {
        (Some(_), true) => Err(Invalid::new(field, "is set and cleared at once").hint("do one of the two")),
        (Some(value), false) => Ok(Some(Some(value))),
        (None, true) => Ok(Some(None)),
        (None, false) => Ok(None),
    }
}
