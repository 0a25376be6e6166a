//! Which servers may answer a read.

use contextkeep_resilience::replicas::Tried;

use super::health::State;
use super::member::Seen;
use super::{Consistency, Demand, Replicas};

/// How good a server is for a read; only the best that there are of are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// Must not answer.
    No,
    /// For whoever takes anything: it answers, from far behind.
    Stale,
    /// It may be gone, or nothing is known of it yet.
    Doubtful,
    /// It may not have reached the floor yet.
    Behind,
    /// As it should be.
    Good,
}

impl Replicas {
    /// The servers that must not answer this read, out of those that are not among the best for it; `None` if no
    /// replica may.
    pub(super) fn others(&self, demand: &Demand) -> Option<Tried> {
        let primary = self.primary_index();
        let places = self.set.endpoints();
        let fit = |index: usize| match places.get(index) {
            // An open breaker is no choice at all, or a worse one would never get its turn.
            Some(place) if index != primary && place.breaker().peek().is_ok() => {
                fit(demand, &place.value.seen())
            }
            _ => Fit::No,
        };
        let best = (0..places.len()).map(fit).max().filter(|best| *best != Fit::No)?;
        let others = (0..places.len()).filter(|index| fit(*index) != best);
        Some(others.fold(Tried::default(), Tried::and))
    }
}

fn fit(demand: &Demand, seen: &Seen) -> Fit {
    let takes_any = demand.consistency == Consistency::Any;
    let Some(probe) = seen.probe.filter(|_| !seen.fenced) else {
        return if takes_any && !seen.fenced {
            Fit::Stale
        } else {
            Fit::No
        };
    };
    if !probe.in_recovery {
        // A primary that is not ours, or ours under another name.
        return Fit::No;
    }
    if let Some(floor) = demand.floor
        && floor.epoch != probe.epoch
    {
        return Fit::No;
    }
    match (demand.consistency, seen.health.state) {
        (Consistency::Any, State::Lagging) => return Fit::Stale,
        (Consistency::Strong, _) | (_, State::Down | State::Lagging) => return Fit::No,
        (Consistency::Bounded(bound), _) if seen.fresh.is_none_or(|fresh| fresh.elapsed() > bound) => {
            return Fit::No;
        }
        (_, State::Unknown | State::Suspect) => return Fit::Doubtful,
        (_, State::Healthy) => {}
    }
    match demand.floor {
        // The look is a moment old: it may have arrived since, and then the read's own check holds.
        Some(floor) if probe.lsn.is_none_or(|lsn| lsn < floor.lsn) => Fit::Behind,
        _ => Fit::Good,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::super::link::{Epoch, Lsn, Probe};
    use super::super::Floor;
    use super::super::health::Health;
    use super::*;

    const EPOCH: Epoch = Epoch {
        system_identifier: 7,
        timeline: 1,
    };
    const STATES: [State; 5] = [
        State::Unknown,
        State::Healthy,
        State::Lagging,
        State::Suspect,
        State::Down,
    ];

    fn standby(state: State) -> Seen {
        Seen {
            health: Health { state, failures: 0 },
            probe: Some(Probe {
                in_recovery: true,
                lsn: Some(Lsn(100)),
                epoch: EPOCH,
                replay_age: None,
                has_synchronous_standbys: false,
                took: Duration::ZERO,
            }),
            lag_bytes: Some(0),
            doubted: None,
            fresh: None,
            fenced: false,
            silent: false,
        }
    }

    fn asking(consistency: Consistency) -> Demand {
        Demand {
            consistency,
            ..Demand::default()
        }
    }

    #[test]
    fn each_state_fits_what_it_may() {
        let fits = |consistency| STATES.map(|state| fit(&asking(consistency), &standby(state)));
        assert_eq!(fits(Consistency::Strong), [Fit::No; 5]);
        let session = [Fit::Doubtful, Fit::Good, Fit::No, Fit::Doubtful, Fit::No];
        assert_eq!(fits(Consistency::Session), session);
        let any = [Fit::Doubtful, Fit::Good, Fit::Stale, Fit::Doubtful, Fit::No];
        assert_eq!(fits(Consistency::Any), any);
        // Nothing is known of how old it is.
        assert_eq!(fits(Consistency::Bounded(Duration::MAX)), [Fit::No; 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_is_kept_by_what_is_known_to_be_fresh() {
        let demand = asking(Consistency::Bounded(Duration::from_millis(300)));
        let seen = Seen {
            fresh: Some(Instant::now()),
            ..standby(State::Healthy)
        };
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(fit(&demand, &seen), Fit::Good);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(fit(&demand, &seen), Fit::No);
    }

    #[test]
    fn a_floor_prefers_who_has_reached_it_and_needs_the_same_log() {
        let demand = |lsn, timeline| Demand {
            floor: Some(Floor {
                epoch: Epoch { timeline, ..EPOCH },
                lsn: Lsn(lsn),
            }),
            ..asking(Consistency::Session)
        };
        let seen = standby(State::Healthy);
        assert_eq!(fit(&demand(100, 1), &seen), Fit::Good);
        assert_eq!(fit(&demand(101, 1), &seen), Fit::Behind);
        assert_eq!(fit(&demand(1, 2), &seen), Fit::No);
    }

    #[test]
    fn neither_a_primary_nor_a_fenced_server_answers_as_a_replica() {
        for consistency in [Consistency::Session, Consistency::Any] {
            let mut writes = standby(State::Healthy);
            writes.probe = writes.probe.map(|probe| Probe {
                in_recovery: false,
                ..probe
            });
            assert_eq!(fit(&asking(consistency), &writes), Fit::No);
            let fenced = Seen {
                fenced: true,
                ..standby(State::Healthy)
            };
            assert_eq!(fit(&asking(consistency), &fenced), Fit::No);
            let fenced = Seen {
                fenced: true,
                ..Seen::default()
            };
            assert_eq!(fit(&asking(consistency), &fenced), Fit::No);
        }
    }
}
