//! `context_fork`.

use contextkeep_core::NewContext;
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::fault::Fault;
use super::super::reply::Reply;
use super::super::view::HeadView;
use super::create::CreatedView;
use super::{Call, Effect};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of the context to branch off from.
    id: String,
    /// Seq of the last item that both share; the newest one if left out.
    at: Option<u64>,
    /// Your own id for the new context; one is made up if you leave it out.
    new_id: Option<String>,
    /// Agent of the new context; the same one if left out.
    agent_id: Option<String>,
    /// Session of the new context.
    session_id: Option<String>,
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
    /// The token budget; the same one if left out.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    max_tokens: Option<u64>,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, CreatedView<'_>>(
        "context_fork",
        "Fork a context",
        "Branch a new context off an existing one, to try another way without touching the original. Nothing is \
         copied; appends to either do not show in the other.",
        &Effect::Adds { idempotent: false },
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let metadata = call.metadata()?;
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let agent_id = match arguments.agent_id {
        Some(agent_id) => agent_id,
        None => call.manager.get(&key).await?.value.agent_id.clone(),
    };
    let new_id = arguments.new_id.as_deref();
    let new = NewContext {
        id: new_id.map(|id| super::id_under("new_id", id)).transpose()?,
        session_id: arguments.session_id,
        name: arguments.name,
        description: arguments.description,
        metadata,
        labels: arguments.labels,
        max_tokens: arguments.max_tokens,
        ..NewContext::of_agent(agent_id)
    };
    let created = call.manager.fork(&key, arguments.at, new).await?.value;
    Ok(Reply::of(&CreatedView {
        created: created.is_new,
        context: HeadView::of(&created.context),
    })?)
}
