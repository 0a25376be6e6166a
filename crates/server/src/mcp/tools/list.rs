//! `context_list`.

use contextkeep_core::error::Invalid;
use contextkeep_core::store::ListQuery;
use contextkeep_core::{Context, Error};
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::fault::Fault;
use super::super::fit;
use super::super::reply::Reply;
use super::super::view::ContextView;
use super::{Call, Effect};
use crate::cursor;

const LIMIT_DEFAULT: u32 = 20;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Only this context, in full: with description and metadata. Cannot be combined with the others.
    id: Option<String>,
    /// Only contexts of this agent.
    agent_id: Option<String>,
    /// Only contexts of this session.
    session_id: Option<String>,
    /// Only forks of this context, which may be gone.
    forked_from: Option<String>,
    /// Only contexts that have all of these labels.
    #[schemars(length(max = 32))]
    labels: Option<Vec<String>>,
    /// Most contexts; 20 if left out.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl Arguments {
    fn filters(&self) -> bool {
        self.agent_id.is_some()
            || self.session_id.is_some()
            || self.forked_from.is_some()
            || self.labels.is_some()
            || self.cursor.is_some()
    }
}

#[derive(Serialize, JsonSchema)]
struct ListView<'a> {
    contexts: Vec<ContextView<'a>>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// What is missing here, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    /// l1, l2, replica, primary or stale.
    origin: &'static str,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, ListView<'_>>(
        "context_list",
        "List contexts",
        "Find contexts by agent, session, labels or what they were forked from, newest first, or look at one by id. To find something that \
         was said, use context_search.",
        &Effect::Reads,
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    if let Some(id) = &arguments.id {
        if arguments.filters() {
            return Err(Invalid::new("id", "cannot be combined with filters or a cursor")
                .hint("send id alone, or leave it out")
                .into());
        }
        return one(&call, id).await;
    }
    let labels = arguments.labels.unwrap_or_default();
    let mut question = vec![
        "mcp list",
        arguments.agent_id.as_deref().unwrap_or_default(),
        arguments.session_id.as_deref().unwrap_or_default(),
        arguments.forked_from.as_deref().unwrap_or_default(),
    ];
    question.extend(labels.iter().map(String::as_str));
    let after = arguments
        .cursor
        .as_deref()
        .map(|cursor| cursor::list_position(cursor, &question))
        .transpose()?;
    let forked_from = arguments.forked_from.as_deref();
    let forked_from = forked_from
        .map(|id| super::id_under("forked_from", id))
        .transpose()?;
    let query = ListQuery {
        agent_id: arguments.agent_id.clone(),
        session_id: arguments.session_id.clone(),
        labels: labels.clone(),
        forked_from,
        after,
        limit: arguments
            .limit
            .unwrap_or(LIMIT_DEFAULT)
            .min(call.limits.page_items),
    };
    let page = call.manager.list(call.tenant, query).await?;
    Ok(page_that_fits(
        &page.value.contexts,
        page.value.more,
        &question,
        page.origin.as_str(),
        call.chars_max,
    )?)
}

fn page_that_fits(
    contexts: &[Context],
    more: bool,
    question: &[&str],
    origin: &'static str,
    chars_max: usize,
) -> Result<Reply, Error> {
    let mut views: Vec<ContextView<'_>> = contexts.iter().map(ContextView::brief).collect();
    let count = fit::entries(&views, chars_max)?;
    views.truncate(count);
    let last = count.checked_sub(1).and_then(|index| contexts.get(index));
    Reply::of(&ListView {
        next_cursor: last
            .filter(|_| more || count < contexts.len())
            .map(|last| cursor::after_context(last, question)),
        hint: (count < contexts.len())
            .then_some("the page was cut to fit into one result; go on with next_cursor"),
        contexts: views,
        origin,
    })
}

/// One context in full; without its metadata and description if they do not fit.
async fn one(call: &Call<'_>, id: &str) -> Result<Reply, Fault> {
    let answer = call.manager.get(&call.key(id)?).await?;
    let view = |context, hint| ListView {
        contexts: vec![context],
        next_cursor: None,
        hint,
        origin: answer.origin.as_str(),
    };
    let full = Reply::of(&view(ContextView::full(&answer.value), None))?;
    if full.chars() <= call.chars_max {
        return Ok(full);
    }
    let hint = "description and metadata do not fit into one result; read the resource context://{id}";
    Ok(Reply::of(&view(ContextView::brief(&answer.value), Some(hint)))?)
}
