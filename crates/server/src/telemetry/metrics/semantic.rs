//! What is embedded for searches by meaning, as metrics; none unless an embedder is configured.

use super::observed::{BREAKER, float};
use super::table;
use crate::semantic::SemanticSearch;

pub(super) fn observe(search: &SemanticSearch) {
    let Some(semantic) = search.semantic() else {
        return;
    };
    let counts = semantic.counts();
    for (outcome, count) in [
        ("embedded", counts.embedded),
        ("empty", counts.empty),
        ("refused", counts.refused),
    ] {
        table::EMBEDDED.count(&[outcome], count);
    }
    table::EMBEDDING_FAILURES.count(&["embedder"], counts.failed);
    table::EMBEDDING_FAILURES.count(&["store"], counts.store_failed);
    table::EMBEDDING_LAG.set(&[], float(counts.lacking));
    if let Some(breaker) = search.breaker() {
        for state in BREAKER {
            let is = if state == breaker { 1.0 } else { 0.0 };
            table::EMBEDDER_BREAKER.set(&[state.as_str()], is);
        }
    }
}
