//! Resources: `context://{id}` is a context, `context://{id}/window` its window, both as JSON.
//!
//! Many clients do not show resources to the model; each can be had by a tool as well.

use contextkeep_core::error::Invalid;
use contextkeep_core::store::ListQuery;
use contextkeep_core::window::Format;
use contextkeep_core::{Context, ContextId, ContextKey, ContextManager, Error, TenantId, WindowRequest};
use rmcp::model::{
    CacheScope, ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate,
};

use super::fault::Fault;
use super::fit;
use super::reply::Reply;
use super::view::ContextView;
use crate::cursor;

const SCHEME: &str = "context://";
const WINDOW_SUFFIX: &str = "/window";
const MIME_TYPE: &str = "application/json";
/// Contexts on one page of `resources/list`.
const PAGE_CONTEXTS: u32 = 50;
/// A context may change at any time.
const TTL_MS: u64 = 0;

/// The templates, sorted by URI.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("context://{id}", "context")
            .with_title("Context")
            .with_description("A context with its metadata, without its items.")
            .with_mime_type(MIME_TYPE),
        ResourceTemplate::new("context://{id}/window", "context-window")
            .with_title("Context window")
            .with_description("The newest whole turns of a context that fit its token budget.")
            .with_mime_type(MIME_TYPE),
    ]
}

/// What cursors of this list belong to.
const QUESTION: [&str; 1] = ["mcp resources"];

/// A page of the tenant's contexts, newest first.
pub(super) async fn page(
    manager: &dyn ContextManager,
    tenant: &TenantId,
    cursor: Option<&str>,
) -> Result<ListResourcesResult, Fault> {
    let query = ListQuery {
        after: cursor
            .map(|cursor| cursor::list_position(cursor, &QUESTION))
            .transpose()?,
        limit: PAGE_CONTEXTS,
        ..ListQuery::default()
    };
    let page = manager.list(tenant, query).await?.value;
    let resources = page.contexts.iter().map(resource).collect();
    let mut result = ListResourcesResult::with_all_items(resources)
        .with_ttl_ms(TTL_MS)
        .with_cache_scope(CacheScope::Private);
    result.next_cursor = page
        .contexts
        .last()
        .filter(|_| page.more)
        .map(|last| cursor::after_context(last, &QUESTION));
    Ok(result)
}

fn resource(context: &Context) -> Resource {
    let resource = Resource::new(uri(&context.id), context.id.as_str())
        .with_description(format!(
            "Context of agent {}: {} items, {} tokens",
            context.agent_id, context.item_count, context.tokens
        ))
        .with_mime_type(MIME_TYPE);
    match &context.name {
        Some(name) => resource.with_title(name),
        None => resource,
    }
}

/// Reads a resource.
pub(super) async fn read(
    manager: &dyn ContextManager,
    tenant: &TenantId,
    uri: &str,
    chars_max: usize,
) -> Result<ReadResourceResult, Fault> {
    let (id, window) = parse(uri)?;
    let key = ContextKey::new(tenant.clone(), id);
    let reply = if window {
        fit::window(manager, &key, WindowRequest::default(), Format::Items, chars_max).await?
    } else {
        Reply::of(&ContextView::full(&manager.get(&key).await?.value))?
    };
    let contents = ResourceContents::text(reply.into_text(), uri).with_mime_type(MIME_TYPE);
    Ok(ReadResourceResult::new(vec![contents])
        .with_ttl_ms(TTL_MS)
        .with_cache_scope(CacheScope::Private))
}

/// The URI of a context. Template expansion escapes `:` and `@`, so we do too.
pub(super) fn uri(id: &ContextId) -> String {
    let escaped = id.as_str().replace(':', "%3A").replace('@', "%40");
    format!("{SCHEME}{escaped}")
}

/// The URI of a context's window.
pub(super) fn window_uri(id: &ContextId) -> String {
    format!("{}{WINDOW_SUFFIX}", uri(id))
}

/// The context, and whether its window is meant.
fn parse(uri: &str) -> Result<(ContextId, bool), Error> {
    let Some(rest) = uri.strip_prefix(SCHEME) else {
        return Err(Error::NotFound);
    };
    let (escaped, window) = match rest.strip_suffix(WINDOW_SUFFIX) {
        Some(escaped) => (escaped, true),
        None => (rest, false),
    };
    let id = unescape(escaped).ok_or_else(|| Invalid::new("uri", "has a broken % escape"))?;
    // What cannot be an id names nothing.
    let id = ContextId::parse(&id).map_err(|_| Error::NotFound)?;
    Ok((id, window))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_reads_back_the_id_that_made_it() {
        for id in ["trip-42", "user:7@host", "A.b_c~d"] {
            let id = ContextId::parse(id).unwrap();
            assert_eq!(parse(&uri(&id)).unwrap(), (id.clone(), false));
            assert_eq!(parse(&window_uri(&id)).unwrap(), (id, true));
        }
    }

    #[test]
    fn an_id_that_was_not_escaped_is_understood_too() {
        assert_eq!(parse("context://user:7@host").unwrap().0.as_str(), "user:7@host");
    }

    #[test]
    fn a_uri_that_names_no_context_is_not_found() {
        for uri in [
            "",
            "file:///etc/passwd",
            "context://",
            "context://a/b",
            "context://a%2fwindow",
            "context://..",
            "context:///window",
        ] {
            assert!(matches!(parse(uri), Err(Error::NotFound)), "{uri}");
        }
        for uri in ["context://a%", "context://a%4", "context://a%zz", "context://%ff"] {
            assert!(parse(uri).is_err(), "{uri}");
        }
    }
}
