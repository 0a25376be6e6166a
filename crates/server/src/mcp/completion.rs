//! Completion of context ids, from the tenant's newest contexts.

use contextkeep_core::error::Invalid;
use contextkeep_core::store::ListQuery;
use contextkeep_core::{ContextManager, TenantId};
use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference};

use super::fault::Fault;
use super::{prompts, resources};

/// Contexts that are looked at.
const CONTEXTS_MAX: u32 = 500;

/// Ids that begin with what was typed, newest context first.
pub(super) async fn complete(
    manager: &dyn ContextManager,
    tenant: &TenantId,
    request: &CompleteRequestParams,
) -> Result<CompleteResult, Fault> {
    let is_id = match &request.r#ref {
        Reference::Prompt(prompt) => prompts::takes(&prompt.name, &request.argument.name),
        Reference::Resource(resource) => resources::templates()
            .iter()
            .any(|template| template.uri_template == resource.uri)
            .then_some(true),
        _ => None,
    };
    let Some(takes) = is_id else {
        return Err(Invalid::new("ref", "names no prompt and no resource template of this server").into());
    };
    if !takes || request.argument.name != "id" {
        return Ok(CompleteResult::default());
    }
    let query = ListQuery {
        limit: CONTEXTS_MAX,
        ..ListQuery::default()
    };
    let page = manager.list(tenant, query).await?.value;
    let mut values: Vec<String> = page
        .contexts
        .iter()
        .map(|context| context.id.as_str())
        .filter(|id| id.starts_with(&request.argument.value))
        .map(str::to_owned)
        .collect();
    let more = page.more || values.len() > CompletionInfo::MAX_VALUES;
    values.truncate(CompletionInfo::MAX_VALUES);
    let mut completion = CompletionInfo::default();
    completion.values = values;
    completion.has_more = Some(more);
    Ok(CompleteResult::new(completion))
}
