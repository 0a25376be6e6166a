//! The best of many, without keeping all of them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Keeps the `room` best of what it is shown; of two that are equally good, the one shown first.
#[derive(Debug)]
pub(crate) struct Best<T> {
    room: usize,
    shown: u64,
    /// The worst on top.
    kept: BinaryHeap<Reverse<Ranked<T>>>,
}

#[derive(Debug)]
struct Ranked<T> {
    score: f32,
    shown: u64,
    what: T,
}

impl<T> Best<T> {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room,
            shown: 0,
            kept: BinaryHeap::new(),
        }
    }

    pub(crate) fn show(&mut self, score: f32, what: T) {
        let ranked = Ranked {
            score,
            shown: self.shown,
            what,
        };
        self.shown += 1;
        if self.kept.len() < self.room {
            self.kept.push(Reverse(ranked));
        } else if let Some(mut worst) = self.kept.peek_mut()
            && ranked > worst.0
        {
            *worst = Reverse(ranked);
        }
    }

    /// How many were shown.
    pub(crate) fn shown(&self) -> u64 {
        self.shown
    }

    /// What was kept with its score, best first.
    pub(crate) fn into_sorted(self) -> impl Iterator<Item = (f32, T)> {
        let sorted = self.kept.into_sorted_vec();
        sorted
            .into_iter()
            .map(|Reverse(ranked)| (ranked.score, ranked.what))
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let earlier = other.shown.cmp(&self.shown);
        self.score.total_cmp(&other.score).then(earlier)
    }
}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Ranked<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_and_of_equals_the_first() {
        let mut best = Best::new(3);
        for (score, name) in [
            (0.5, 'a'),
            (0.1, 'b'),
            (0.9, 'c'),
            (0.5, 'd'),
            (0.5, 'e'),
            (-1.0, 'f'),
        ] {
            best.show(score, name);
        }
        assert_eq!(best.shown(), 6);
        let kept: Vec<_> = best.into_sorted().collect();
        assert_eq!(kept, [(0.9, 'c'), (0.5, 'a'), (0.5, 'd')]);
        let mut none = Best::new(0);
        none.show(1.0, ());
        assert_eq!(none.into_sorted().count(), 0);
    }
}
