//! `contextkeep ctx`: contexts from a shell. Works beside a running server: both may have the file open.

use std::io::Read as _;

use anyhow::Context as _;
use contextkeep_core::item::NewItem;
use contextkeep_core::search::Query;
use contextkeep_core::settings::LimitSettings;
use contextkeep_core::store::{ItemQuery, ListQuery, Order, SearchQuery};
use contextkeep_core::window::Format;
use contextkeep_core::{
    AppendRequest, ContextId, ContextKey, ContextManager, IdempotencyKey, NewContext, Seq, TenantId,
    WindowRequest,
};
use serde_json::json;

use super::{Tenant, output};
use crate::app::Parts;
use crate::config::AppConfig;
use crate::cursor;
use crate::rest::dto::{AppendedBody, ContextBody, ContextList, write};
use crate::rest::window::write::window as write_window;

#[derive(Debug, clap::Args)]
pub(super) struct Ctx {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    tenant: Tenant,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a context
    Create {
        /// Its id; made up if absent
        #[arg(value_parser = ContextId::parse)]
        id: Option<ContextId>,
        /// The agent that it belongs to
        #[arg(long, default_value = "shell")]
        agent: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
    },
    /// Append items: JSON on the command line, or one item a line on standard input
    Append {
        #[arg(value_parser = ContextId::parse)]
        id: ContextId,
        /// Items, each a JSON object such as '{"role":"user","content":"hi"}'
        items: Vec<String>,
        /// Append one user message with this text instead
        #[arg(long, conflicts_with = "items")]
        text: Option<String>,
        /// A retry with the same key adds nothing
        #[arg(long, value_parser = IdempotencyKey::parse)]
        key: Option<IdempotencyKey>,
    },
    /// Show the part that fits a token budget
    Window {
        #[arg(value_parser = ContextId::parse)]
        id: ContextId,
        /// The budget; the context's own if absent
        #[arg(long)]
        max_tokens: Option<u64>,
        /// Tokens of the budget that the answer will need
        #[arg(long, default_value_t = 0)]
        reserve: u64,
        /// `items` as they were sent, or ready for a provider: `openai.chat`, `openai.responses`, `anthropic`
        #[arg(long, default_value = "items", value_parser = parse_format)]
        format: Format,
        /// Put a summary of what is left out into its place
        #[arg(long)]
        summary: bool,
    },
    /// Page through items
    Items {
        #[arg(value_parser = ContextId::parse)]
        id: ContextId,
        /// Only items after this seq
        #[arg(long, default_value_t = 0)]
        after: Seq,
        /// Most items
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show a context's head
    Show {
        #[arg(value_parser = ContextId::parse)]
        id: ContextId,
    },
    /// List contexts, newest first
    List {
        /// Only this agent's
        #[arg(long)]
        agent: Option<String>,
        /// Most contexts
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// `next_cursor` of the page before
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Search
    Search {
        /// Words, "a phrase", pre*, -without, a OR b
        query: String,
        /// Only this context
        #[arg(long, value_parser = ContextId::parse)]
        context: Option<ContextId>,
        /// Most hits
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Delete a context
    Delete {
        #[arg(value_parser = ContextId::parse)]
        id: ContextId,
    },
}

impl Ctx {
    pub(super) async fn run(self, config: &AppConfig, parts: &Parts) -> anyhow::Result<()> {
        let manager = parts.manager.as_ref();
        let tenant = self.tenant.tenant;
        let limits = &config.context_manager.limits;
        let key = |id: ContextId| ContextKey::new(tenant.clone(), id);
        match self.command {
            Command::Create { id, agent, name } => {
                let new = NewContext {
                    id,
                    name,
                    ..NewContext::of_agent(agent)
                };
                let created = manager.create(&tenant, new).await?;
                output::print_json(&ContextBody::from(&created.value.context))
            }
            Command::Append {
                id,
                items,
                text,
                key: idempotency_key,
            } => {
                let items = items_of(items, text, limits.item_size.as_u64())?;
                let request = AppendRequest {
                    items,
                    expected: None,
                    idempotency_key,
                };
                let appended = manager.append(&key(id), request).await?;
                output::print_json(&AppendedBody::from(appended.value))
            }
            Command::Window {
                id,
                max_tokens,
                reserve,
                format,
                summary,
            } => {
                let request = WindowRequest {
                    max_tokens,
                    reserve,
                    summary,
                    ..WindowRequest::default()
                };
                let window = manager.window(&key(id), request).await?;
                lines(write_window(&window.value, format))
            }
            Command::Items { id, after, limit } => items(manager, &key(id), after, limit, limits).await,
            Command::Show { id } => {
                let head = manager.get(&key(id)).await?.value;
                output::print_json(&ContextBody::from(&**head))
            }
            Command::List { agent, limit, cursor } => list(manager, &tenant, agent, limit, cursor).await,
            Command::Search {
                query,
                context,
                limit,
            } => {
                parts.settle().await;
                search(manager, &tenant, &query, context, limit).await
            }
            Command::Delete { id } => {
                let version = manager.delete(&key(id), None).await?.value;
                output::print_json(&json!({ "deleted": true, "version": version }))
            }
        }
    }
}

async fn items(
    manager: &dyn ContextManager,
    key: &ContextKey,
    after: Seq,
    limit: u32,
    limits: &LimitSettings,
) -> anyhow::Result<()> {
    let query = ItemQuery {
        after,
        before: Seq::MAX,
        order: Order::Ascending,
        limit: limit.clamp(1, limits.page_items),
        bytes_max: limits.page_size.as_u64(),
    };
    let page = manager.items(key, query).await?.value;
    lines(write::page(&page, None))
}

async fn search(
    manager: &dyn ContextManager,
    tenant: &TenantId,
    query: &str,
    context: Option<ContextId>,
    limit: u32,
) -> anyhow::Result<()> {
    let query = SearchQuery {
        query: Query::parse(query)?,
        context,
        role: None,
        since: None,
        until: None,
        offset: 0,
        limit,
    };
    let page = manager.search(tenant, query).await?.value;
    lines(write::hits(&page.hits, None, page.lag_items, None))
}

async fn list(
    manager: &dyn ContextManager,
    tenant: &TenantId,
    agent_id: Option<String>,
    limit: u32,
    cursor: Option<String>,
) -> anyhow::Result<()> {
    let question = ["ctx list", agent_id.as_deref().unwrap_or_default()];
    let after = cursor
        .map(|cursor| cursor::list_position(&cursor, &question))
        .transpose()?;
    let query = ListQuery {
        agent_id: agent_id.clone(),
        after,
        limit: limit.clamp(1, 1000),
        ..ListQuery::default()
    };
    let page = manager.list(tenant, query).await?.value;
    let last = page.contexts.last().filter(|_| page.more);
    let next = last.map(|last| cursor::after_context(last, &question));
    output::print_json(&ContextList {
        contexts: page.contexts.iter().map(ContextBody::from).collect(),
        next_cursor: next,
    })
}

fn lines(mut body: Vec<u8>) -> anyhow::Result<()> {
    body.push(b'\n');
    Ok(output::print(&body)?)
}

fn items_of(mut bodies: Vec<String>, text: Option<String>, bytes_max: u64) -> anyhow::Result<Vec<NewItem>> {
    if let Some(text) = text {
        bodies.push(json!({ "role": "user", "content": text }).to_string());
    } else if bodies.is_empty() {
        let mut input = String::new();
        std::io::stdin()
            .read_to_string(&mut input)
            .context("reading items from standard input")?;
        bodies.extend(
            input
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(str::to_owned),
        );
    }
    Ok(crate::rest::dto::parse_items(
        bodies.iter().map(String::as_str),
        bytes_max,
    )?)
}

fn parse_format(name: &str) -> Result<Format, String> {
    let known = || format!("one of {}", Format::ALL.map(Format::as_str).join(", "));
    Format::parse(name).ok_or_else(known)
}
