//! Summaries of what no longer fits into a window.

use axum::extract::State;
use axum::http::StatusCode;
use contextkeep_core::store::SeqRange;
use contextkeep_core::summary::{PutSummary, Summary, SummaryRequest};
use contextkeep_core::{Error, Invalid, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, Key, Params};
use super::problem::ProblemDocument;
use super::{Answered, Rest, json};

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new().routes(routes!(read, put))
}

/// A summary, if there is anything to summarise.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SummaryAnswer)]
struct AnswerBody<'summary> {
    /// `null` if no range was asked for and the window leaves nothing out.
    summary: Option<SummaryBody<'summary>>,
}

/// A summary of a range.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Summary)]
struct SummaryBody<'summary> {
    /// `extractive`: made of sentences that were said, without any model. `model`: written by the model that the operator
    /// has configured. `external`: put by a client.
    kind: &'static str,
    first_seq: u64,
    last_seq: u64,
    text: &'summary str,
    tokens: u32,
    /// SHA-256, in hexadecimal, over the items that it was made of, one after the other; of an `external` one over its
    /// text.
    source_hash: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl<'summary> From<&'summary Summary> for SummaryBody<'summary> {
    fn from(summary: &'summary Summary) -> Self {
        Self {
            kind: summary.kind.as_str(),
            first_seq: summary.range.first,
            last_seq: summary.range.last,
            text: &summary.text,
            tokens: summary.tokens,
            source_hash: summary.source_hex(),
            created_at: summary.created_at,
        }
    }
}

/// A client's summary of a range.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Put {
    /// The first item that it covers.
    first_seq: u64,
    /// The last item that it covers.
    last_seq: u64,
    /// At most 64 KiB.
    text: String,
}

/// Read a summary of a range, or of what the context's own window leaves out.
///
/// Made of sentences that were said and of what was mentioned (ids, amounts, dates, paths, addresses), at most 1000
/// tokens, without any model; kept, and gone on from when the range has grown. If the operator has configured a model, it is
/// asked for a better one in the background, which a later request gets (`kind` says which it is). A summary that a client
/// put for exactly this range is preferred to both. It stays when the range is truncated.
#[utoipa::path(get, path = "/v1/contexts/{id}/summary", tag = "items",
    params(
        ("id" = String, Path),
        ("first_seq" = Option<u64>, Query, description = "The first item to cover; with last_seq"),
        ("last_seq" = Option<u64>, Query, description = "The last item to cover; with first_seq")),
    responses((status = 200, body = AnswerBody<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn read(State(rest): State<Rest>, Key(key): Key, mut params: Params<'static>) -> Answered {
    let (first, last) = (params.number("first_seq")?, params.number("last_seq")?);
    params.finish()?;
    let range = match (first, last) {
        (Some(first), Some(last)) => Some(SeqRange { first, last }),
        (None, None) => None,
        (Some(_), None) => return Err(missing("last_seq").into()),
        (None, Some(_)) => return Err(missing("first_seq").into()),
    };
    let summary = rest.manager.summary(&key, SummaryRequest { range }).await?;
    let answer = AnswerBody {
        summary: summary.value.as_ref().map(SummaryBody::from),
    };
    Ok(json(StatusCode::OK, &answer, summary.origin))
}

fn missing(field: &'static str) -> Error {
    Invalid::new(field, "is missing")
        .hint("send first_seq and last_seq, or neither")
        .into()
}

/// Put a summary of a range that you have made yourself. It replaces an earlier one of yours for the same range.
#[utoipa::path(put, path = "/v1/contexts/{id}/summary", tag = "items", params(("id" = String, Path)), request_body = Put,
    responses((status = 200, body = AnswerBody<'_>), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn put(State(rest): State<Rest>, Key(key): Key, body: Body) -> Answered {
    let Put {
        first_seq,
        last_seq,
        text,
    } = body.json()?;
    let put = PutSummary {
        range: SeqRange {
            first: first_seq,
            last: last_seq,
        },
        text,
    };
    let summary = rest.manager.put_summary(&key, put).await?;
    let answer = AnswerBody {
        summary: Some(SummaryBody::from(&summary.value)),
    };
    Ok(json(StatusCode::OK, &answer, summary.origin))
}
