//! What the store tells, as metrics.

use std::collections::HashMap;
use std::time::Duration;

use contextkeep_core::postgres::insight::{
    BUCKETS, Closed, GateStatus, Insight, MemberState, ServerInsight, StatementInsight,
};
use contextkeep_resilience::breaker;

use super::table;

const HEALTH: [MemberState; 5] = [
    MemberState::Unknown,
    MemberState::Healthy,
    MemberState::Lagging,
    MemberState::Suspect,
    MemberState::Down,
];
pub(super) const BREAKER: [breaker::State; 5] = [
    breaker::State::Closed,
    breaker::State::Open,
    breaker::State::HalfOpen,
    breaker::State::Recovering,
    breaker::State::Isolated,
];

/// Takes over the servers, how reads were routed, and what waits.
pub(super) fn servers(insight: &Insight) {
    for server in &insight.servers {
        pool(server);
        member(server);
        gate(&server.member.gate);
    }
    gate(&insight.searches);
    let reads = &insight.reads;
    for (outcome, count) in [
        ("replica", reads.replica),
        ("primary", reads.primary),
        ("unmet", reads.unmet),
        ("failed", reads.failed),
        ("none", reads.none),
    ] {
        table::READS.count(&[outcome], count);
    }
    table::HEDGES.count(&["sent"], reads.hedged);
    table::HEDGES.count(&["won"], reads.hedge_won);
    table::READS_SHED.count(&[], reads.shed);
    table::PROMOTIONS.count(&[], reads.promotions);
    table::WRITES_WAITING.set(&[], float(insight.writes_waiting));
    for (outcome, count) in [
        ("taken", insight.explaining.taken),
        ("failed", insight.explaining.failed),
        ("skipped", insight.explaining.skipped),
    ] {
        table::PLANS.count(&[outcome], count);
    }
}

fn pool(server: &ServerInsight) {
    let (name, pool) = (&*server.member.name, &server.pool);
    for (metric, count) in [
        (&table::POOL_OPEN, pool.open),
        (&table::POOL_IDLE, pool.idle),
        (&table::POOL_MAX, pool.max),
        (&table::POOL_WAITING, pool.waiting),
        (&table::SHARED_OPEN, pool.shared),
        (&table::SHARED_IN_FLIGHT, pool.shared_in_flight),
    ] {
        metric.set(&[name], float(count as u64));
    }
    for (metric, count) in [
        (&table::OPENED, pool.created),
        (&table::CONNECT_FAILURES, pool.connect_failures),
        (&table::SHED, pool.shed),
    ] {
        metric.count(&[name], count);
    }
    for reason in Closed::ALL {
        table::CLOSED.count(&[name, reason.as_str()], pool.closed_for(reason));
    }
}

fn member(server: &ServerInsight) {
    let (name, member) = (&*server.member.name, &server.member);
    let is = |yes: bool| if yes { 1.0 } else { 0.0 };
    table::PRIMARY.set(&[name], is(member.is_primary));
    for state in HEALTH {
        table::HEALTH.set(&[name, state.as_str()], is(state == member.state));
    }
    for state in BREAKER {
        table::BREAKER.set(&[name, state.as_str()], is(state == member.breaker));
    }
    table::LAG_BYTES.set(&[name], member.lag_bytes.map_or(f64::NAN, float));
    let lag = member.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
    table::LAG_SECONDS.set(&[name], lag);
    table::IN_FLIGHT.set(&[name], float(member.in_flight));
}

fn gate(gate: &GateStatus) {
    let name = &*gate.name;
    for state in BREAKER {
        let is = if state == gate.breaker { 1.0 } else { 0.0 };
        table::GATE.set(&[name, state.as_str()], is);
    }
    table::GATE_RUNNING.set(&[name], float(gate.running.into()));
    table::GATE_WAITING.set(&[name], float(gate.waiting.into()));
    table::GATE_REFUSED.count(&[name], gate.refused);
}

/// Takes over what the statements cost since the last time.
pub(super) fn statements(insight: &Insight, seen: &mut HashMap<&'static str, [(u64, Duration); BUCKETS]>) {
    for statement in &insight.statements {
        table::STATEMENT_FAILURES.count(&[statement.name], statement.failures);
        table::STATEMENT_SLOW.count(&[statement.name], statement.slow);
        let seen = seen.entry(statement.name).or_default();
        for (value, times) in since(statement, seen) {
            table::STATEMENT_DURATION.record(&[statement.name], value, times);
        }
    }
}

/// Of each bucket the mean and how often, so that both the count and the sum come out right.
fn since(statement: &StatementInsight, seen: &mut [(u64, Duration); BUCKETS]) -> Vec<(f64, usize)> {
    let mut values = Vec::new();
    let mut lower = Duration::ZERO;
    for (bucket, seen) in statement.buckets.iter().zip(seen) {
        let calls = bucket.calls.saturating_sub(seen.0);
        if calls > 0 {
            let total = bucket.total.saturating_sub(seen.1).as_secs_f64();
            // Calls and time are not read in one moment: the mean stays within its bucket all the same.
            let upper = bucket.up_to.map_or(f64::INFINITY, |limit| limit.as_secs_f64());
            let least = (lower.as_secs_f64() + 1e-6).min(upper);
            let mean = (total / float(calls)).max(if lower.is_zero() { 0.0 } else { least });
            values.push((mean.min(upper), usize::try_from(calls).unwrap_or(usize::MAX)));
            *seen = (bucket.calls, bucket.total);
        }
        lower = bucket.up_to.unwrap_or(lower);
    }
    values
}

#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 the last digits do not matter"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use contextkeep_core::postgres::insight::{Bucket, limits};

    use super::*;

    fn statement(calls: [u64; BUCKETS], micros: [u64; BUCKETS]) -> StatementInsight {
        let limits = limits();
        StatementInsight {
            name: "head",
            failures: 0,
            slow: 0,
            max: Duration::ZERO,
            buckets: std::array::from_fn(|index| Bucket {
                up_to: limits.get(index).copied(),
                calls: calls[index],
                total: Duration::from_micros(micros[index]),
            }),
        }
    }

    #[test]
    fn each_call_is_taken_over_once_and_stays_in_its_bucket() {
        let (mut calls, mut micros) = ([0; BUCKETS], [0; BUCKETS]);
        (calls[0], micros[0]) = (2, 600);
        (calls[13], micros[13]) = (1, 20_000_000);
        let mut seen = Default::default();
        assert_eq!(
            since(&statement(calls, micros), &mut seen),
            [(0.000_3, 2), (20.0, 1)]
        );
        assert_eq!(since(&statement(calls, micros), &mut seen), []);
        // Counted, and its time not yet added.
        calls[2] = 1;
        assert_eq!(since(&statement(calls, micros), &mut seen), [(0.001_001, 1)]);
    }
}
