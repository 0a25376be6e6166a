//! The breaker as one would write it on a whiteboard: one thread, unlimited history.

use std::time::Duration;

use contextkeep_resilience::breaker::{Abandoned, Cause, State, Window};
use contextkeep_resilience::{Nanos, Verdict, Why};

use super::rules::{MAX_RETRY_AFTER, Rules};

#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) started: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    Says(Verdict),
    Dropped,
}

/// The breaker as one would write it on a whiteboard: one thread, unlimited history.
pub(super) struct Naive {
    pub(super) rules: Rules,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) since: Nanos,
    pub(super) history: Vec<(Nanos, bool, bool)>,
    pub(super) failures: u32,
    pub(super) abandoned: u32,
    pub(super) exponent: Option<u32>,
    pub(super) until: Nanos,
    pub(super) running: u32,
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) probe_deadline: Nanos,
    pub(super) events: Vec<(u64, State, State, Cause)>,
}

impl Naive {
    pub(super) fn new(rules: Rules) -> Self {
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

    pub(super) fn enter(&mut self, to: State, cause: Cause, now: Nanos, hint: Duration) {
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

    pub(super) fn acquire(&mut self, now: Nanos) -> Result<Ticket, Why> {
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

    pub(super) fn finish(&mut self, ticket: Ticket, end: End, now: Nanos) {
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
    pub(super) fn window(&self, now: Nanos) -> &[(Nanos, bool, bool)] {
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
