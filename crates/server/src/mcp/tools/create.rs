//! `context_create`.

use contextkeep_core::truncate::AutoTruncation;
use contextkeep_core::{ContextId, NewContext, Tokenizer};
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
    /// Your own id, 1 to 128 letters, digits and . _ - ~ : @; makes the call safe to repeat. One is made up if
    /// you leave it out.
    id: Option<String>,
    /// Name of the agent that the context belongs to, such as "planner".
    agent_id: String,
    /// The agent's session or run.
    session_id: Option<String>,
    /// The model that it is meant for.
    model_id: Option<String>,
    /// A short name for people.
    name: Option<String>,
    /// A longer text for people.
    description: Option<String>,
    /// Your own data, up to 64 KiB.
    // Looked at as text, see `Message`.
    #[serde(rename = "metadata")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    _metadata: Option<IgnoredAny>,
    /// Words to filter by in `context_list`.
    #[schemars(length(max = 32))]
    labels: Option<Vec<String>>,
    /// The token budget of the model; 128000 if left out.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    max_tokens: Option<u64>,
    /// How tokens are counted: `o200k_base` (GPT-4o and later), `cl100k_base` (GPT-4 and 3.5), `claude_estimate`,
    /// `gemini_estimate` or `estimate` (any other model). If absent, that of `model_id`, else `o200k_base`.
    tokenizer: Option<TokenizerName>,
    /// What happens by itself after an append that puts it over `max_tokens`: none (default), or a strategy of
    /// `context_truncate`.
    truncation: Option<TruncationName>,
    /// When it is deleted by itself, as 2026-01-31T12:00:00Z.
    expires_at: Option<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum TokenizerName {
    O200kBase,
    Cl100kBase,
    ClaudeEstimate,
    GeminiEstimate,
    Estimate,
}

impl From<TokenizerName> for Tokenizer {
    fn from(name: TokenizerName) -> Self {
        match name {
            TokenizerName::O200kBase => Self::O200kBase,
            TokenizerName::Cl100kBase => Self::Cl100kBase,
            TokenizerName::ClaudeEstimate => Self::ClaudeEstimate,
            TokenizerName::GeminiEstimate => Self::GeminiEstimate,
            TokenizerName::Estimate => Self::Estimate,
        }
    }
}

/// A context that was created or found.
#[derive(Serialize, JsonSchema)]
pub(super) struct CreatedView<'a> {
    /// False if it was there already, with the same fields.
    pub(super) created: bool,
    pub(super) context: HeadView<'a>,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, CreatedView<'_>>(
        "context_create",
        "Create a context",
        "Start a context: the stored history of one conversation or task. It stays until it is deleted or \
         expires. Its id is the handle for all other context tools.",
        &Effect::Adds { idempotent: false },
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let metadata = call.metadata()?;
    let arguments: Arguments = call.arguments()?;
    let new = NewContext {
        id: arguments.id.as_deref().map(ContextId::parse).transpose()?,
        agent_id: arguments.agent_id,
        session_id: arguments.session_id,
        model_id: arguments.model_id,
        name: arguments.name,
        description: arguments.description,
        metadata,
        labels: arguments.labels,
        max_tokens: arguments.max_tokens,
        tokenizer: arguments.tokenizer.map(Tokenizer::from),
        truncation: arguments.truncation.map(AutoTruncation::from),
        expires_at: super::time("expires_at", arguments.expires_at.as_deref())?,
    };
    let created = call.manager.create(call.tenant, new).await?.value;
    Ok(Reply::of(&CreatedView {
        created: created.is_new,
        context: HeadView::of(&created.context),
    })?)
}
