//! What each statement cost so far. Nothing is locked or allocated to count.

use std::array;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::super::link::Statement;
use super::{Bucket, Plan, StatementInsight};

/// Upper bounds of the buckets of durations, in microseconds; one more bucket takes what is longer.
pub(super) const BOUNDS: [u64; BUCKETS - 1] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];
/// How many buckets there are.
pub(super) const BUCKETS: usize = 14;
/// Places for statements: more than twice as many as there are statements, a power of two.
const SLOTS: usize = 128;

/// Stands for all statements that found no place.
static OTHER: Statement = Statement {
    name: "other",
    sql: "",
    types: &[],
};

/// Counters by statement: a hash table whose places are taken once and for all, since statements are `static`.
#[derive(Debug)]
pub(super) struct Counts {
    slots: [Slot; SLOTS],
    other: Slot,
}

/// The counters of one statement.
#[derive(Debug, Default)]
pub(super) struct Slot {
    statement: OnceLock<&'static Statement>,
    failures: AtomicU64,
    slow: AtomicU64,
    max: AtomicU64,
    buckets: [Cell; BUCKETS],
    /// When its plan was last asked for, in milliseconds of the sampler.
    pub(super) sampled: AtomicU64,
    plan: Mutex<Option<Plan>>,
}

#[derive(Debug, Default)]
struct Cell {
    calls: AtomicU64,
    micros: AtomicU64,
}

impl Counts {
    pub(super) fn new() -> Self {
        let other = Slot::default();
        other.statement.get_or_init(|| &OTHER);
        Self {
            slots: array::from_fn(|_| Slot::default()),
            other,
        }
    }

    /// The counters of this statement.
    pub(super) fn of(&self, statement: &'static Statement) -> &Slot {
        let address = ptr::from_ref(statement).addr();
        // Statics lie side by side, so that dividing by their size spreads them without a hash.
        let start = address / size_of::<Statement>() % SLOTS;
        let (wrapped, first) = self.slots.split_at(start);
        first
            .iter()
            .chain(wrapped)
            .find(|slot| ptr::eq(*slot.statement.get_or_init(|| statement), statement))
            .unwrap_or(&self.other)
    }

    /// Each statement that ran, the one that took the most time in all first.
    pub(super) fn statements(&self) -> Vec<StatementInsight> {
        let mut statements: Vec<_> = self.all().filter_map(Slot::insight).collect();
        statements.sort_by(|a, b| b.total().cmp(&a.total()).then(a.name.cmp(b.name)));
        statements
    }

    /// The plans there are, the newest first.
    pub(super) fn plans(&self) -> Vec<Plan> {
        let mut plans: Vec<_> = self
            .all()
            .filter_map(|slot| slot.plan.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect();
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.at));
        plans
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain([&self.other])
    }
}

impl Slot {
    pub(super) fn ran(&self, took: Duration, failed: bool, slow: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(cell) = self.buckets.get(bucket) {
            cell.calls.fetch_add(1, Ordering::Relaxed);
            cell.micros.fetch_add(micros, Ordering::Relaxed);
        }
        if micros > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(micros, Ordering::Relaxed);
        }
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps a plan in place of the one before.
    pub(super) fn keep(&self, plan: Plan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    }

    fn insight(&self) -> Option<StatementInsight> {
        let name = self.statement.get()?.name;
        let buckets = array::from_fn(|index| {
            let cell = self.buckets.get(index);
            let read =
                |counter: Option<&AtomicU64>| counter.map_or(0, |counter| counter.load(Ordering::Relaxed));
            Bucket {
                up_to: BOUNDS.get(index).map(|bound| Duration::from_micros(*bound)),
                calls: read(cell.map(|cell| &cell.calls)),
                total: Duration::from_micros(read(cell.map(|cell| &cell.micros))),
            }
        });
        let insight = StatementInsight {
            name,
            failures: self.failures.load(Ordering::Relaxed),
            slow: self.slow.load(Ordering::Relaxed),
            max: Duration::from_micros(self.max.load(Ordering::Relaxed)),
            buckets,
        };
        (insight.calls() > 0).then_some(insight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(name: &'static str) -> &'static Statement {
        Box::leak(Box::new(Statement {
            name,
            sql: "",
            types: &[],
        }))
    }

    #[test]
    fn each_statement_has_counters_of_its_own() {
        let counts = Counts::new();
        let (head, tail) = (statement("head"), statement("tail"));
        for (statement, ms, failed) in [(head, 1, false), (head, 300, true), (tail, 2, false)] {
            counts
                .of(statement)
                .ran(Duration::from_millis(ms), failed, ms >= 100);
        }
        let statements = counts.statements();
        let seen: Vec<_> = statements
            .iter()
            .map(|s| (s.name, s.calls(), s.failures, s.slow, s.total(), s.max))
            .collect();
        let ms = Duration::from_millis;
        assert_eq!(
            seen,
            [
                ("head", 2, 1, 1, ms(301), ms(300)),
                ("tail", 1, 0, 0, ms(2), ms(2))
            ]
        );
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for (micros, bucket) in [(0, 0), (500, 0), (501, 1), (10_000_000, 12), (10_000_001, 13)] {
            let counts = Counts::new();
            let head = statement("head");
            counts.of(head).ran(Duration::from_micros(micros), false, false);
            let seen = counts.statements();
            let hit = seen[0].buckets.iter().position(|bucket| bucket.calls == 1);
            assert_eq!(hit, Some(bucket), "{micros}");
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket_and_never_above_the_longest() {
        let counts = Counts::new();
        let head = statement("head");
        for ms in [1, 1, 1, 1, 1, 1, 1, 1, 1, 40] {
            counts.of(head).ran(Duration::from_millis(ms), false, false);
        }
        let seen = counts.statements();
        assert_eq!(seen[0].quantile(0.5), Duration::from_millis(1));
        assert_eq!(seen[0].quantile(0.9), Duration::from_millis(1));
        assert_eq!(seen[0].quantile(0.99), Duration::from_millis(40));
    }

    #[test]
    fn more_statements_than_places_are_counted_together() {
        let counts = Counts::new();
        for _ in 0..SLOTS + 10 {
            counts
                .of(statement("many"))
                .ran(Duration::from_millis(1), false, false);
        }
        let statements = counts.statements();
        assert_eq!(statements.len(), SLOTS + 1);
        let other = statements.iter().find(|s| s.name == "other").unwrap();
        assert_eq!(other.calls(), 10);
        assert_eq!(statements.iter().map(StatementInsight::calls).sum::<u64>(), 138);
    }
}
