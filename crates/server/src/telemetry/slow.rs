//! A line in the log for each request that took long, with where its time went.

use std::time::Duration;

use contextkeep_core::Origin;
use contextkeep_core::session::{Session, Stage};
use opentelemetry::TraceId;
use tokio::time::Instant;

use super::allowance::Allowance;

/// Lines in one second: when everything is slow, more of them say nothing new.
const LINES_MAX: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Which requests are slow, and how many lines may still be written.
#[derive(Debug)]
pub struct SlowRequests {
    threshold: Duration,
    lines: Allowance,
}

/// What is said of a request: nothing of its content, and no id but its own.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    /// If it is traced.
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) method: &'a str,
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    pub(crate) took: Duration,
    pub(crate) session: Option<&'a Session>,
}

impl SlowRequests {
    /// From this duration on a request is slow.
    pub fn from(threshold: Duration) -> Self {
        Self {
            threshold,
            lines: Allowance::new(LINES_MAX, SECOND),
        }
    }

    /// Whether a request that took so long is slow.
    pub(crate) fn is(&self, took: Duration) -> bool {
        took >= self.threshold
    }

    /// Writes the line, if there is room for it in this second.
    pub(crate) fn tell(&self, request: &Request<'_>) {
        let Some(left_out) = self.lines.room(Instant::now()) else {
            return;
        };
        let ms = |stage| {
            let spent = request
                .session
                .map_or(Duration::ZERO, |session| session.spent(stage));
            millis(spent)
        };
        tracing::warn!(
            method = request.method,
            route = request.route,
            status = request.status,
            request_id = request.id,
            trace_id = request.trace_id.map(tracing::field::display),
            duration_ms = millis(request.took),
            gate_ms = ms(Stage::Gate),
            statement_ms = ms(Stage::Statement),
            commit_ms = ms(Stage::Commit),
            cache_ms = ms(Stage::Cache),
            tokens_ms = ms(Stage::Tokens),
            origin = request
                .session
                .and_then(Session::origin)
                .map_or("", Origin::as_str),
            left_out,
            "slow request"
        );
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_what_took_the_threshold_at_least() {
        let slow = SlowRequests::from(Duration::from_millis(500));
        assert!(!slow.is(Duration::from_millis(499)) && slow.is(Duration::from_millis(500)));
    }
}
