//! Two rankings made one, by ranks alone: scores of words and cosines have nothing in common.

use std::collections::HashMap;

use crate::store::Hit;

/// Reciprocal rank fusion with k = 60, the value of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms
/// Condorcet and individual Rank Learning Methods", SIGIR 2009.
const K: f64 = 60.0;

/// The hits of both lists, those that are high in both first. The scores are those of the fusion; of a hit that is in
/// both, the first list's is kept.
pub(super) fn fused(first: Vec<Hit>, second: Vec<Hit>) -> Vec<Hit> {
    let mut places = HashMap::new();
    let mut hits: Vec<Hit> = Vec::with_capacity(first.len() + second.len());
    for list in [first, second] {
        let mut rank = K;
        for hit in list {
            rank += 1.0;
            let place = *places
                .entry((hit.context.clone(), hit.item.seq))
                .or_insert_with(|| {
                    hits.push(Hit { score: 0.0, ..hit });
                    hits.len() - 1
                });
            if let Some(hit) = hits.get_mut(place) {
                hit.score += 1.0 / rank;
            }
        }
    }
    // Stable: of equals, those of the first list.
    hits.sort_by(|one, other| other.score.total_cmp(&one.score));
    hits
}
