//! What a breaker consists of. What happens to it is in `admission`, `settlement` and `transition`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Tally;

use super::State;
use super::config::{Config, Window as WindowSpec};
use super::control::Control;
use super::event::Outbox;
use super::snapshot::{Snapshot, Totals};
use super::streak::Streak;
use super::transition::Cold;
use super::window::{Slots, Window};
use crate::clock::Clock;
use crate::name::Name;
use crate::random::Random;
use crate::ring::{Counts, Ring};
use crate::sync::{AtomicU64, Mutex, lock};

#[derive(Debug)]
pub(crate) struct Core {
    pub(super) name: Name,
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) control: Control,
    /// Open: when probing may begin. Recovering: when the ramp began. Published before the word that needs it.
    pub(super) mark: AtomicU64,
    /// Half-open: when the oldest unanswered probe counts as lost.
    pub(super) probe_deadline: AtomicU64,
    pub(super) window: Window,
    pub(super) streak: Streak,
    pub(super) totals: Totals,
    pub(super) cold: Mutex<Cold>,
}

impl Core {
    pub(super) fn new(
        name: Name,
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

/// A plain counter that loom need not explore.
pub(super) type Counter = Tally;
