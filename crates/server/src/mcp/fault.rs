//! What went wrong, told to a model: the stable code, the field, the limit and the next step.

use std::time::Duration;

use contextkeep_core::Error;
use contextkeep_core::error::Code;
use rmcp::ErrorData;
use serde_json::json;

/// Codes that this face adds to those of the core. They have no HTTP status of their own: a tool's error is a
/// result.
pub const CODES: &[Code] = &[
    Code {
        code: "cancelled",
        status: 200,
        meaning: "MCP only. The client went away or cancelled the call.",
    },
    Code {
        code: "result_too_large",
        status: 200,
        meaning: "MCP only. Even the smallest useful result is over `mcp.max_result_chars`.",
    },
    Code {
        code: "timed_out",
        status: 200,
        meaning: "MCP only. The call took longer than `mcp.call_timeout`; a write may have happened, repeat it with the same idempotency_key.",
    },
];

/// Why a request has no result.
#[derive(Debug)]
pub(super) enum Fault {
    /// The manager, or a check on its behalf, refused.
    Manager(Error),
    /// Even the smallest useful result is over the cap.
    ResultTooLarge { chars: usize, limit: usize },
    /// The call took longer than it may.
    TimedOut { after: Duration },
    /// The client went away.
    Cancelled,
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Manager(error.into())
    }
}

impl Fault {
    /// Stable code: one of [`contextkeep_core::error::CODES`], or one of the three of this face.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Manager(error) => error.code(),
            Self::ResultTooLarge { .. } => "result_too_large",
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }

    /// What a model reads: `code: message. Next: step.` A defect of ours is told to the log, not to the client.
    pub(super) fn text(&self) -> String {
        let code = self.code();
        match self.next_step() {
            Some(step) => format!("{code}: {}. Next: {step}.", self.message()),
            None => format!("{code}: {}.", self.message()),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Manager(Error::Internal { detail }) => {
                tracing::error!(%detail, "internal error");
                "the server failed; the operator's log says why".to_owned()
            }
            Self::Manager(Error::StorageDamaged { detail }) => {
                tracing::error!(%detail, "the storage is damaged");
                "the storage is damaged; the operator's log says how".to_owned()
            }
            Self::Manager(Error::Unavailable { detail, .. }) => {
                tracing::warn!(%detail, "the storage is not available");
                "the storage is not available now".to_owned()
            }
            Self::Manager(error) => error.to_string(),
            Self::ResultTooLarge { chars, limit } => {
                format!("the smallest result is {chars} characters long; the limit is {limit}")
            }
            Self::TimedOut { after } => {
                format!("no answer within {} seconds", after.as_secs_f32())
            }
            Self::Cancelled => "the request was cancelled".to_owned(),
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            Self::Manager(error) => return manager_step(error),
            Self::ResultTooLarge { .. } => {
                "find the items that matter with context_search, or ask the operator to raise mcp.max_result_chars"
            }
            Self::TimedOut { .. } => {
                "call again; give an append the same idempotency_key, since the first one may have been kept"
            }
            Self::Cancelled => return None,
        };
        Some(step.to_owned())
    }

    /// As a JSON-RPC error, for what is not a tool: `uri` is named when a resource is not there.
    pub(super) fn into_protocol(self, uri: Option<&str>) -> ErrorData {
        let text = self.text();
        match (&self, uri) {
            (Self::Manager(Error::NotFound), Some(uri)) => {
                ErrorData::resource_not_found(text, Some(json!({ "uri": uri })))
            }
            (Self::Manager(error), _) if error.is_callers() => ErrorData::invalid_params(text, None),
            _ => ErrorData::internal_error(text, None),
        }
    }
}

fn manager_step(error: &Error) -> Option<String> {
    if let Some(after) = error.retry_after() {
        return Some(format!("try again in {} seconds", after.as_secs().max(1)));
    }
    match error {
        Error::NotFound => {
            Some("look for it with context_list; an id is never shared between tenants".to_owned())
        }
        Error::VersionMismatch { actual, .. } => Some(format!(
            "read the context again, decide, then repeat with expected_version {actual}"
        )),
        Error::IdempotencyKeyReused => Some(
            "repeat the first call with exactly its items, or use a new idempotency_key for new items"
                .to_owned(),
        ),
        Error::ClientIdReused { .. } => Some("give the new item another client_id".to_owned()),
        Error::BudgetTooSmall { minimum, .. } => Some(format!("ask for max_tokens of at least {minimum}")),
        Error::SessionLost { .. } => Some(
            "read the context again to see what is left; over HTTP without its Contextkeep-Token".to_owned(),
        ),
        Error::TooLarge { .. } => Some("send less at once".to_owned()),
        error => error.hint().map(str::to_owned),
    }
}
