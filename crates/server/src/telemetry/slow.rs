//! A line in the log for each request that took long, with where its time went.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use contextkeep_core::Origin;
use contextkeep_core::session::{Session, Stage};
use tokio::time::Instant;

/// Lines in one second: when everything is slow, more of them say nothing new.
const LINES_MAX: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Which requests are slow, and how many lines may still be written.
#[derive(Debug)]
pub struct SlowRequests {
    threshold: Duration,
    second: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    begun: Instant,
    lines: u32,
    left_out: u64,
}

/// What is said of a request: nothing of its content, and no id but its own.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) method: &'a str,
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    pub(crate) took: Duration,
    pub(crate) session: Option<&'a Session>,
}

impl SlowRequests {
    /// From this duration on a request is slow.
    pub fn from(threshold: Duration) -> Self {
        let second = Second {
            begun: Instant::now(),
            lines: 0,
            left_out: 0,
        };
        Self {
            threshold,
            second: Mutex::new(second),
        }
    }

    /// Whether a request that took so long is slow.
    pub(crate) fn is(&self, took: Duration) -> bool {
        took >= self.threshold
    }

    /// Writes the line, if there is room for it in this second.
    pub(crate) fn tell(&self, request: &Request<'_>) {
        let Some(left_out) = self.room(Instant::now()) else {
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

    /// How many lines were left out before this one; `None` if this one is left out as well.
    fn room(&self, now: Instant) -> Option<u64> {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(second.begun) >= SECOND {
            (second.begun, second.lines) = (now, 0);
        }
        if second.lines == LINES_MAX {
            second.left_out += 1;
            return None;
        }
        second.lines += 1;
        Some(std::mem::take(&mut second.left_out))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_and_the_next_says_how_many_were_left_out() {
        let slow = SlowRequests::from(Duration::from_millis(500));
        assert!(!slow.is(Duration::from_millis(499)) && slow.is(Duration::from_millis(500)));
        let begun = Instant::now();
        let lines: Vec<_> = (0..15).map(|_| slow.room(begun)).collect();
        assert_eq!(lines.iter().filter(|line| **line == Some(0)).count(), 10);
        assert_eq!(lines[10..], [None; 5]);
        let later = begun + SECOND * 2;
        assert_eq!((slow.room(later), slow.room(later)), (Some(5), Some(0)));
    }
}
