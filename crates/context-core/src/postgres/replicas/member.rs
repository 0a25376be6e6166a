//! One server and how it was last seen.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::gate::{Entered, Gate};
use super::super::link::{Endpoint, Fault, Kind, Probe};
use super::health::{Health, State};
use super::prober::PAUSE_MAX;

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
        if self.is_shunned() {
            return Err(self.gate.turned_away(Kind::Open, Some(PAUSE_MAX)));
        }
        self.gate.enter().await
    }

    /// Runs what tells whether it is ready to be called as the primary: refused while calls are, so that nobody is sent
    /// here who would be. Takes no place from calls and counts for nothing, because the little it asks is answered also
    /// by a server whose writes hang. Whoever asks while it is shunned has it looked at before its time.
    ///
    /// # Errors
    /// `Open`, or the call's own, or `Silent`.
    pub(crate) async fn ask<T>(
        &self,
        call: impl AsyncFnOnce(&Arc<Endpoint>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let admitted = if self.is_shunned() {
            Err(self.gate.refusal(Kind::Open, Some(PAUSE_MAX)))
        } else {
            self.gate.would_admit()
        };
        admitted.inspect_err(|_| self.wake.notify_one())?;
        self.while_it_answers(call(&self.endpoint)).await
    }

    /// Whether it answers nobody, and calls are spared that.
    fn is_shunned(&self) -> bool {
        *self.silence.borrow() && self.gate.is_enabled()
    }

    /// Runs a call on it, and gives it up when the server falls silent: what a write did is unknown then.
    ///
    /// # Errors
    /// The call's own, or `Silent`.
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
                Kind::Silent,
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
    use std::time::Duration;

    use contextkeep_resilience::BreakerSettings;

    use super::super::super::link::{Address, LinkSettings, NoWatch};
    use super::*;
    use crate::settings::DatabaseSettings;

    /// One that nobody has looked at, and that nobody answers for.
    fn member() -> Member {
        let settings = DatabaseSettings::default();
        let dsn = "postgresql://localhost:1/none".to_owned().into();
        let address = Address::parse("dsn", &dsn, None, settings.connect_timeout).unwrap();
        let link = LinkSettings::from(&settings);
        let endpoint = Endpoint::new("primary", address, link, Arc::new(NoWatch)).unwrap();
        let gate = Gate::of_server(
            endpoint.name(),
            &BreakerSettings::default(),
            settings.pool_timeout,
        )
        .unwrap();
        Member::new(endpoint, gate)
    }

    /// Down, and answering nobody.
    fn silent() -> Seen {
        Seen {
            health: Health::default().failed().failed().failed(),
            silent: true,
            ..Seen::default()
        }
    }

    // A connection that is made for the check may be answered before the server is looked at again.
    #[tokio::test(start_paused = true)]
    async fn it_is_ready_only_while_calls_are_let_in() {
        let member = member();
        let ready = async || member.ask(async |_| Ok(())).await;
        ready().await.unwrap();
        member.see(Instant::now(), silent());
        for refused in [ready().await.unwrap_err(), member.enter().await.unwrap_err()] {
            assert_eq!(refused.kind(), Kind::Open);
        }
        let soon = Duration::from_millis(1);
        tokio::time::timeout(soon, member.wake.notified())
            .await
            .expect("it is looked at before its time");
        member.see(Instant::now(), Seen::default());
        ready().await.unwrap();
        for _ in 0..5 {
            let failed = Err::<(), _>(Fault::new(Kind::Lost, "on purpose"));
            member.enter().await.unwrap().end(&failed);
        }
        for refused in [ready().await.unwrap_err(), member.enter().await.unwrap_err()] {
            assert_eq!(refused.kind(), Kind::Open);
        }
        assert_eq!(
            member.gate.status().refused,
            2,
            "who only asks is not turned away"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_told_when_it_falls_silent_meanwhile() {
        let member = member();
        let never = member.ask(async |_| std::future::pending::<Result<(), Fault>>().await);
        let (told, ()) = tokio::join!(never, async { member.see(Instant::now(), silent()) });
        assert_eq!(told.unwrap_err().kind(), Kind::Silent);
    }

    #[test]
    fn a_look_that_began_before_a_doubt_vouches_for_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
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
