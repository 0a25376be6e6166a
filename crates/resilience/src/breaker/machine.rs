//! Admission, settlement and transition: the three things that happen to a breaker.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Tally;
use std::time::Duration;

use super::State;
use super::config::{Abandoned, Config, Window as WindowSpec};
use super::control::{Control, Probe, Word};
use super::event::{Cause, Outbox, Transition};
use super::permit::Ticket;
use super::snapshot::{Snapshot, Totals};
use super::streak::Streak;
use super::window::{Sample, Slots, Window};
use crate::clock::{Clock, Nanos, whole_nanos};
use crate::error::{Rejected, Why};
use crate::outcome::Verdict;
use crate::random::Random;
use crate::ring::{Counts, Ring};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

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

/// What only transitions touch.
#[derive(Debug)]
struct Cold {
    /// When the present generation began.
    since: Nanos,
    /// Which try the last opening was; `None` before the first and after a reset.
    exponent: Option<u32>,
    outbox: Outbox,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) name: Arc<str>,
    config: Config,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    control: Control,
    /// Open: when probing may begin. Recovering: when the ramp began. Published before the word that needs it.
    mark: AtomicU64,
    /// Half-open: when the oldest unanswered probe counts as lost.
    probe_deadline: AtomicU64,
    window: Window,
    streak: Streak,
    pub(super) totals: Totals,
    cold: Mutex<Cold>,
}

impl Core {
    pub(super) fn new(
        name: Arc<str>,
        config: Config,
        observe_only: bool,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let window = match config.window {
            WindowSpec::Time { span, slices } => Window::Time(Ring::new(span, slices)),
            WindowSpec::Calls(calls) => Window::Calls(Slots::new(calls)),
        };
        let cold = Cold {
            since: clock.now(),
            exponent: None,
            outbox: Outbox::default(),
        };
        Self {
            name,
            config,
            clock,
            random,
            control: Control::new(if observe_only {
                State::Observing
            } else {
                State::Closed
            }),
            mark: AtomicU64::new(0),
            probe_deadline: AtomicU64::new(0),
            window,
            streak: Streak::new(),
            totals: Totals::default(),
            cold: Mutex::new(cold),
        }
    }

    #[cfg(loom)]
    pub(super) fn plant(&mut self, mutant: super::control::Mutant) {
        self.control.plant(mutant);
    }

    /// Admits a call or says why not. Closed: one load, one clock reading, one reference count.
    #[inline]
    pub(super) fn acquire(&self) -> Result<Ticket, Rejected> {
        let word = self.control.load();
        if matches!(word.state(), State::Closed | State::Observing) {
            return Ok(ticket(word.generation(), self.clock.now(), false));
        }
        self.acquire_guarded().inspect_err(|_| {
            self.totals.rejected.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn acquire_guarded(&self) -> Result<Ticket, Rejected> {
        let now = self.clock.now();
        // Each turn admits, rejects, or sees a state that somebody has just changed.
        loop {
            let word = self.control.load();
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

    fn time_left(&self, now: Nanos) -> Option<Duration> {
        let left = Nanos::from_nanos(self.mark.load(Ordering::Acquire)).since(now);
        (!left.is_zero()).then_some(left)
    }

    fn reject(&self, why: Why, retry_after: Option<Duration>) -> Rejected {
        Rejected::new(Arc::clone(&self.name), why, retry_after)
    }

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

    /// Enters `to`, if the breaker still is in generation `seen` (`None`: whatever it is in).
    ///
    /// The only writer of generations. Everything the new one needs is published before its word.
    pub(super) fn transition(&self, seen: Option<u64>, to: State, cause: Cause, hint: Option<Duration>) {
        let mut cold = lock(&self.cold);
        let word = self.control.load();
        let from = word.state();
        // By hand: a reset of a closed breaker still forgets its window; the rest would change nothing.
        let stays = seen.is_none() && from == to && to != State::Closed;
        if stays || seen.is_some_and(|seen| seen != word.generation()) {
            return;
        }
        // Read under the lock: the times of successive generations do not run backwards.
        let now = self.clock.now();
        let generation = word.next_generation();
        let open_for = (to == State::Open).then(|| self.open_time(&mut cold, from, now, hint));
        self.mark.store(
            now.after(open_for.unwrap_or_default()).as_nanos(),
            Ordering::Release,
        );
        if cause == Cause::Manual {
            cold.exponent = None;
        }
        self.window.clear(generation);
        self.streak.clear(generation);
        cold.since = now;
        self.control.publish(Word::new(to, generation));
        let breaker = Arc::clone(&self.name);
        cold.outbox.push(Transition {
            breaker,
            generation,
            from,
            to,
            cause,
            at: now,
            open_for,
        });
        let claimed = cold.outbox.claim();
        drop(cold);
        if claimed {
            self.deliver();
        }
    }

    /// How long this opening lasts. It is a first one if the last is long enough ago.
    fn open_time(&self, cold: &mut Cold, from: State, now: Nanos, hint: Option<Duration>) -> Duration {
        let stable = from == State::Closed && now.since(cold.since) >= self.config.stable_after;
        let exponent = match cold.exponent {
            Some(last) if !stable => last.saturating_add(1),
            _ => 0,
        };
        cold.exponent = Some(exponent);
        let hint = hint.unwrap_or_default().min(self.config.max_retry_after);
        self.config
            .open
            .delay(exponent, &*self.random)
            .max(hint)
            .max(Duration::from_nanos(1))
    }

    fn deliver(&self) {
        /// Hands the role on even when a listener panics.
        struct Claim<'a>(&'a Core);
        impl Drop for Claim<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    lock(&self.0.cold).outbox.release();
                }
            }
        }
        let _claim = Claim(self);
        loop {
            let next = lock(&self.cold).outbox.next();
            let Some((event, listeners)) = next else { return };
            for (_, listener) in listeners.iter() {
                listener(&event);
            }
        }
    }

    pub(super) fn subscribe(&self, listener: Arc<dyn Fn(&Transition) + Send + Sync>) -> u64 {
        lock(&self.cold).outbox.add(listener)
    }

    pub(super) fn unsubscribe(&self, id: u64) {
        lock(&self.cold).outbox.remove(id);
    }

    pub(super) fn state(&self) -> State {
        self.control.load().state()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let cold = lock(&self.cold);
        let now = self.clock.now();
        let word = self.control.load();
        let Counts { total, failed, slow } = self.window.counts(word.generation(), now);
        Snapshot {
            state: word.state(),
            generation: word.generation(),
            since: cold.since,
            calls: total,
            failed,
            slow,
            consecutive_failures: self.streak.failures(),
            probes_in_flight: if word.state() == State::HalfOpen {
                word.in_flight()
            } else {
                0
            },
            opens_in_a_row: cold.exponent.map_or(0, |exponent| exponent.saturating_add(1)),
            probe_after: (word.state() == State::Open).then(|| self.time_left(now).unwrap_or_default()),
            totals: self.totals.read(),
        }
    }
}

const fn ticket(generation: u64, started: Nanos, probe: bool) -> Ticket {
    Ticket {
        generation,
        started,
        probe,
    }
}

/// A plain counter that loom need not explore.
pub(super) type Counter = Tally;
