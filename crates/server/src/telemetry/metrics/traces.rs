//! What became of traces, as metrics.

use super::observed::float;
use super::table;
use crate::telemetry::traces::Traces;

pub(super) fn observe(traces: &Traces) {
    let standing = traces.standing();
    for (outcome, count) in [
        ("exported", standing.exported),
        ("dropped", standing.dropped),
        ("failed", standing.failed),
        ("rejected", standing.rejected),
    ] {
        table::SPANS.count(&[outcome], count);
    }
    for (outcome, count) in [("taken", standing.exports), ("failed", standing.failed_exports)] {
        table::SPAN_EXPORTS.count(&[outcome], count);
    }
    table::SPANS_WAITING.set(&[], float(standing.waiting));
    table::TRACES_LEFT_OUT.count(&[], standing.left_out);
}
