//! Errors on the wire: RFC 9457 problem documents with a stable `code`.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use contextkeep_core::Error;
use contextkeep_core::error::Code;
use serde::Serialize;

/// The code of a problem, in the head of its answer.
pub(super) const CODE: HeaderName = HeaderName::from_static("contextkeep-code");

/// Codes that this face adds to those of the core, in alphabetical order.
pub const CODES: &[Code] = &[
    Code {
        code: "busy",
        status: 503,
        meaning: "As many requests as `server.max_requests` are being served; try again after `Retry-After` seconds.",
    },
    Code {
        code: "forbidden",
        status: 403,
        meaning: "The credential opens this tenant's data only; the key needs `admin: true` for `/admin/v1/…` and `/metrics`.",
    },
    Code {
        code: "malformed_json",
        status: 400,
        meaning: "The body is not JSON; `detail` says where it stops being so.",
    },
    Code {
        code: "malformed_request",
        status: 400,
        meaning: "The body did not arrive whole, or is not UTF-8.",
    },
    Code {
        code: "method_not_allowed",
        status: 405,
        meaning: "The path exists, the method does not; `Allow` lists those that do.",
    },
    Code {
        code: "metrics_disabled",
        status: 404,
        meaning: "`context_manager.monitoring.metrics_enabled` is false.",
    },
    Code {
        code: "no_cache",
        status: 404,
        meaning: "No level of the cache is enabled, so that there is nothing to show or to bring into use.",
    },
    Code {
        code: "no_database",
        status: 404,
        meaning: "The embedded store is in use, which has no servers, pools or statements to show; `/readyz` says how it fares.",
    },
    Code {
        code: "route_not_found",
        status: 404,
        meaning: "No such path; /openapi.json lists them.",
    },
    Code {
        code: "timeout",
        status: 503,
        meaning: "The request took longer than `server.request_timeout`; a write may have happened, repeat it with the same Idempotency-Key.",
    },
    Code {
        code: "unauthorized",
        status: 401,
        meaning: "No credential, or one that is not known.",
    },
    Code {
        code: "unsupported_media_type",
        status: 415,
        meaning: "The body's Content-Type is not the one that the route takes.",
    },
];

/// What a client gets instead of an answer.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

/// Boxed, because most results are not problems.
#[derive(Debug)]
struct Parts {
    code: &'static str,
    status: u16,
    detail: String,
    field: Option<String>,
    hint: Option<String>,
    extra: Vec<(&'static str, u64)>,
    retry_after_seconds: Option<u64>,
}

/// The document's shape, for the `OpenAPI` document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument<'problem> {
    /// Stable name of the problem; see the reference of error codes.
    code: &'problem str,
    /// The HTTP status again.
    status: u16,
    /// What it means in general.
    title: &'problem str,
    /// What it means here.
    detail: &'problem str,
    /// Path of the field that is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'problem str>,
    /// What would work.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'problem str>,
    /// Numbers that go with the code: `limit`, `actual`, `minimum`, `current_version`, `seq`, `retry_after` in seconds.
    #[serde(flatten)]
    extra: std::collections::BTreeMap<&'static str, u64>,
}

impl Problem {
    /// A problem of this face.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let status = find(code).map_or(500, |code| code.status);
        Self(Box::new(Parts {
            code,
            status,
            detail: detail.into(),
            field: None,
            hint: None,
            extra: Vec::new(),
            retry_after_seconds: None,
        }))
    }

    /// Adds what would work.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// What a client reads.
    pub(super) fn document(&self) -> ProblemDocument<'_> {
        let parts = &self.0;
        let retry_after = parts.retry_after_seconds.map(|seconds| ("retry_after", seconds));
        ProblemDocument {
            code: parts.code,
            status: parts.status,
            title: find(parts.code).map_or("", |code| code.meaning),
            detail: &parts.detail,
            field: parts.field.as_deref(),
            hint: parts.hint.as_deref(),
            extra: parts.extra.iter().copied().chain(retry_after).collect(),
        }
    }
}

fn find(code: &str) -> Option<&'static Code> {
    CODES
        .iter()
        .chain(contextkeep_core::error::CODES)
        .find(|entry| entry.code == code)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let mut problem = Self::new(error.code(), error.to_string());
        problem.0.hint = error.hint().map(str::to_owned);
        problem.0.retry_after_seconds = error.retry_after().map(|after| after.as_secs().max(1));
        match &error {
            Error::Invalid(invalid) => {
                problem.0.field = Some(invalid.field.to_string());
                problem.0.detail.clone_from(&invalid.problem);
            }
            Error::TooLarge { actual, limit, .. } => {
                problem.0.extra = vec![("actual", *actual), ("limit", *limit)];
            }
            Error::VersionMismatch { actual, .. } => problem.0.extra = vec![("current_version", *actual)],
            Error::ClientIdReused { seq, .. } => problem.0.extra = vec![("seq", *seq)],
            Error::BudgetTooSmall { minimum, .. } => problem.0.extra = vec![("minimum", *minimum)],
            Error::ContextDiffers { field } => problem.0.field = Some((*field).to_owned()),
            Error::Internal { .. } => {
                // The detail is for the log; a client can do nothing with it.
                tracing::error!(%error, "internal error");
                "a defect of the server; its log has the detail".clone_into(&mut problem.0.detail);
            }
            _ => {}
        }
        if !error.is_callers() && !matches!(error, Error::Internal { .. }) {
            tracing::warn!(%error, code = error.code(), "the store refused a request");
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let parts = *self.0;
        let status = StatusCode::from_u16(parts.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = parts.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.insert(CODE, HeaderValue::from_static(parts.code));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_do_not_repeat_those_of_the_core() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for code in CODES {
            assert!(
                contextkeep_core::error::CODES
                    .iter()
                    .all(|core| core.code != code.code),
                "{}",
                code.code
            );
        }
    }
}
