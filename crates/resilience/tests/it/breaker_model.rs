//! The breaker against a naive one that remembers everything.

mod naive;
mod ops;
mod rules;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_resilience::breaker::{Cause, State};
use contextkeep_resilience::{Breaker, Clock, ManualClock, Nanos, Permit, Verdict};
use proptest::prelude::*;

use self::naive::{End, Naive, Ticket};
use self::ops::{Op, ops};
use self::rules::{MAX_RETRY_AFTER, Rules, rules};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Both breakers, and the permits that are out.
struct Pair {
    clock: ManualClock,
    real: Breaker,
    naive: Naive,
    out: Vec<(Permit, Ticket)>,
    admitted: u64,
}

impl Pair {
    fn new(rules: Rules) -> Self {
        let clock = ManualClock::new();
        Self {
            real: rules.breaker(&clock),
            clock,
            naive: Naive::new(rules),
            out: Vec::new(),
            admitted: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        let now = self.clock.now();
        match op {
            Op::Acquire => match (self.real.try_acquire(), self.naive.acquire(now)) {
                (Ok(permit), Ok(ticket)) => {
                    assert_eq!(permit.generation(), ticket.generation);
                    self.out.push((permit, ticket));
                    self.admitted += 1;
                }
                (Err(rejected), Err(why)) => assert_eq!(rejected.why, why),
                (real, naive) => panic!("real {real:?}, naive {naive:?}"),
            },
            Op::Finish(index, verdict) => {
                if let Some((permit, ticket)) = self.take(*index) {
                    permit.record(*verdict);
                    self.naive.finish(ticket, End::Says(*verdict), now);
                }
            }
            Op::Drop(index) => {
                if let Some((permit, ticket)) = self.take(*index) {
                    drop(permit);
                    self.naive.finish(ticket, End::Dropped, now);
                }
            }
            Op::Advance(millis) => self.clock.advance(ms(*millis)),
            Op::Isolate => self.manual(now, State::Isolated, Breaker::isolate),
            Op::Observe(true) => self.manual(now, State::Observing, |breaker| breaker.observe_only(true)),
            Op::Reset => self.manual(now, State::Closed, Breaker::reset),
            Op::Release | Op::Observe(false) => {
                if matches!(self.naive.state, State::Isolated | State::Observing) {
                    self.naive
                        .enter(State::Closed, Cause::Manual, now, Duration::ZERO);
                }
                self.real.release();
            }
        }
    }

    fn manual(&mut self, now: Nanos, to: State, act: impl Fn(&Breaker)) {
        if self.naive.state != to || to == State::Closed {
            self.naive.enter(to, Cause::Manual, now, Duration::ZERO);
        }
        act(&self.real);
    }

    fn take(&mut self, index: usize) -> Option<(Permit, Ticket)> {
        (!self.out.is_empty()).then(|| self.out.swap_remove(index % self.out.len()))
    }

    fn compare(&self) {
        let snapshot = self.real.snapshot();
        assert_eq!(snapshot.state, self.naive.state);
        assert_eq!(snapshot.generation, self.naive.generation);
        assert_eq!(snapshot.consecutive_failures, u64::from(self.naive.failures));
        let window = self.naive.window(self.clock.now());
        assert_eq!(snapshot.calls as usize, window.len());
        assert_eq!(
            snapshot.failed as usize,
            window.iter().filter(|(_, failed, _)| *failed).count()
        );
        assert_eq!(
            snapshot.slow as usize,
            window.iter().filter(|(_, _, slow)| *slow).count()
        );
        let alive = self
            .out
            .iter()
            .filter(|(permit, _)| permit.generation() == snapshot.generation)
            .count();
        if snapshot.state == State::HalfOpen {
            assert_eq!(usize::try_from(snapshot.probes_in_flight), Ok(alive), "I3");
            assert!(alive <= self.naive.rules.half_open.probes.into(), "I1");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_breaker_does_what_the_naive_one_does(rules in rules(), ops in ops()) {
        let mut pair = Pair::new(rules);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        pair.real.on_transition(move |event| {
            ear.lock().unwrap().push((event.generation, event.from, event.to, event.cause));
        }).forever();
        for op in &ops {
            pair.apply(op);
            pair.compare();
        }
        while !pair.out.is_empty() {
            pair.apply(&Op::Drop(0));
        }
        pair.compare();
        let totals = pair.real.snapshot().totals;
        let ended = totals.success + totals.failure + totals.throttled + totals.neutral + totals.abandoned;
        prop_assert_eq!(ended, pair.admitted); // I2
        prop_assert_eq!(&*heard.lock().unwrap(), &pair.naive.events); // I10
    }

    #[test]
    fn success_in_time_never_opens(rules in rules(), steps in proptest::collection::vec(0_u64..500, 1..200)) {
        let clock = ManualClock::new(); // I7
        let breaker = rules.breaker(&clock);
        for step in steps {
            breaker.try_acquire().unwrap().success();
            clock.advance(ms(step));
        }
        prop_assert_eq!(breaker.snapshot().generation, 0);
    }

    #[test]
    fn neutral_traffic_changes_nothing(rules in rules(), prefix in ops(), calls in 1_usize..50) {
        let mut pair = Pair::new(rules); // I9
        for op in &prefix {
            pair.apply(op);
        }
        // A first call may find that the open time or a probe's wait is over; that is not the verdict's doing.
        drop(pair.real.try_acquire().map(Permit::neutral));
        let before = pair.real.snapshot();
        for _ in 0..calls {
            drop(pair.real.try_acquire().map(Permit::neutral));
        }
        let after = pair.real.snapshot();
        prop_assert_eq!((before.state, before.generation, before.calls), (after.state, after.generation, after.calls));
        prop_assert_eq!(before.consecutive_failures, after.consecutive_failures);
        prop_assert_eq!(before.probes_in_flight, after.probes_in_flight);
    }

    #[test]
    fn half_open_is_left_within_its_wait(rules in rules(), asks in proptest::collection::vec(1_u64..50, 1..40)) {
        let clock = ManualClock::new(); // I6: the probe is never polled again
        let breaker = rules.breaker(&clock);
        while breaker.state() != State::Open {
            breaker.try_acquire().unwrap().record(Verdict::Throttled { retry_after: Some(ms(1)) });
        }
        clock.advance(rules.cap.max(rules.base).max(MAX_RETRY_AFTER));
        let _lost = breaker.try_acquire().unwrap();
        let generation = breaker.snapshot().generation;
        let mut waited = Duration::ZERO;
        for ask in asks.iter().cycle() {
            clock.advance(ms(*ask));
            waited += ms(*ask);
            if let Ok(permit) = breaker.try_acquire() { permit.neutral() }
            if breaker.snapshot().generation != generation { break }
            prop_assert!(waited < rules.half_open.max_wait, "still half-open after {:?}", waited);
        }
        prop_assert_eq!(breaker.state(), State::Open);
    }
}
