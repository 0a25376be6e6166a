//! Contexts: create, list, read, change, delete, fork, truncate.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use contextkeep_core::store::ListQuery;
use contextkeep_core::{Answer, Context, ContextId, Error, Head, Invalid, Origin};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::{ContextBody, ContextList, CreateContext, Fork, PatchContext, Truncate, TruncationBody};
use super::extract::{Body, Key, Params, if_match};
use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, json, raw_with, tagged};
use crate::auth::Principal;
use crate::cursor;

/// Contexts on a page when nobody says how many.
const PAGE: u32 = 50;

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(fork))
        .routes(routes!(truncate))
}

/// Create a context.
///
/// With an `id` of your own, creating it again answers 200 with the context that is there.
#[utoipa::path(post, path = "/v1/contexts", tag = "contexts", request_body = CreateContext<'_>,
    responses((status = 201, body = ContextBody<'_>), (status = 200, body = ContextBody<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn create(State(rest): State<Rest>, principal: Principal, body: Body) -> Answered {
    let new = body.json::<CreateContext<'_>>()?.parse()?;
    let created = rest.manager.create(&principal.tenant, new).await?;
    Ok(created_response(
        &created.value.context,
        created.value.is_new,
        created.origin,
    ))
}

fn created_response(context: &Context, is_new: bool, origin: Origin) -> Response<axum::body::Body> {
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = tagged(json(status, &ContextBody::from(context), origin), context.version);
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/contexts/{}", context.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// List contexts, newest first.
#[utoipa::path(get, path = "/v1/contexts", tag = "contexts",
    params(
        ("agent_id" = Option<String>, Query, description = "Only this agent's"),
        ("session_id" = Option<String>, Query, description = "Only this session's"),
        ("forked_from" = Option<String>, Query, description = "Only forks of the context with this id, which may be gone"),
        ("label" = Option<Vec<String>>, Query, description = "Only those with this label; repeat it for several, all of which must be there"),
        ("limit" = Option<u32>, Query, description = "Contexts on a page: 50 if absent"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = ContextList<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn list(State(rest): State<Rest>, principal: Principal, mut params: Params<'static>) -> Answered {
    let (agent_id, session_id, labels) = (
        params.one("agent_id")?.map(Cow::into_owned),
        params.one("session_id")?.map(Cow::into_owned),
        params.all("label"),
    );
    let forked_from = params.one("forked_from")?;
    let limit = params.limit(PAGE, rest.limits.page_items)?;
    let cursor = params.one("cursor")?;
    params.finish()?;

    let mut question = vec![
        "list",
        agent_id.as_deref().unwrap_or_default(),
        session_id.as_deref().unwrap_or_default(),
        forked_from.as_deref().unwrap_or_default(),
    ];
    question.extend(labels.iter().map(String::as_str));
    let after = cursor
        .map(|cursor| cursor::list_position(&cursor, &question))
        .transpose()?;
    let query = ListQuery {
        agent_id: agent_id.clone(),
        session_id: session_id.clone(),
        labels: labels.clone(),
        forked_from: forked_from.as_deref().map(parent).transpose()?,
        after,
        limit,
    };
    let page = rest.manager.list(&principal.tenant, query).await?;
    let last = page.value.contexts.last().filter(|_| page.value.more);
    let next = last.map(|last| cursor::after_context(last, &question));
    let list = ContextList {
        contexts: page.value.contexts.iter().map(ContextBody::from).collect(),
        next_cursor: next,
    };
    Ok(json(StatusCode::OK, &list, page.origin))
}

fn parent(id: &str) -> Result<ContextId, Problem> {
    ContextId::parse(id).map_err(|error| match error {
        Error::Invalid(invalid) => Error::from(Invalid {
            field: "forked_from".into(),
            ..invalid
        })
        .into(),
        error => error.into(),
    })
}

/// Read a context's head: everything but its items.
#[utoipa::path(get, path = "/v1/contexts/{id}", tag = "contexts", params(("id" = String, Path)),
    responses((status = 200, body = ContextBody<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn get(State(rest): State<Rest>, Key(key): Key) -> Answered {
    Ok(answer(HeaderMap::new(), &rest.manager.get(&key).await?))
}

/// The route above, for metrics.
pub(super) const PATH: &str = "/v1/contexts/{id}";

/// The answer of a read. `headers` is an empty map, which may have room.
pub(super) fn answer<B: From<Bytes>>(headers: HeaderMap, answer: &Answer<Arc<Head>>) -> Response<B> {
    // Whoever reads the same version from memory gets the same bytes.
    let body = answer.value.document();
    tagged(raw_with(headers, body, answer.origin), answer.value.version())
}

/// Change a context's head by a merge patch. `If-Match` makes it conditional.
#[utoipa::path(patch, path = "/v1/contexts/{id}", tag = "contexts", params(("id" = String, Path), ("If-Match" = Option<String>, Header)), request_body = PatchContext<'_>,
    responses((status = 200, body = ContextBody<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn update(State(rest): State<Rest>, Key(key): Key, headers: HeaderMap, body: Body) -> Answered {
    let expected = if_match(&headers)?;
    let patch = body.json::<PatchContext<'_>>()?.parse()?;
    let context = rest.manager.update(&key, patch, expected).await?;
    Ok(tagged(
        json(StatusCode::OK, &ContextBody::from(&context.value), context.origin),
        context.value.version,
    ))
}

/// Delete a context. Its forks keep what they share with it.
#[utoipa::path(delete, path = "/v1/contexts/{id}", tag = "contexts", params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204, description = "Gone; the ETag is the version of its tombstone"), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn delete(State(rest): State<Rest>, Key(key): Key, headers: HeaderMap) -> Answered {
    let deleted = rest.manager.delete(&key, if_match(&headers)?).await?;
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(tagged(response, deleted.value))
}

/// Create a context that shares this one's items up to a seq. Nothing is copied.
#[utoipa::path(post, path = "/v1/contexts/{id}/fork", tag = "contexts", params(("id" = String, Path)), request_body = Fork<'_>,
    responses((status = 201, body = ContextBody<'_>), (status = 200, body = ContextBody<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn fork(State(rest): State<Rest>, Key(key): Key, body: Body) -> Answered {
    let fork = body.json::<Fork<'_>>()?;
    let new = fork.context.parse().map_err(|error| match error {
        Error::Invalid(invalid) => Problem::from(Error::from(invalid.under("context"))),
        other => other.into(),
    })?;
    let created = rest.manager.fork(&key, fork.at, new).await?;
    Ok(created_response(
        &created.value.context,
        created.value.is_new,
        created.origin,
    ))
}

/// Drop items until the budget holds: by age, kind, importance or relevance, calls always with their results.
///
/// What is dropped can be read and found no longer, except in forks that share it; the sweep of `retention` then removes
/// what nothing reaches from the disk. `dry_run` says what would go.
#[utoipa::path(post, path = "/v1/contexts/{id}/truncate", tag = "contexts", params(("id" = String, Path), ("If-Match" = Option<String>, Header)), request_body = Truncate,
    responses((status = 200, body = TruncationBody<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn truncate(State(rest): State<Rest>, Key(key): Key, headers: HeaderMap, body: Body) -> Answered {
    let request = body.json::<Truncate>()?.request(if_match(&headers)?)?;
    let done = rest.manager.truncate(&key, request).await?;
    let context = &done.value.context;
    let answer = TruncationBody::from(&done.value);
    Ok(tagged(
        json(StatusCode::OK, &answer, done.origin),
        context.version,
    ))
}
