//! Looks at each server on its own connection, and draws conclusions: who is the primary, who is how far behind.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use contextkeep_resilience::Random as _;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::link::{Epoch, Fault, Kind, Lsn, Probe};
use super::Replicas;
use super::health::{Lag, State};
use super::member::Seen;

/// Longest pause between two looks at a server that is down: what a recovery costs at most.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(2);
/// However often somebody asks for a look, there is this much time between two.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Positions of the primary that are remembered: about a minute's at the usual interval.
const SAMPLES: usize = 256;

/// What is known of the cluster as a whole.
#[derive(Debug, Default)]
pub(super) struct Roles {
    /// The newest log that a server writes.
    pub(super) epoch: Option<Epoch>,
    /// Where the primary was when, oldest first, in that log.
    samples: VecDeque<(Instant, Lsn)>,
}

impl Roles {
    /// The latest moment of which a replica at this position has everything.
    fn fresh_at(&self, lsn: Lsn) -> Option<Instant> {
        let reached = self.samples.iter().rev().find(|(_, sample)| *sample <= lsn);
        reached.map(|(at, _)| *at)
    }

    /// The same of one that was seen before. What it had it keeps, unless it crashed: then it replays its log anew, from
    /// where it had last written its pages, and shows less meanwhile than it had shown.
    fn fresh_since(&self, before: &Seen, lsn: Lsn) -> Option<Instant> {
        let had = before.probe.and_then(|probe| probe.lsn);
        let reached = self.fresh_at(lsn);
        if had.is_some_and(|had| lsn < had) {
            reached
        } else {
            before.fresh.max(reached)
        }
    }

    fn sample(&mut self, at: Instant, lsn: Lsn) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((at, lsn));
    }
}

/// A task for each server. They end with the router.
pub(super) fn spawn(replicas: &Arc<Replicas>) -> Vec<AbortHandle> {
    (0..replicas.set.endpoints().len())
        .map(|index| tokio::spawn(watch(Arc::downgrade(replicas), index)).abort_handle())
        .collect()
}

async fn watch(replicas: Weak<Replicas>, index: usize) {
    loop {
        let Some(router) = replicas.upgrade() else { return };
        let member = router.member(index).clone();
        let started = Instant::now();
        match member.endpoint.check(router.settings.probe_timeout).await {
            Ok(probe) => router.saw(index, started, probe),
            Err(fault) => router.missed(index, started, &fault),
        }
        let pause = router.pause(member.seen());
        // Not held while it waits, so that the router can end.
        drop(router);
        tokio::time::sleep(PAUSE_MIN.min(pause)).await;
        let rest = pause.saturating_sub(PAUSE_MIN);
        drop(tokio::time::timeout(rest, member.wake.notified()).await);
    }
}

impl Replicas {
    /// Has every server looked at soon.
    pub(super) fn look_now(&self) {
        for place in self.set.endpoints() {
            place.value.wake.notify_one();
        }
    }

    /// The pause before the next look: longer and longer at a server that is down, with jitter.
    fn pause(&self, seen: Seen) -> Duration {
        let usual = self.settings.probe_interval;
        let factor = 1_u32 << seen.health.failures.min(10);
        let pause = match seen.health.state {
            State::Down => usual.saturating_mul(factor).min(PAUSE_MAX.max(usual)),
            _ => usual,
        };
        pause.mul_f64(0.9 + 0.2 * self.random.unit())
    }

    fn missed(&self, index: usize, began: Instant, fault: &Fault) {
        let member = self.member(index);
        let before = member.seen();
        let seen = Seen {
            health: before.health.failed(),
            // It may be about to begin anew.
            fresh: None,
            silent: fault.is_suspect() || fault.kind() == Kind::TimedOut,
            ..before
        };
        member.see(began, seen);
        self.tell(index, before, seen, Some(fault));
        if index == self.primary_index() && before.health.failures == 0 {
            // Perhaps another one is the primary by now.
            self.look_now();
        }
    }

    fn saw(&self, index: usize, at: Instant, probe: Probe) {
        let member = self.member(index);
        let before = member.seen();
        let mut seen = Seen {
            probe: Some(probe),
            silent: false,
            ..before
        };
        let mut roles = self.roles();
        seen.fenced = self.is_fenced(&mut roles, index, &probe);
        let lag = if probe.in_recovery {
            seen.fresh = roles.fresh_since(&before, probe.lsn.unwrap_or_default());
            self.lag(&roles, &mut seen, probe)
        } else {
            if index == self.primary_index()
                && let Some(lsn) = probe.lsn
            {
                roles.sample(at, lsn);
            }
            (seen.lag_bytes, seen.fresh) = (None, None);
            Lag::default()
        };
        drop(roles);
        seen.health = before.health.seen(lag);
        member.see(at, seen);
        if !seen.fenced {
            member.gate.seen_to_work();
        }
        self.tell(index, before, seen, None);
    }

    /// How far a standby is behind.
    fn lag(&self, roles: &Roles, seen: &mut Seen, probe: Probe) -> Lag {
        let newest = roles.samples.back().map(|(_, lsn)| *lsn);
        let lsn = probe.lsn.unwrap_or_default();
        seen.lag_bytes = newest.map(|newest| newest.bytes_since(lsn));
        let (bytes_max, time_max) = (self.settings.lag_bytes_max.as_u64(), self.settings.lag_time_max);
        // One that was never seen to be up to date is as late as can be, once there is something to compare with.
        let late = seen.fresh.map_or(Duration::MAX, |fresh| fresh.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a share of a limit")]
        let bytes = seen.lag_bytes.unwrap_or_default() as f64 / bytes_max.max(1) as f64;
        Lag {
            bytes,
            time: late.as_secs_f64() / time_max.as_secs_f64().max(0.001),
        }
    }

    /// Whether this server must not be used; moves the writes if it is the new primary.
    fn is_fenced(&self, roles: &mut Roles, index: usize, probe: &Probe) -> bool {
        let Some(known) = roles.epoch else {
            // The first one that is seen to write says which cluster this is.
            if !probe.in_recovery {
                self.crown(roles, index, probe.epoch);
            }
            return false;
        };
        if probe.epoch.system_identifier != known.system_identifier {
            return true;
        }
        if probe.in_recovery {
            return false;
        }
        if probe.epoch.timeline > known.timeline {
            self.crown(roles, index, probe.epoch);
        }
        probe.epoch.timeline < known.timeline
    }

    fn crown(&self, roles: &mut Roles, index: usize, epoch: Epoch) {
        roles.epoch = Some(epoch);
        roles.samples.clear();
        let before = self.primary.swap(index, Ordering::AcqRel);
        if before != index {
            self.counts.promotions.fetch_add(1, Ordering::Relaxed);
            let (from, to) = (self.member(before), self.member(index));
            tracing::warn!(from = %from.endpoint.name(), to = %to.endpoint.name(), %epoch, "the Postgres primary is another server now");
            // What is open there leads to a server that is dead or outdated.
            from.endpoint.suspect();
            to.endpoint.suspect();
        }
    }

    /// Logs what has changed.
    fn tell(&self, index: usize, before: Seen, now: Seen, fault: Option<&Fault>) {
        let place = &self.set.endpoints()[index];
        let endpoint = place.value.endpoint.name();
        if before.health.state != now.health.state {
            let (from, to) = (before.health.state.as_str(), now.health.state.as_str());
            let lag_bytes = now.lag_bytes;
            let what = "a Postgres server changed its state";
            match (now.health.state, fault) {
                (_, Some(error)) => tracing::warn!(%endpoint, from, to, %error, "{what}"),
                (State::Lagging, _) => tracing::warn!(%endpoint, from, to, lag_bytes, "{what}"),
                _ => tracing::info!(%endpoint, from, to, lag_bytes, "{what}"),
            }
            if now.health.state == State::Healthy && before.health.state == State::Suspect {
                // Seen to work: no need to wait until the breaker's time is over.
                place.breaker().reset();
                place.value.gate.reset();
            }
        }
        if !before.fenced && now.fenced {
            let epoch = now.probe.map(|probe| probe.epoch.to_string());
            tracing::error!(%endpoint, epoch, "a Postgres server is of another cluster or an outdated primary: it is not used");
        }
        let role = |seen: Seen| seen.probe.map(|probe| probe.in_recovery);
        if let (Some(was), Some(is)) = (role(before), role(now))
            && was != is
        {
            let role = if is { "standby" } else { "primary" };
            tracing::warn!(%endpoint, role, "a Postgres server changed its role");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn freshness_is_that_of_the_last_sample_it_has_reached() {
        let mut roles = Roles::default();
        assert_eq!(roles.fresh_at(Lsn(5)), None);
        let start = Instant::now();
        for (seconds, lsn) in [(0, 10), (1, 20), (2, 20), (3, 30)] {
            roles.sample(start + Duration::from_secs(seconds), Lsn(lsn));
        }
        for (lsn, seconds) in [
            (9, None),
            (10, Some(0)),
            (19, Some(0)),
            (20, Some(2)),
            (99, Some(3)),
        ] {
            let expected = seconds.map(|seconds| start + Duration::from_secs(seconds));
            assert_eq!(roles.fresh_at(Lsn(lsn)), expected, "{lsn}");
        }
        let seen = |lsn, fresh| Seen {
            probe: Some(Probe {
                in_recovery: true,
                lsn: Some(Lsn(lsn)),
                epoch: Epoch {
                    system_identifier: 7,
                    timeline: 1,
                },
                replay_age: None,
                has_synchronous_standbys: false,
                took: Duration::ZERO,
            }),
            fresh,
            ..Seen::default()
        };
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        assert_eq!(
            roles.fresh_since(&seen(20, at(9)), Lsn(20)),
            at(9),
            "it keeps what it had"
        );
        assert_eq!(roles.fresh_since(&seen(20, at(2)), Lsn(30)), at(3));
        assert_eq!(
            roles.fresh_since(&seen(30, at(9)), Lsn(10)),
            at(0),
            "it began anew"
        );
        assert_eq!(roles.fresh_since(&seen(30, at(9)), Lsn(5)), None);
        (0..1000).for_each(|n| roles.sample(start, Lsn(n)));
        assert_eq!(roles.samples.len(), SAMPLES);
    }
}
