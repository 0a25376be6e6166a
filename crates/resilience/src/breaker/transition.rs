//! From one generation to the next, and who hears of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::State;
use super::control::Word;
use super::event::{Cause, Outbox, Transition};
use super::machine::Core;
use crate::clock::Nanos;
use crate::sync::{Ordering, lock};

/// What only transitions touch.
#[derive(Debug)]
pub(super) struct Cold {
    /// When the present generation began.
    pub(super) since: Nanos,
    /// Which try the last opening was; `None` before the first and after a reset.
    pub(super) exponent: Option<u32>,
    pub(super) outbox: Outbox,
}
impl Core {
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
        let breaker = self.name.clone();
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

    /// A listener that panics is cut short there. Its panic must not reach the call that it hears of: that one
    /// may itself be unwinding, and two panics end the process.
    fn deliver(&self) {
        loop {
            let next = lock(&self.cold).outbox.next();
            let Some((event, listeners)) = next else { return };
            for (_, listener) in listeners.iter() {
                let heard = catch_unwind(AssertUnwindSafe(|| listener(&event)));
                drop(heard);
            }
        }
    }

    pub(super) fn subscribe(&self, listener: Arc<dyn Fn(&Transition) + Send + Sync>) -> u64 {
        lock(&self.cold).outbox.add(listener)
    }

    pub(super) fn unsubscribe(&self, id: u64) {
        let removed = lock(&self.cold).outbox.remove(id);
        // Outside the lock: what a listener owns may be a permit of this breaker.
        drop(removed);
    }
}
