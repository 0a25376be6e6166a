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
    /// It is of another cluster, or writes an outdated timeline: not to be used for anything.
    pub(super) fenced: bool,
    /// The last look got no answer at all, or one that the server takes nobody at the moment. One that has no
    /// connection left for a look is not silent: it may work for those who have one.
    pub(super) silent: bool,
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
        self.seen.write().unwrap_or_else(PoisonError::into_inner).fresh = None;
        self.wake.notify_one();
    }

    pub(super) fn see(&self, seen: Seen) {
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = seen;
        let silent = seen.silent && seen.health.state == State::Down;
        self.silence
            .send_if_modified(|known| std::mem::replace(known, silent) != silent);
    }
}
