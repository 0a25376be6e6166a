//! Items: append, page through, replace.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use contextkeep_core::store::{ItemQuery, Order};
use contextkeep_core::{AppendRequest, Error, Invalid, Seq};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::{AppendedBody, ItemList, Items, write};
use super::extract::{Body, Key, Params, idempotency_key, if_match};
use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, json, raw, tagged};
use crate::cursor::{self, Place};

/// Items on a page when nobody says how many.
const PAGE: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new()
        .routes(routes!(append, page))
        .routes(routes!(replace))
}

/// Append items.
///
/// A retry with the same `Idempotency-Key`, or with the same items by `client_id`, adds nothing and answers
/// what the first one answered, also when the items were truncated or replaced since. Without `If-Match`
/// appends of several writers all succeed.
#[utoipa::path(post, path = "/v1/contexts/{id}/items", tag = "items",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)), request_body = Items<'_>,
    responses((status = 200, body = AppendedBody), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn append(State(rest): State<Rest>, Key(key): Key, headers: HeaderMap, body: Body) -> Answered {
    let request = request(&rest, &headers, &body)?;
    let appended = rest.manager.append(&key, request).await?;
    Ok(tagged(
        json(
            StatusCode::OK,
            &AppendedBody::from(appended.value),
            appended.origin,
        ),
        appended.value.version,
    ))
}

/// Put other items in the place of all. Seqs go on, they do not start again.
///
/// The client ids of all items so far stay known: an append of one of them adds nothing. Those that the new items bear name
/// the new items from now on.
#[utoipa::path(post, path = "/v1/contexts/{id}/replace", tag = "items",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)), request_body = Items<'_>,
    responses((status = 200, body = AppendedBody), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn replace(State(rest): State<Rest>, Key(key): Key, headers: HeaderMap, body: Body) -> Answered {
    let request = request(&rest, &headers, &body)?;
    let appended = rest.manager.replace(&key, request).await?;
    Ok(tagged(
        json(
            StatusCode::OK,
            &AppendedBody::from(appended.value),
            appended.origin,
        ),
        appended.value.version,
    ))
}

fn request(rest: &Rest, headers: &HeaderMap, body: &Body) -> Result<AppendRequest, Problem> {
    Ok(AppendRequest {
        expected: if_match(headers)?,
        idempotency_key: idempotency_key(headers)?,
        items: body.json::<Items<'_>>()?.parse(rest.limits.item_size.as_u64())?,
    })
}

/// Page through items.
#[utoipa::path(get, path = "/v1/contexts/{id}/items", tag = "items",
    params(
        ("id" = String, Path),
        ("after" = Option<u64>, Query, description = "Only items after this seq"),
        ("before" = Option<u64>, Query, description = "Only items before this seq"),
        ("order" = Option<String>, Query, description = "`asc` (the default) or `desc`"),
        ("limit" = Option<u32>, Query, description = "Items on a page: 100 if absent"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = ItemList), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn page(State(rest): State<Rest>, Key(key): Key, mut params: Params<'static>) -> Answered {
    let (after, before) = (params.number("after")?, params.number("before")?);
    let order = match params.one("order")?.as_deref() {
        None | Some("asc") => Order::Ascending,
        Some("desc") => Order::Descending,
        Some(other) => {
            return Err(Error::from(
                Invalid::new("order", format!("{other:?} is not an order")).hint("asc or desc"),
            )
            .into());
        }
    };
    let limit = params.limit(PAGE, rest.limits.page_items)?;
    let cursor = params.one("cursor")?;
    params.finish()?;

    let bounds = format!("{after:?} {before:?} {order:?}");
    let question = ["items", key.id.as_str(), &bounds];
    let mut query = ItemQuery {
        after: after.unwrap_or(0),
        before: before.unwrap_or(Seq::MAX),
        order,
        limit,
        bytes_max: rest.limits.page_size.as_u64(),
    };
    match (
        cursor
            .map(|cursor| cursor::decode(&cursor, &question))
            .transpose()?,
        order,
    ) {
        (Some(Place::Items(seq)), Order::Ascending) => query.after = seq,
        (Some(Place::Items(seq)), Order::Descending) => query.before = seq,
        _ => {}
    }
    let page = rest.manager.items(&key, query).await?;
    let next = page
        .value
        .items
        .last()
        .filter(|_| page.value.more)
        .map(|last| cursor::encode(&Place::Items(last.seq), &question));
    Ok(tagged(
        raw(write::page(&page.value, next.as_deref()), page.origin),
        page.value.version,
    ))
}
