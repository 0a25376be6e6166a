//! The breaker against a naive one that remembers everything.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_resilience::breaker::{Abandoned, Cause, HalfOpen, State, Window};
use contextkeep_resilience::{Backoff, Breaker, Clock, Jitter, ManualClock, Nanos, Permit, Verdict, Why};
use proptest::prelude::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const MAX_RETRY_AFTER: Duration = ms(700);

#[derive(Debug, Clone)]
struct Rules {
    window: Window,
    failure_percent: Option<u32>,
    slow_percent: Option<u32>,
    slow_after: Duration,
    consecutive: Option<u16>,
    min_calls: u32,
    base: Duration,
    cap: Duration,
    stable_after: Duration,
    half_open: HalfOpen,
    abandoned: Abandoned,
}

impl Rules {
    fn breaker(&self, clock: &ManualClock) -> Breaker {
        let rate = |percent: Option<u32>| percent.map(|percent| f64::from(percent) / 100.0);
        Breaker::builder("model")
            .window(self.window)
            .failure_rate(rate(self.failure_percent))
            .slow(self.slow_after, rate(self.slow_percent))
            .consecutive(self.consecutive)
            .min_calls(self.min_calls)
            .open(Backoff::exponential(self.base, self.cap).jitter(Jitter::None))
            .max_retry_after(MAX_RETRY_AFTER)
            .stable_after(self.stable_after)
            .half_open(self.half_open.clone())
            .abandoned(self.abandoned)
            .clock(clock.clone())
            .build()
            .unwrap()
    }
}

#[derive(Debug, Clone, Copy)]
struct Ticket {
    generation: u64,
    started: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Says(Verdict),
    Dropped,
}

/// The breaker as one would write it on a whiteboard: one thread, unlimited history.
struct Naive {
    rules: Rules,
    state: State,
    generation: u64,
    since: Nanos,
    history: Vec<(Nanos, bool, bool)>,
    failures: u32,
    abandoned: u32,
    exponent: Option<u32>,
    until: Nanos,
    running: u32,
    passed: u32,
    failed: u32,
    probe_deadline: Nanos,
    events: Vec<(u64, State, State, Cause)>,
}

impl Naive {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Closed,
            generation: 0,
            since: Nanos::ZERO,
            history: Vec::new(),
            failures: 0,
            abandoned: 0,
            exponent: None,
            until: Nanos::ZERO,
            running: 0,
            passed: 0,
            failed: 0,
            probe_deadline: Nanos::ZERO,
            events: Vec::new(),
        }
    }

    fn enter(&mut self, to: State, cause: Cause, now: Nanos, hint: Duration) {
        if to == State::Open {
            let stable = self.state == State::Closed && now.since(self.since) >= self.rules.stable_after;
            let exponent = self.exponent.map_or(0, |last| if stable { 0 } else { last + 1 });
            self.exponent = Some(exponent);
            let doubled = self.rules.base.saturating_mul(2_u32.saturating_pow(exponent));
            self.until = now.after(
                doubled
                    .min(self.rules.cap.max(self.rules.base))
                    .max(hint.min(MAX_RETRY_AFTER)),
            );
        } else if cause == Cause::Manual {
            self.exponent = None;
        }
        self.generation += 1;
        self.events.push((self.generation, self.state, to, cause));
        self.state = to;
        self.since = now;
        self.history.clear();
        (self.failures, self.abandoned) = (0, 0);
        (self.running, self.passed, self.failed) = (0, 0, 0);
    }

    fn acquire(&mut self, now: Nanos) -> Result<Ticket, Why> {
        let ticket = |generation| Ticket {
            generation,
            started: now,
        };
        if self.state == State::Open {
            if now < self.until {
                return Err(Why::Open); // I5
            }
            self.enter(State::HalfOpen, Cause::OpenElapsed, now, Duration::ZERO);
        }
        if self.state == State::HalfOpen && self.running > 0 && now >= self.probe_deadline {
            self.enter(State::Open, Cause::ProbesLost, now, Duration::ZERO);
            return Err(Why::Open);
        }
        if self.state == State::Recovering {
            let stages = u32::try_from(self.rules.half_open.ramp.len()).unwrap();
            if now.since(self.since) >= self.rules.half_open.stage * stages {
                self.enter(State::Closed, Cause::RampDone, now, Duration::ZERO);
            }
        }
        match self.state {
            State::Isolated => Err(Why::Isolated),
            State::HalfOpen
                if self.running + self.passed + self.failed >= self.rules.half_open.probes.into() =>
            {
                Err(Why::HalfOpenBusy)
            }
            State::HalfOpen => {
                if self.running == 0 {
                    self.probe_deadline = now.after(self.rules.half_open.max_wait);
                }
                self.running += 1;
                Ok(ticket(self.generation))
            }
            _ => Ok(ticket(self.generation)),
        }
    }

    fn finish(&mut self, ticket: Ticket, end: End, now: Nanos) {
        if ticket.generation != self.generation {
            return; // I4
        }
        let slow = now.since(ticket.started) >= self.rules.slow_after;
        let abandoned_fails = match self.rules.abandoned {
            Abandoned::Ignore => None,
            Abandoned::Failure => Some(true),
            Abandoned::FailureIfSlow => Some(slow),
        };
        match end {
            End::Says(Verdict::Neutral) => self.nothing(),
            End::Says(Verdict::Success) => self.sample(now, false, slow, true, None),
            End::Says(Verdict::Failure) => self.sample(now, true, slow, true, None),
            End::Says(Verdict::Throttled { retry_after }) => self.sample(now, true, slow, false, retry_after),
            End::Dropped => match abandoned_fails {
                Some(true) => self.sample(now, true, slow, true, None),
                Some(false) if self.state == State::HalfOpen => self.running -= 1,
                Some(false) if self.state == State::Observing => {}
                Some(false) => {
                    self.abandoned += 1;
                    if self.abandoned >= self.rules.min_calls {
                        self.enter(State::Open, Cause::AllAbandoned, now, Duration::ZERO);
                    }
                }
                None => self.nothing(),
            },
        }
    }

    fn nothing(&mut self) {
        if self.state == State::HalfOpen {
            self.running -= 1;
        }
        self.abandoned = 0;
    }

    fn sample(&mut self, now: Nanos, failed: bool, slow: bool, streak: bool, retry_after: Option<Duration>) {
        if self.state == State::HalfOpen {
            self.probe(now, failed, retry_after.unwrap_or_default());
            return;
        }
        self.history.push((now, failed, slow));
        if self.state == State::Observing {
            return;
        }
        self.abandoned = 0;
        if !failed {
            self.failures = 0;
        } else if streak {
            self.failures += 1;
        }
        if let Some(cause) = self.trips(now, failed, slow, streak, retry_after) {
            self.enter(State::Open, cause, now, retry_after.unwrap_or_default());
        }
    }

    fn probe(&mut self, now: Nanos, failed: bool, hint: Duration) {
        let half_open = self.rules.half_open.clone();
        self.running -= 1;
        if failed {
            self.failed += 1;
            if self.failed > u32::from(half_open.probes - half_open.need) {
                self.enter(State::Open, Cause::ProbesFailed, now, hint);
            }
            return;
        }
        self.passed += 1;
        if self.passed >= half_open.need.into() {
            let next = if half_open.ramp.is_empty() {
                State::Closed
            } else {
                State::Recovering
            };
            self.enter(next, Cause::ProbesPassed, now, Duration::ZERO);
        }
    }

    fn trips(
        &self,
        now: Nanos,
        failed: bool,
        slow: bool,
        streak: bool,
        wait: Option<Duration>,
    ) -> Option<Cause> {
        if failed
            && streak
            && self
                .rules
                .consecutive
                .is_some_and(|limit| self.failures >= limit.into())
        {
            return Some(Cause::ConsecutiveFailures);
        }
        if wait.is_some() {
            return Some(Cause::Throttled);
        }
        if !failed && !slow {
            return None; // I7
        }
        let window = self.window(now);
        let total = u32::try_from(window.len()).unwrap();
        let share = |part: usize, percent: Option<u32>| {
            percent.is_some_and(|percent| u32::try_from(part).unwrap() * 100 >= percent * total)
        };
        if total < self.rules.min_calls {
            return None;
        }
        if share(
            window.iter().filter(|(_, failed, _)| *failed).count(),
            self.rules.failure_percent,
        ) {
            return Some(Cause::FailureRate);
        }
        share(
            window.iter().filter(|(_, _, slow)| *slow).count(),
            self.rules.slow_percent,
        )
        .then_some(Cause::SlowRate)
    }

    /// I8: what the window has to hold, from the whole history.
    fn window(&self, now: Nanos) -> &[(Nanos, bool, bool)] {
        let forgotten = match self.rules.window {
            Window::Calls(calls) => self.history.len().saturating_sub(calls.into()),
            Window::Time { span, slices } => {
                let slice = u64::try_from((span / slices).as_nanos()).unwrap();
                let number = |at: Nanos| at.as_nanos() / slice;
                self.history
                    .partition_point(|(at, _, _)| number(now) - number(*at) >= u64::from(slices))
            }
        };
        &self.history[forgotten..]
    }
}

#[derive(Debug, Clone)]
enum Op {
    Acquire,
    Finish(usize, Verdict),
    Drop(usize),
    Advance(u64),
    Isolate,
    Release,
    Reset,
    Observe(bool),
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Success),
        4 => Just(Verdict::Failure),
        1 => Just(Verdict::Throttled { retry_after: None }),
        1 => (1_u64..1000).prop_map(|wait| Verdict::Throttled { retry_after: Some(ms(wait)) }),
        1 => Just(Verdict::Neutral),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
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

fn rules() -> impl Strategy<Value = Rules> {
    let window = prop_oneof![
        (1_u64..20, 1_u32..=16).prop_map(|(slice, slices)| Window::Time {
            span: ms(slice * 50) * slices,
            slices
        }),
        (1_u16..60).prop_map(Window::Calls),
    ];
    let percent = || proptest::option::of(1_u32..=100);
    let half_open = (1_u8..5, 1_u8..5, 1_u64..500, 0_usize..3).prop_map(|(probes, need, wait, ramp)| {
        HalfOpen::probes(probes, need.min(probes), ms(wait)).then_ramp(vec![1.0; ramp], ms(100))
    });
    let abandoned = prop_oneof![
        Just(Abandoned::FailureIfSlow),
        Just(Abandoned::Ignore),
        Just(Abandoned::Failure)
    ];
    let times = (1_u64..300, 1_u64..300, 1_u64..2000, 0_u64..1000);
    (
        window,
        (percent(), percent()),
        proptest::option::of(1_u16..6),
        1_u32..30,
        half_open,
        abandoned,
        times,
    )
        .prop_map(
            |(
                window,
                (failure_percent, slow_percent),
                consecutive,
                min_calls,
                half_open,
                abandoned,
                times,
            )| {
                let (slow, base, cap, stable) = times;
                let min_calls = if let Window::Calls(calls) = window {
                    min_calls.min(calls.into())
                } else {
                    min_calls
                };
                Rules {
                    window,
                    failure_percent,
                    slow_percent,
                    slow_after: ms(slow),
                    consecutive,
                    min_calls,
                    base: ms(base),
                    cap: ms(cap),
                    stable_after: ms(stable),
                    half_open,
                    abandoned,
                }
            },
        )
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
