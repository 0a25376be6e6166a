//! What can go wrong, in words that name the field, the limit and the way out.
//!
//! Every error has a stable [`Error::code`]; both faces map codes, never messages. The table of codes in
//! `docs/reference/errors.md` is generated from [`CODES`].

use std::borrow::Cow;
use std::time::Duration;

use crate::Version;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Input that cannot be accepted: which field, what is wrong with it and what would work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field in the request, such as `items[3].role`.
    pub field: Cow<'static, str>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<Cow<'static, str>>,
}

impl Invalid {
    /// Names the field and the problem.
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// Adds what would work.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the field under a parent, as in `items[3]` + `role`.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        let separator = if self.field.is_empty() || self.field.starts_with('[') {
            ""
        } else {
            "."
        };
        self.field = format!("{parent}{separator}{}", self.field).into();
        self
    }
}

/// Why an operation did not happen. Nothing was changed unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such context for this tenant: never there, deleted, expired, or somebody else's (G8).
    #[error("no context with this id")]
    NotFound,
    /// The input is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Something is over a configured limit.
    #[error("{what} is {actual}; the limit is {limit}")]
    TooLarge {
        /// What was measured, with its unit.
        what: Cow<'static, str>,
        /// Its size.
        actual: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// The id is taken by a context with other fields.
    #[error("a context with this id exists and its {field} differs")]
    ContextDiffers {
        /// The first field that differs.
        field: &'static str,
    },
    /// A conditional write named a version that is not the current one.
    #[error("the context is at version {actual}, not {expected}")]
    VersionMismatch {
        /// The version that the caller named.
        expected: Version,
        /// The version that is there.
        actual: Version,
    },
    /// The key was used before, for another request.
    #[error("this idempotency key was used for a different request")]
    IdempotencyKeyReused,
    /// The client id is taken by an item with other content.
    #[error("client_id {client_id:?} already names item {seq}, which has other content")]
    ClientIdReused {
        /// The client id.
        client_id: String,
        /// The item that has it.
        seq: u64,
    },
    /// What must be in the window does not fit the budget.
    #[error("max_tokens is {budget}, but the smallest window that works needs {minimum}")]
    BudgetTooSmall {
        /// The budget that was asked for, after the reserve.
        budget: u64,
        /// The smallest budget that works.
        minimum: u64,
    },
    /// Counts were made with a tokenizer that is not the context's; count again with `actual`.
    /// Managers handle this; no client sees it.
    #[error("the context counts tokens with {actual}")]
    TokenizerMismatch {
        /// The context's tokenizer.
        actual: crate::Tokenizer,
    },
    /// The context counts with a tokenizer that the operator has named once and that this server does not have. What is
    /// stored can be read.
    #[error("the context counts tokens with {name:?}, which this server does not have")]
    TokenizerMissing {
        /// The tokenizer's name.
        name: &'static str,
    },
    /// The client has seen a newer version than there is: a failover lost it.
    #[error(
        "this session has seen version {seen} of the context, the database has {actual}: a failover lost the rest"
    )]
    SessionLost {
        /// The version in the token.
        seen: Version,
        /// The version that is there.
        actual: Version,
    },
    /// A queue is full. Try again later.
    #[error("{what} is full")]
    Overloaded {
        /// Which queue.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// The storage has no room. Nothing of the write was kept.
    #[error("the storage is full: {detail}")]
    StorageFull {
        /// What the storage said.
        detail: String,
    },
    /// The storage answers with something that cannot be right.
    #[error("the storage is damaged: {detail}")]
    StorageDamaged {
        /// What was found.
        detail: String,
    },
    /// The embedder did not answer, and what was asked for needs it.
    #[error("{detail}")]
    EmbedderUnavailable {
        /// What was seen.
        detail: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The storage did not do it for now: locked, closed, unreachable.
    #[error("the storage is not available: {detail}")]
    Unavailable {
        /// What the storage said.
        detail: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A defect of ours.
    #[error("internal error: {detail}")]
    Internal {
        /// For the log.
        detail: String,
    },
}

/// A code with the HTTP status that goes with it and what it means to a client.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Stable name.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What it means and what to do.
    pub meaning: &'static str,
}

/// Every code that this crate's errors carry, in alphabetical order.
pub const CODES: &[Code] = &[
    Code {
        code: "budget_too_small",
        status: 422,
        meaning: "What must be in the window does not fit; ask for at least `minimum` tokens.",
    },
    Code {
        code: "client_id_reused",
        status: 409,
        meaning: "The item's client_id already names an item with other content; use a new one.",
    },
    Code {
        code: "context_differs",
        status: 409,
        meaning: "The id is taken by a context with other fields; choose another id or send the same fields.",
    },
    Code {
        code: "embedder_unavailable",
        status: 503,
        meaning: "The embedder of `context_manager.semantic` did not answer; try again after `Retry-After` seconds, or search by `text` or `hybrid`.",
    },
    Code {
        code: "idempotency_key_reused",
        status: 409,
        meaning: "The key was used for a different request; use a new key for a new request.",
    },
    Code {
        code: "internal",
        status: 500,
        meaning: "A defect of ours; the log has the detail under the request id.",
    },
    Code {
        code: "invalid",
        status: 422,
        meaning: "A field is not acceptable; `field`, `detail` and `hint` say which, why and what would work.",
    },
    Code {
        code: "not_found",
        status: 404,
        meaning: "No such context for this credential.",
    },
    Code {
        code: "overloaded",
        status: 429,
        meaning: "A queue is full; try again after `Retry-After` seconds.",
    },
    Code {
        code: "session_lost",
        status: 409,
        meaning: "The database lost what Contextkeep-Token has seen; go on without the token if what is left will do.",
    },
    Code {
        code: "storage_damaged",
        status: 500,
        meaning: "The data file is damaged; stop the server, copy the file, see docs/OPERATIONS.md.",
    },
    Code {
        code: "storage_full",
        status: 507,
        meaning: "No room on the disk; nothing of the write was kept.",
    },
    Code {
        code: "tokenizer_missing",
        status: 409,
        meaning: "The context counts tokens with a tokenizer that `context_manager.tokenizers` does not name any more; it can be read, and written again once the operator has named it.",
    },
    Code {
        code: "too_large",
        status: 413,
        meaning: "Something is over a limit; `detail` says what and by how much.",
    },
    Code {
        code: "unavailable",
        status: 503,
        meaning: "The storage did not answer; try again after `Retry-After` seconds.",
    },
    Code {
        code: "version_mismatch",
        status: 412,
        meaning: "If-Match names a version that is not current; read again and decide.",
    },
];

impl Error {
    /// The stable code, one of [`CODES`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Invalid(_) => "invalid",
            Self::TooLarge { .. } => "too_large",
            Self::ContextDiffers { .. } => "context_differs",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::ClientIdReused { .. } => "client_id_reused",
            Self::BudgetTooSmall { .. } => "budget_too_small",
            Self::TokenizerMissing { .. } => "tokenizer_missing",
            Self::SessionLost { .. } => "session_lost",
            Self::Overloaded { .. } => "overloaded",
            Self::StorageFull { .. } => "storage_full",
            Self::StorageDamaged { .. } => "storage_damaged",
            Self::EmbedderUnavailable { .. } => "embedder_unavailable",
            Self::Unavailable { .. } => "unavailable",
            Self::TokenizerMismatch { .. } | Self::Internal { .. } => "internal",
        }
    }

    /// The HTTP status of [`Error::code`].
    pub fn status(&self) -> u16 {
        let code = self.code();
        CODES
            .iter()
            .find(|entry| entry.code == code)
            .map_or(500, |entry| entry.status)
    }

    /// When to try again, where that makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. }
            | Self::EmbedderUnavailable { retry_after, .. }
            | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// What to do about it, where the message does not say so already.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Invalid(invalid) => invalid.hint.as_deref(),
            Self::VersionMismatch { .. } => Some("read the context again, then repeat with its ETag"),
            Self::ContextDiffers { .. } => Some("choose another id, or send the fields that the context has"),
            Self::IdempotencyKeyReused => {
                Some("a retry repeats the request byte for byte; a new request needs a new key")
            }
            Self::TokenizerMissing { .. } => {
                Some("have the operator name it under context_manager.tokenizers, or go on in a new context")
            }
            Self::SessionLost { .. } => Some("leave out Contextkeep-Token to read what is left"),
            Self::StorageFull { .. } => {
                Some("free or add disk space; the embedded store also ends at embedded.max_size")
            }
            _ => None,
        }
    }

    /// Whether the caller's input is to blame, so that nobody is woken up.
    pub fn is_callers(&self) -> bool {
        self.status() < 500 && self.status() != 429
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::Internal {
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn a_field_goes_under_its_parent() {
        let invalid = Invalid::new("role", "is missing").under("items[3]");
        assert_eq!(invalid.to_string(), "items[3].role: is missing");
    }
}
