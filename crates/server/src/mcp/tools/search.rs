//! `context_search`.

use contextkeep_core::search::Query;
use contextkeep_core::semantic::{SemanticPage, SemanticQuery};
use contextkeep_core::store::{Hit, SearchQuery};
use contextkeep_core::{ContextId, Error, Role, Timestamp};
use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::fault::Fault;
use super::super::fit;
use super::super::reply::Reply;
use super::super::view::raw;
use super::{Call, Effect};
use crate::cursor;
use crate::semantic::SearchMode;

const LIMIT_DEFAULT: u32 = 10;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Words that must all be there. "a phrase", prefix*, -without and either OR other work too. With mode semantic a
    /// question in your own words.
    query: String,
    /// text (default) finds words; semantic finds what means the same, if the server has an embedder; hybrid both.
    mode: Option<ModeName>,
    /// Only in this context; in all of yours if left out.
    id: Option<String>,
    /// Only items of this role.
    role: Option<RoleName>,
    /// Only items of this time or later, as 2026-01-31T12:00:00Z.
    since: Option<String>,
    /// Only items from before this time.
    until: Option<String>,
    /// snippet (default) shows the text around what was found; item shows the whole item.
    detail: Option<Detail>,
    /// Most hits; 10 if left out.
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RoleName {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::System => Self::System,
            RoleName::Developer => Self::Developer,
            RoleName::User => Self::User,
            RoleName::Assistant => Self::Assistant,
            RoleName::Tool => Self::Tool,
        }
    }
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ModeName {
    Text,
    Semantic,
    Hybrid,
}

impl From<ModeName> for SearchMode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Text => Self::Text,
            ModeName::Semantic => Self::Semantic,
            ModeName::Hybrid => Self::Hybrid,
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Detail {
    #[default]
    Snippet,
    Item,
}

#[derive(Serialize, JsonSchema)]
struct HitView<'a> {
    /// The context that it is in.
    id: &'a str,
    seq: u64,
    role: &'static str,
    tokens: u32,
    #[schemars(with = "String")]
    created_at: Timestamp,
    /// Larger is better.
    score: f64,
    snippet: &'a str,
    /// Exactly as it was sent; only with detail "item".
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    item: Option<&'a RawValue>,
    /// True if the item was asked for and is too large for one result.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    item_omitted: bool,
}

#[derive(Clone, Copy, Serialize, JsonSchema)]
struct ScanView<'a> {
    model: &'a str,
    /// Items that the question was compared with.
    scanned: u64,
    /// True if there were more, older ones, that it was not compared with.
    cut_off: bool,
}

/// What a page of either kind is made of.
struct Found<'a> {
    hits: &'a [Hit],
    more: bool,
    lag_items: u64,
    semantic: Option<ScanView<'a>>,
    degraded: Option<&'static str>,
    origin: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct SearchView<'a> {
    hits: Vec<HitView<'a>>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// What is missing here, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    /// Appended items that cannot be found yet.
    lag_items: u64,
    /// How a search by meaning went.
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic: Option<ScanView<'a>>,
    /// `embedder_unavailable` if a hybrid search was answered by words alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<&'static str>,
    /// l1, l2, replica, primary or stale.
    origin: &'static str,
}

pub(super) fn tool() -> Tool {
    super::tool::<Arguments, SearchView<'_>>(
        "context_search",
        "Search contexts",
        "Find what was said, called or answered, by words or by meaning, in one context or in all of yours, best hits \
         first. \
         Use it to get back what no longer fits into a window.",
        &Effect::Reads,
    )
}

pub(super) async fn run(mut call: Call<'_>) -> Result<Reply, Fault> {
    let arguments: Arguments = call.arguments()?;
    let role = arguments.role.map(Role::from);
    let since = super::time("since", arguments.since.as_deref())?;
    let until = super::time("until", arguments.until.as_deref())?;
    let times = format!("{since:?} {until:?}");
    let mode = arguments.mode.map_or(SearchMode::Text, SearchMode::from);
    let question = [
        mode.question(["mcp search", "mcp search semantic", "mcp search hybrid"]),
        &arguments.query,
        arguments.id.as_deref().unwrap_or_default(),
        role.map_or("", Role::as_str),
        &times,
    ];
    let offset = arguments
        .cursor
        .as_deref()
        .map_or(Ok(0), |cursor| cursor::search_offset(cursor, &question))?;
    let context = arguments.id.as_deref().map(ContextId::parse).transpose()?;
    let limit = arguments.limit.unwrap_or(LIMIT_DEFAULT);
    let limit = limit.min(call.limits.page_items);
    let detail = arguments.detail.unwrap_or_default();
    if mode != SearchMode::Text {
        let query = SemanticQuery {
            text: arguments.query.clone(),
            hybrid: mode == SearchMode::Hybrid,
            context,
            role,
            since,
            until,
            offset,
            limit,
        };
        let answer = call.manager.search_semantic(call.tenant, query).await?;
        let found = by_meaning(&answer.value, answer.origin.as_str());
        return Ok(page_that_fits(&found, offset, &question, detail, call.chars_max)?);
    }
    let query = SearchQuery {
        query: Query::parse(&arguments.query)?,
        context,
        role,
        since,
        until,
        offset,
        limit,
    };
    let answer = call.manager.search(call.tenant, query).await?;
    let page = &answer.value;
    let found = Found {
        hits: &page.hits,
        more: page.more,
        lag_items: page.lag_items,
        semantic: None,
        degraded: None,
        origin: answer.origin.as_str(),
    };
    Ok(page_that_fits(&found, offset, &question, detail, call.chars_max)?)
}

fn by_meaning<'page>(page: &'page SemanticPage, origin: &'static str) -> Found<'page> {
    Found {
        hits: &page.hits,
        more: page.more,
        lag_items: page.lag_items,
        semantic: Some(ScanView {
            model: &page.model,
            scanned: page.scanned,
            cut_off: page.cut_off,
        }),
        degraded: page.degraded,
        origin,
    }
}

fn page_that_fits(
    page: &Found<'_>,
    offset: u32,
    question: &[&str],
    detail: Detail,
    chars_max: usize,
) -> Result<Reply, Error> {
    // One item may take half of a result, so that a large one does not push out all others.
    let item_bytes_max = chars_max / 2;
    let mut hits: Vec<HitView<'_>> = page
        .hits
        .iter()
        .map(|hit| view(hit, detail, item_bytes_max))
        .collect();
    let count = fit::entries(&hits, chars_max)?;
    hits.truncate(count);
    let next = offset.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    let more = page.more || count < page.hits.len();
    let next_cursor = more.then(|| cursor::after_hits(next, question)).flatten();
    let hint = if more && next_cursor.is_none() {
        Some("there are more hits than paging reaches; narrow the query")
    } else if count < page.hits.len() {
        Some("the page was cut to fit into one result; go on with next_cursor")
    } else {
        None
    };
    Reply::of(&SearchView {
        hits,
        next_cursor,
        hint,
        lag_items: page.lag_items,
        semantic: page.semantic,
        degraded: page.degraded,
        origin: page.origin,
    })
}

fn view(hit: &Hit, detail: Detail, item_bytes_max: usize) -> HitView<'_> {
    let wanted = detail == Detail::Item;
    let fits = hit.item.body.len() <= item_bytes_max;
    HitView {
        id: hit.context.as_str(),
        seq: hit.item.seq,
        role: hit.item.traits.role.as_str(),
        tokens: hit.item.tokens,
        created_at: hit.item.created_at,
        score: hit.score,
        snippet: &hit.snippet,
        item: raw(&hit.item.body).filter(|_| wanted && fits),
        item_omitted: wanted && !fits,
    }
}
