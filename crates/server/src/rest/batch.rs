//! Many contexts in one request: each element has the outcome that it would have by itself.

use axum::extract::State;
use axum::http::StatusCode;
use contextkeep_core::store::Appended;
use contextkeep_core::{
    AppendRequest, Context, ContextId, Error, IdempotencyKey, Invalid, Origin, TenantId, Version,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::{AppendedBody, ContextBody, parse_items};
use super::extract::Body;
use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, json};
use crate::auth::Principal;

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new().routes(routes!(batch))
}

/// Exactly one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Batch<'body> {
    /// Ids of contexts whose heads to read.
    get: Option<Vec<String>>,
    /// Items to append. Those to one context are stored in this order.
    #[serde(borrow)]
    append: Option<Vec<AppendTo<'body>>>,
    /// Contexts to delete.
    delete: Option<Vec<Delete>>,
}

/// An append, as `POST /v1/contexts/{id}/items` takes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchAppend)]
struct AppendTo<'body> {
    id: String,
    /// As in a single append.
    #[serde(borrow)]
    #[schema(value_type = Vec<Object>)]
    items: Vec<&'body RawValue>,
    /// As the header `Idempotency-Key`.
    idempotency_key: Option<String>,
    /// As the header `If-Match`, without quotes.
    if_match: Option<u64>,
}

/// A delete, as `DELETE /v1/contexts/{id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchDelete)]
struct Delete {
    id: String,
    /// As the header `If-Match`, without quotes.
    if_match: Option<u64>,
}

/// One result for each element, in order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchResults)]
struct Results<'outcome> {
    results: Vec<ResultBody<'outcome>>,
}

/// What the single request would have answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchResult)]
struct ResultBody<'outcome> {
    /// The HTTP status of the single request.
    status: u16,
    /// What was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextBody<'outcome>>,
    /// What was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    appended: Option<AppendedBody>,
    /// The version of a deleted context's tombstone.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemDocument<'outcome>>,
}

/// Get many contexts, append to many, or delete many.
///
/// Each element has its own result, and one that is refused does not touch the others: a batch is not a transaction.
/// At most `limits.batch_max` elements. What is wrong with the whole request is answered as a problem; that an element
/// is wrong stands in its result.
#[utoipa::path(post, path = "/v1/batch", tag = "batch", request_body = Batch<'_>,
    responses((status = 200, body = Results<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn batch(State(rest): State<Rest>, principal: Principal, body: Body) -> Answered {
    let (outcomes, origin) = match body.json::<Batch<'_>>()? {
        Batch {
            get: Some(ids),
            append: None,
            delete: None,
        } => get(&rest, &principal.tenant, ids).await?,
        Batch {
            get: None,
            append: Some(appends),
            delete: None,
        } => append(&rest, &principal.tenant, appends).await?,
        Batch {
            get: None,
            append: None,
            delete: Some(deletes),
        } => delete(&rest, &principal.tenant, deletes).await?,
        Batch { .. } => {
            let problem = Invalid::new("", "a batch is one operation on many contexts");
            return Err(Error::from(problem.hint("send exactly one of get, append and delete")).into());
        }
    };
    let results = outcomes.iter().map(ResultBody::from).collect();
    Ok(json(StatusCode::OK, &Results { results }, origin))
}

/// What became of an element.
type Outcome = Result<Done, Problem>;

enum Done {
    Read(Box<Context>),
    Appended(Appended),
    Deleted(Version),
}

impl<'outcome> From<&'outcome Outcome> for ResultBody<'outcome> {
    fn from(outcome: &'outcome Outcome) -> Self {
        let none = Self {
            status: StatusCode::OK.as_u16(),
            context: None,
            appended: None,
            version: None,
            problem: None,
        };
        match outcome {
            Ok(Done::Read(context)) => Self {
                context: Some(context.as_ref().into()),
                ..none
            },
            Ok(Done::Appended(appended)) => Self {
                appended: Some((*appended).into()),
                ..none
            },
            Ok(Done::Deleted(version)) => Self {
                status: StatusCode::NO_CONTENT.as_u16(),
                version: Some(*version),
                ..none
            },
            Err(problem) => Self {
                status: problem.status(),
                problem: Some(problem.document()),
                ..none
            },
        }
    }
}

/// Of all elements, and where they came from.
type Answers = (Vec<Outcome>, Origin);

async fn get(rest: &Rest, tenant: &TenantId, ids: Vec<String>) -> Result<Answers, Problem> {
    check_count("get", ids.len(), rest)?;
    let (ids, refused) = sort(ids.iter().map(|id| ContextId::parse(id)));
    let found = rest.manager.get_many(tenant, &ids).await?;
    let outcomes = found.value.into_iter().map(|context| {
        let context = context.ok_or(Error::NotFound)?;
        Ok(Done::Read(Box::new(context)))
    });
    Ok((merge(refused, outcomes), found.origin))
}

async fn append(rest: &Rest, tenant: &TenantId, appends: Vec<AppendTo<'_>>) -> Result<Answers, Problem> {
    check_count("append", appends.len(), rest)?;
    let item_bytes_max = rest.limits.item_size.as_u64();
    let (requests, refused) = sort(appends.iter().map(|append| append.parse(item_bytes_max)));
    let appended = rest.manager.append_many(tenant, requests).await;
    let outcomes = appended.value.into_iter().map(|one| Ok(Done::Appended(one?)));
    Ok((merge(refused, outcomes), appended.origin))
}

async fn delete(rest: &Rest, tenant: &TenantId, deletes: Vec<Delete>) -> Result<Answers, Problem> {
    check_count("delete", deletes.len(), rest)?;
    let parsed = deletes
        .iter()
        .map(|delete| Ok((ContextId::parse(&delete.id)?, delete.if_match)));
    let (deletes, refused) = sort(parsed);
    let deleted = rest.manager.delete_many(tenant, deletes).await;
    let outcomes = deleted.value.into_iter().map(|one| Ok(Done::Deleted(one?)));
    Ok((merge(refused, outcomes), deleted.origin))
}

impl AppendTo<'_> {
    fn parse(&self, item_bytes_max: u64) -> contextkeep_core::Result<(ContextId, AppendRequest)> {
        let id = ContextId::parse(&self.id)?;
        let key = self.idempotency_key.as_deref().map(IdempotencyKey::parse);
        let request = AppendRequest {
            items: parse_items(self.items.iter().map(|raw| raw.get()), item_bytes_max)?,
            expected: self.if_match,
            idempotency_key: key.transpose()?,
        };
        Ok((id, request))
    }
}

fn check_count(operation: &'static str, count: usize, rest: &Rest) -> Result<(), Problem> {
    let limit = rest.limits.batch_max;
    if count > limit {
        let problem = format!("has {count} elements; the limit is {limit}");
        return Err(Error::from(
            Invalid::new(operation, problem).hint("send several batches, or raise limits.batch_max"),
        )
        .into());
    }
    Ok(())
}

/// Parts elements that can be asked for from those that cannot. Of the second list, `None` is the place of one that
/// can.
fn sort<T>(elements: impl Iterator<Item = contextkeep_core::Result<T>>) -> (Vec<T>, Vec<Option<Problem>>) {
    let mut good = Vec::new();
    let mut refused = Vec::new();
    for element in elements {
        refused.push(match element {
            Ok(element) => {
                good.push(element);
                None
            }
            Err(error) => Some(error.into()),
        });
    }
    (good, refused)
}

/// Puts the outcomes of what was asked for between the problems of what was not.
fn merge(
    refused: Vec<Option<Problem>>,
    outcomes: impl Iterator<Item = contextkeep_core::Result<Done>>,
) -> Vec<Outcome> {
    let mut outcomes = outcomes.map(|outcome| outcome.map_err(Problem::from));
    let unanswered = || {
        Err(Problem::from(Error::Internal {
            detail: "an element of a batch has no outcome".into(),
        }))
    };
    refused
        .into_iter()
        .map(|problem| match problem {
            Some(problem) => Err(problem),
            None => outcomes.next().unwrap_or_else(unanswered),
        })
        .collect()
}
