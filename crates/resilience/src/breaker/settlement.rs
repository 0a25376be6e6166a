//! What a finished call does.

use std::time::Duration;

use super::State;
use super::config::Abandoned;
use super::control::Probe;
use super::event::Cause;
use super::machine::Core;
use super::permit::Ticket;
use super::window::Sample;
use crate::clock::Nanos;
use crate::outcome::Verdict;
use crate::sync::Ordering;

/// How a permit came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Verdict(Verdict),
    Abandoned,
    Panicked,
}

/// What an ending amounts to once its duration is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Weight {
    /// An answer that says nothing.
    Nothing,
    /// No answer, and too soon to hold it against anybody.
    Unknown,
    /// A sample for the window, and for the streak if `streak`.
    Counts {
        sample: Sample,
        streak: bool,
        retry_after: Option<Duration>,
    },
}
impl Core {
    /// Books the end of a call of `generation`. I4: of another generation, it is only counted.
    #[inline]
    pub(super) fn settle(&self, ticket: Ticket, ending: Ending) {
        let Ticket {
            generation, started, ..
        } = ticket;
        let now = self.clock.now();
        self.totals.count(ending);
        let took_nanos = now.as_nanos().saturating_sub(started.as_nanos());
        let word = self.control.load();
        // I7: the usual end of a call trips nothing and is not weighed.
        let usual = ending == Ending::Verdict(Verdict::Success) && took_nanos < self.config.slow_after_nanos;
        if usual && word.generation() == generation && word.state() != State::HalfOpen {
            self.window.record(
                generation,
                now,
                Sample {
                    failed: false,
                    slow: false,
                },
            );
            self.streak.succeed(generation);
            return;
        }
        let weight = self.weigh(ending, took_nanos);
        match word.state() {
            State::HalfOpen => self.settle_probe(generation, weight),
            _ if word.generation() != generation => self.late(),
            State::Observing => self.record(generation, now, weight),
            _ => self.settle_sample(generation, now, weight),
        }
    }

    fn late(&self) {
        self.totals.late.fetch_add(1, Ordering::Relaxed);
    }

    fn weigh(&self, ending: Ending, took_nanos: u64) -> Weight {
        let slow = took_nanos >= self.config.slow_after_nanos;
        let counts = |failed, streak, retry_after| Weight::Counts {
            sample: Sample { failed, slow },
            streak,
            retry_after,
        };
        match ending {
            Ending::Verdict(Verdict::Success) => counts(false, true, None),
            Ending::Verdict(Verdict::Failure) | Ending::Panicked => counts(true, true, None),
            Ending::Verdict(Verdict::Throttled { retry_after }) => counts(true, false, retry_after),
            Ending::Verdict(Verdict::Neutral) => Weight::Nothing,
            Ending::Abandoned => match self.config.abandoned {
                Abandoned::Failure => counts(true, true, None),
                Abandoned::FailureIfSlow if slow => counts(true, true, None),
                Abandoned::FailureIfSlow => Weight::Unknown,
                Abandoned::Ignore => Weight::Nothing,
            },
        }
    }

    fn settle_probe(&self, generation: u64, weight: Weight) {
        let (probe, hint) = match weight {
            Weight::Nothing | Weight::Unknown => (Probe::Returned, None),
            Weight::Counts {
                sample, retry_after, ..
            } if sample.failed => (Probe::Failed, retry_after),
            Weight::Counts { .. } => (Probe::Passed, None),
        };
        let Some(word) = self.control.finish_probe(generation, probe) else {
            return self.late();
        };
        let half_open = &self.config.half_open;
        if word.ok() >= half_open.need.into() {
            let next = if half_open.ramp.is_empty() {
                State::Closed
            } else {
                State::Recovering
            };
            self.transition(Some(generation), next, Cause::ProbesPassed, None);
        } else if word.failed() > (half_open.probes - half_open.need).into() {
            self.transition(Some(generation), State::Open, Cause::ProbesFailed, hint);
        }
    }

    fn settle_sample(&self, generation: u64, now: Nanos, weight: Weight) {
        self.record(generation, now, weight);
        match weight {
            Weight::Nothing => {
                self.streak.answer(generation);
            }
            Weight::Unknown => {
                if self.streak.abandon(generation) >= self.config.min_calls.into() {
                    self.transition(Some(generation), State::Open, Cause::AllAbandoned, None);
                }
            }
            Weight::Counts {
                sample,
                streak,
                retry_after,
            } => {
                if let Some(cause) = self.tripped(generation, now, sample, streak, retry_after) {
                    self.transition(Some(generation), State::Open, cause, retry_after);
                }
            }
        }
    }

    fn record(&self, generation: u64, now: Nanos, weight: Weight) {
        if let Weight::Counts { sample, .. } = weight {
            self.window.record(generation, now, sample);
        }
    }

    /// I7: a fast success returns before anything is summed.
    fn tripped(
        &self,
        generation: u64,
        now: Nanos,
        sample: Sample,
        streak: bool,
        retry_after: Option<Duration>,
    ) -> Option<Cause> {
        if !sample.failed {
            self.streak.succeed(generation);
        } else if streak {
            let run = self.streak.fail(generation);
            if self.config.consecutive.is_some_and(|limit| run >= limit) {
                return Some(Cause::ConsecutiveFailures);
            }
        } else {
            self.streak.answer(generation);
        }
        if retry_after.is_some() {
            return Some(Cause::Throttled);
        }
        if !sample.failed && !sample.slow {
            return None;
        }
        let counts = self.window.counts(generation, now);
        if counts.total < self.config.min_calls {
            return None;
        }
        let over = |part: u32, ppm: Option<u64>| {
            ppm.is_some_and(|ppm| u64::from(part) * 1_000_000 >= ppm * u64::from(counts.total))
        };
        if over(counts.failed, self.config.failure_ppm) {
            return Some(Cause::FailureRate);
        }
        over(counts.slow, self.config.slow_ppm).then_some(Cause::SlowRate)
    }
}
