//! `context_delete`.

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
    /// Delete only if the context is at this version.
    expected_version: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct DeletedView<'a> {
    id: &'a str,
    deleted: bool,
    /// The version of the deletion.
    version: u64,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, DeletedView<'_>>(
        "context_delete",
        "Delete a context",
        "Delete a context with all its items, for good. There is no undo; contexts forked from it stay.",
        &Effect::Changes,
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    let key = call.key(&arguments.id)?;
    let version = call.manager.delete(&key, arguments.expected_version).await?.value;
    Ok(Reply::of(&DeletedView {
        id: key.id.as_str(),
        deleted: true,
        version,
    })?)
}
