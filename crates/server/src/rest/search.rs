//! Search by words and by meaning, in one context and across those of the tenant.

use axum::extract::State;
use contextkeep_core::search::Query;
use contextkeep_core::semantic::SemanticQuery;
use contextkeep_core::store::SearchQuery;
use contextkeep_core::{ContextId, Error, Invalid, Role, TenantId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::{HitList, Search, write};
use super::extract::{Body, Key};
use super::problem::ProblemDocument;
use super::{Answered, Rest, raw};
use crate::auth::Principal;
use crate::cursor;
use crate::semantic::SearchMode;

/// Hits on a page when nobody says how many.
const PAGE: u32 = 20;
/// Most hits on a page.
const PAGE_MAX: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new()
        .routes(routes!(everywhere))
        .routes(routes!(inside))
}

/// Search all contexts.
#[utoipa::path(post, path = "/v1/search", tag = "search", request_body = Search,
    responses((status = 200, body = HitList), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn everywhere(State(rest): State<Rest>, principal: Principal, body: Body) -> Answered {
    search(&rest, &principal.tenant, None, body.json()?).await
}

/// Search one context.
#[utoipa::path(post, path = "/v1/contexts/{id}/search", tag = "search", params(("id" = String, Path)), request_body = Search,
    responses((status = 200, body = HitList), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn inside(State(rest): State<Rest>, Key(key): Key, body: Body) -> Answered {
    search(&rest, &key.tenant, Some(key.id), body.json()?).await
}

async fn search(rest: &Rest, tenant: &TenantId, context: Option<ContextId>, search: Search) -> Answered {
    let role = match search.role.as_deref() {
        None => None,
        Some(name) => Some(Role::parse(name).ok_or_else(|| {
            Error::from(
                Invalid::new("role", format!("{name:?} is not a role"))
                    .hint("system, developer, user, assistant or tool"),
            )
        })?),
    };
    let limit = search.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::from(
            Invalid::new("limit", format!("is {limit}")).hint(format!("ask for 1 to {PAGE_MAX}")),
        )
        .into());
    }
    let inside = context.as_ref().map_or("", ContextId::as_str);
    let times = format!("{:?} {:?}", search.since, search.until);
    let mode = search.mode.unwrap_or_default();
    let question = [
        mode.question(["search", "search semantic", "search hybrid"]),
        inside,
        &search.query,
        search.role.as_deref().unwrap_or_default(),
        &times,
    ];
    let offset = search
        .cursor
        .as_deref()
        .map_or(Ok(0), |cursor| cursor::search_offset(cursor, &question))?;
    if mode != SearchMode::Text {
        let query = SemanticQuery {
            text: search.query.clone(),
            hybrid: mode == SearchMode::Hybrid,
            context: context.clone(),
            role,
            since: search.since,
            until: search.until,
            offset,
            limit,
        };
        return by_meaning(rest, tenant, query, &question).await;
    }
    let query = SearchQuery {
        query: Query::parse(&search.query)?,
        context: context.clone(),
        role,
        since: search.since,
        until: search.until,
        offset,
        limit,
    };
    let page = rest.manager.search(tenant, query).await?;
    let next = offset + limit;
    let next = page
        .value
        .more
        .then(|| cursor::after_hits(next, &question))
        .flatten();
    Ok(raw(
        write::hits(&page.value.hits, next.as_deref(), page.value.lag_items, None),
        page.origin,
    ))
}

async fn by_meaning(rest: &Rest, tenant: &TenantId, query: SemanticQuery, question: &[&str]) -> Answered {
    let next = query.offset + query.limit;
    let page = rest.manager.search_semantic(tenant, query).await?;
    let found = &page.value;
    let next = found.more.then(|| cursor::after_hits(next, question)).flatten();
    let body = write::hits(&found.hits, next.as_deref(), found.lag_items, Some(found));
    Ok(raw(body, page.origin))
}
