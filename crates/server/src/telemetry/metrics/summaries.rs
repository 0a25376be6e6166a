//! Summaries in the background, as metrics.

use super::observed::{BREAKER, float};
use super::table;
use crate::summaries::Summaries;

pub(super) fn observe(summaries: &Summaries) {
    let counts = summaries.background.counts();
    for (outcome, count) in [
        ("kept", counts.kept),
        ("needless", counts.needless),
        ("outdated", counts.outdated),
        ("not_asked", counts.not_asked),
        ("failed", counts.failed),
        ("unusable", counts.unusable),
        ("store_failed", counts.store_failed),
        ("shed", counts.shed),
    ] {
        table::SUMMARIES.count(&[outcome], count);
    }
    table::SUMMARIES_WAITING.set(&[], float(counts.waiting as u64));
    table::SUMMARIES_RUNNING.set(&[], float(counts.running as u64));
    if let Some(breaker) = summaries.breaker() {
        for state in BREAKER {
            let is = if state == breaker { 1.0 } else { 0.0 };
            table::MODEL_BREAKER.set(&[state.as_str()], is);
        }
    }
}
