//! One server and how it was last seen.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::gate::{Entered, Gate};
use super::super::link::{Endpoint, Fault, Kind, Probe};
use super::health::{Health, State};

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    /// In front of what only the primary does, while this is the primary.
    pub(super) gate: Gate,
    /// Has it looked at before its time.
    pub(super) wake: Notify,
    seen: RwLock<Seen>,
    /// Whether it is down and answers no look.
    silence: watch::Sender<bool>,
}

/// How a server was last seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) health: Health,
    /// The last look that succeeded.
    pub(super) probe: Option<Probe>,
    /// Bytes behind the primary.
    pub(super) lag_bytes: Option<u64>,
    /// It has everything that was acknowledged before this.
    pub(super) fresh: Option<Instant>,
    /// When it was last doubted.
    pub(super) doubted: Option<Instant>,
    /// It is of another cluster, or writes an outdated timeline: not to be used for anything.
    pub(super) fenced: bool,
    /// The last look got no answer at all, or one that the server takes nobody at the moment. One that has no
    /// connection left for a look is not silent: it may work for those who have one.
    pub(super) silent: bool,
}

impl Seen {
    /// What is to be held of a look that began then. One that began before a doubt does not settle it: the server may have
    /// crashed since, and have less.
    fn beside(self, doubted: Option<Instant>, began: Instant) -> Self {
        let is_settled = doubted.is_none_or(|doubted| began > doubted);
        Self {
            fresh: self.fresh.filter(|_| is_settled),
            doubted,
            ..self
        }
    }
}

impl Member {
    pub(super) fn new(endpoint: Arc<Endpoint>, gate: Gate) -> Self {
        Self {
            endpoint,
            gate,
            wake: Notify::new(),
            seen: RwLock::default(),
            silence: watch::Sender::new(false),
        }
    }

    /// The right to one call on it as the primary. Refused at once while it answers nobody: whoever looks at it finds
    /// out when that is over, and no caller has to.
    ///
    /// # Errors
    /// As [`Gate::enter`].
    pub(crate) async fn enter(&self) -> Result<Entered, Fault> {
        if *self.silence.borrow() && self.gate.is_enabled() {
            return Err(self.gate.turned_away(Kind::Open, Some(super::prober::PAUSE_MAX)));
        }
        self.gate.enter().await
    }

    /// Runs a call on it, and gives it up when the server falls silent: what a write did is unknown then.
    ///
    /// # Errors
    /// The call's own, or `TimedOut`.
    pub(crate) async fn while_it_answers<T, E: From<Fault>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        if !self.gate.is_enabled() {
            return call.await;
        }
        let mut silence = self.silence.subscribe();
        tokio::select! {
            biased;
            result = call => result,
            // An error would mean that the sender is gone, which `self` holds.
            Ok(_) = silence.wait_for(|silent| *silent) => Err(Fault::new(
                Kind::TimedOut,
                "the server stopped answering while it worked on this",
            )
            .into()),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it looked at before its time; until then nobody vouches for it. A connection that breaks may be all that is
    /// noticed of a standby that crashed and is back, with less than it had.
    pub(super) fn doubt(&self) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        (seen.fresh, seen.doubted) = (None, Some(Instant::now()));
        drop(seen);
        self.wake.notify_one();
    }

    /// Notes what a look has shown that began then.
    pub(super) fn see(&self, began: Instant, seen: Seen) {
        let mut held = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        *held = seen.beside(held.doubted, began);
        drop(held);
        let silent = seen.silent && seen.health.state == State::Down;
        self.silence
            .send_if_modified(|known| std::mem::replace(known, silent) != silent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_began_before_a_doubt_vouches_for_nothing() {
        let start = Instant::now();
        let at = |seconds| start + std::time::Duration::from_secs(seconds);
        let look = Seen {
            fresh: Some(at(1)),
            ..Seen::default()
        };
        for (doubted, vouched) in [(None, true), (Some(4), true), (Some(5), false), (Some(6), false)] {
            let held = look.beside(doubted.map(at), at(5));
            assert_eq!(held.fresh.is_some(), vouched, "{doubted:?}");
            assert_eq!(held.doubted, doubted.map(at));
        }
    }
}
