//! Who may call.

use std::time::Duration;

use super::State;
use super::control::Word;
use super::event::Cause;
use super::machine::Core;
use super::permit::Ticket;
use crate::clock::{Nanos, whole_nanos};
use crate::error::{Rejected, Why};
use crate::sync::Ordering;

impl Core {
    /// Admits a call or says why not. Closed: one load and one clock reading. Open: the same, and a count.
    #[inline]
    pub(super) fn acquire(&self) -> Result<Ticket, Rejected> {
        let word = self.control.load();
        if matches!(word.state(), State::Closed | State::Observing) {
            return Ok(ticket(word.generation(), self.clock.now(), false));
        }
        self.acquire_or_count(word)
    }

    // Apart, so that the closed path does not carry the registers of a rejection.
    #[inline(never)]
    fn acquire_or_count(&self, word: Word) -> Result<Ticket, Rejected> {
        let now = self.clock.now();
        let left = self.time_left(now);
        if word.state() == State::Open && left.is_some() {
            self.totals.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(self.reject(Why::Open, left));
        }
        let answer = self.acquire_guarded(word, now);
        if answer.is_err() {
            self.totals.rejected.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    fn acquire_guarded(&self, mut word: Word, now: Nanos) -> Result<Ticket, Rejected> {
        // Each turn admits, rejects, or sees a state that somebody has just changed.
        loop {
            let generation = word.generation();
            match word.state() {
                State::Closed | State::Observing => return Ok(ticket(generation, now, false)),
                State::Isolated => return Err(self.reject(Why::Isolated, None)),
                State::Open => match self.time_left(now) {
                    Some(left) => return Err(self.reject(Why::Open, Some(left))),
                    None => self.transition(Some(generation), State::HalfOpen, Cause::OpenElapsed, None),
                },
                State::HalfOpen => {
                    if let Some(answer) = self.acquire_probe(word, now) {
                        return answer;
                    }
                }
                State::Recovering => {
                    if let Some(answer) = self.acquire_recovering(generation, now) {
                        return answer;
                    }
                }
            }
            word = self.control.load();
        }
    }

    /// `None`: the word moved, look again.
    fn acquire_probe(&self, word: Word, now: Nanos) -> Option<Result<Ticket, Rejected>> {
        let half_open = &self.config.half_open;
        let running = word.in_flight() > 0;
        let deadline = Nanos::from_nanos(self.probe_deadline.load(Ordering::Acquire));
        if running && now >= deadline {
            self.transition(Some(word.generation()), State::Open, Cause::ProbesLost, None);
            return None;
        }
        if !self.control.has_slot(word, half_open.probes.into()) {
            let wait = running.then(|| deadline.since(now));
            return Some(Err(self.reject(Why::HalfOpenBusy, wait)));
        }
        if !running {
            // Published before the slot is taken: whoever sees the probe sees its deadline.
            let deadline = now.after(half_open.max_wait).as_nanos();
            self.probe_deadline.fetch_max(deadline, Ordering::AcqRel);
        }
        self.control
            .take_slot(word)
            .then(|| Ok(ticket(word.generation(), now, true)))
    }

    /// `None`: the ramp is over, look again.
    fn acquire_recovering(&self, generation: u64, now: Nanos) -> Option<Result<Ticket, Rejected>> {
        let half_open = &self.config.half_open;
        let stage_nanos = whole_nanos(half_open.stage).max(1);
        let into = now.as_nanos().saturating_sub(self.mark.load(Ordering::Acquire));
        let stage = usize::try_from(into / stage_nanos).unwrap_or(usize::MAX);
        let Some(share) = half_open.ramp.get(stage) else {
            self.transition(Some(generation), State::Closed, Cause::RampDone, None);
            return None;
        };
        if self.random.unit() < *share {
            return Some(Ok(ticket(generation, now, false)));
        }
        let wait = Duration::from_nanos(stage_nanos - into % stage_nanos);
        Some(Err(self.reject(Why::Recovering, Some(wait))))
    }

    /// What [`Self::acquire`] would say, without taking anything.
    pub(super) fn peek(&self) -> Result<(), Rejected> {
        let word = self.control.load();
        match word.state() {
            State::Closed | State::Observing | State::Recovering => Ok(()),
            State::Isolated => Err(self.reject(Why::Isolated, None)),
            State::Open => match self.time_left(self.clock.now()) {
                Some(left) => Err(self.reject(Why::Open, Some(left))),
                None => Ok(()),
            },
            State::HalfOpen if self.control.has_slot(word, self.config.half_open.probes.into()) => Ok(()),
            State::HalfOpen => {
                let deadline = Nanos::from_nanos(self.probe_deadline.load(Ordering::Acquire));
                let left = deadline.since(self.clock.now());
                if left.is_zero() {
                    Ok(())
                } else {
                    Err(self.reject(Why::HalfOpenBusy, Some(left)))
                }
            }
        }
    }

    pub(super) fn time_left(&self, now: Nanos) -> Option<Duration> {
        let left = Nanos::from_nanos(self.mark.load(Ordering::Acquire)).since(now);
        (!left.is_zero()).then_some(left)
    }

    fn reject(&self, why: Why, retry_after: Option<Duration>) -> Rejected {
        Rejected::new(self.name.clone(), why, retry_after)
    }
}

const fn ticket(generation: u64, started: Nanos, probe: bool) -> Ticket {
    Ticket {
        generation,
        started,
        probe,
    }
}
