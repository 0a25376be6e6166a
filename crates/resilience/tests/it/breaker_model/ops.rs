//! What may happen to a breaker, and how such histories are drawn.

use contextkeep_resilience::Verdict;
use proptest::prelude::*;

use super::ms;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Acquire,
    Finish(usize, Verdict),
    Drop(usize),
    Advance(u64),
    Isolate,
    Release,
    Reset,
    Observe(bool),
}

pub(super) fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Success),
        4 => Just(Verdict::Failure),
        1 => Just(Verdict::Throttled { retry_after: None }),
        1 => (1_u64..1000).prop_map(|wait| Verdict::Throttled { retry_after: Some(ms(wait)) }),
        1 => Just(Verdict::Neutral),
    ]
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        30 => Just(Op::Acquire),
        25 => (any::<usize>(), verdicts()).prop_map(|(index, verdict)| Op::Finish(index, verdict)),
        5 => any::<usize>().prop_map(Op::Drop),
        15 => (0_u64..200).prop_map(Op::Advance),
        3 => (200_u64..3000).prop_map(Op::Advance),
        1 => Just(Op::Isolate),
        1 => Just(Op::Release),
        1 => Just(Op::Reset),
        1 => any::<bool>().prop_map(Op::Observe),
    ];
    proptest::collection::vec(op, 1..300)
}
