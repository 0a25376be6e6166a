//! The trace that requests to others go on with: that of the request which they are made for.

use axum::http::HeaderValue;

/// The header that continues a trace (W3C Trace Context, section 3.2).
pub(crate) const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CURRENT: Option<HeaderValue>;
}

/// Runs a future whose posts have this header, if it is one. Tasks that it spawns post without.
///
/// Cancellation: dropping it drops the future.
pub(crate) fn within_trace<F: Future>(
    traceparent: Option<HeaderValue>,
    work: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(traceparent, work)
}

/// The header of what is posted now.
pub(super) fn traceparent() -> Option<HeaderValue> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}
