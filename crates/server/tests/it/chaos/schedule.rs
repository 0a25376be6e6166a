//! What breaks when. A schedule is drawn from a seed before the run begins; the same seed and the same name draw the
//! same one. Faults follow one another, each with its end, and all are over well before the run is.

use std::fmt;
use std::time::Duration;

use contextkeep_resilience::{Random as _, SplitMix};

/// One thing that breaks. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fault {
    /// SIGKILL; the end starts it again.
    ServerKill(usize),
    /// SIGSTOP to SIGCONT.
    ServerFreeze(usize),
    /// A node of the cluster is killed, and started again empty.
    RedisKill(usize),
    /// SIGSTOP to SIGCONT: as if it were cut off.
    RedisFreeze(usize),
    /// All of them: no shared level at all.
    RedisFreezeAll,
    /// `FLUSHALL` on every node.
    RedisFlush,
    /// `pg_wal_replay_pause` to `pg_wal_replay_resume`.
    ReplicaPause(usize),
    /// SIGKILL; the end starts it again.
    ReplicaKill(usize),
    /// SIGSTOP to SIGCONT.
    ReplicaFreeze(usize),
    /// Immediate stop; the end starts it again, which replays its log.
    PrimaryCrash,
    /// SIGSTOP to SIGCONT.
    PrimaryFreeze,
    /// SIGKILL, and the replica that has most is promoted at once; the end makes the old one a replica.
    PrimaryLoss,
    /// All connections of all servers to the member are reset; new ones as well until the end. 0 is the primary.
    Resets(usize),
    /// Flushes, reads and writes of the primary's disk take longer, see [`SLOW`](super::faults::SLOW).
    SlowDisk,
}

impl Fault {
    /// Its kind, for counting.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::ServerKill(_) => "server killed (SIGKILL), restarted",
            Self::ServerFreeze(_) => "server frozen (SIGSTOP)",
            Self::RedisKill(_) => "Redis node killed, restarted empty",
            Self::RedisFreeze(_) => "Redis node frozen",
            Self::RedisFreezeAll => "all Redis nodes frozen",
            Self::RedisFlush => "FLUSHALL on all Redis nodes",
            Self::ReplicaPause(_) => "replay paused on a replica",
            Self::ReplicaKill(_) => "replica killed, restarted",
            Self::ReplicaFreeze(_) => "replica frozen",
            Self::PrimaryCrash => "primary crashed (immediate stop), restarted",
            Self::PrimaryFreeze => "primary frozen",
            Self::PrimaryLoss => "primary lost, replica promoted",
            Self::Resets(_) => "database connections reset",
            Self::SlowDisk => "slow disk (100 ms a flush, 5 ms a read or write)",
        }
    }

    fn lasts(self, random: &SplitMix) -> Duration {
        let (least, most) = match self {
            Self::RedisFlush => (0, 0),
            Self::Resets(_) => (50, 400),
            Self::ServerFreeze(_) | Self::RedisFreeze(_) | Self::RedisFreezeAll => (500, 2500),
            Self::PrimaryFreeze | Self::PrimaryCrash => (300, 2000),
            Self::PrimaryLoss => (1500, 2500),
            _ => (800, 3000),
        };
        Duration::from_millis(least + random.bits() % (most - least + 1))
    }
}

/// A fault and its time, from the run's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{at:7.2} s for {lasts:.2} s  {:?}", self.fault)
    }
}

/// Before the first fault, so that there is something to lose.
const QUIET: Duration = Duration::from_secs(2);
/// Between two faults, least and spread.
const PAUSE_MS: (u64, u64) = (300, 1500);

/// The names of schedules.
pub(super) const NAMES: [&str; 6] = ["mixed", "servers", "redis", "replicas", "primary", "none"];

fn choices(name: &str) -> Vec<Fault> {
    let servers = vec![Fault::ServerKill(0), Fault::ServerFreeze(0)];
    let redis = vec![
        Fault::RedisKill(0),
        Fault::RedisFreeze(0),
        Fault::RedisFreezeAll,
        Fault::RedisFlush,
    ];
    let replicas = vec![
        Fault::ReplicaPause(0),
        Fault::ReplicaKill(0),
        Fault::ReplicaFreeze(0),
        Fault::Resets(1),
    ];
    let primary = vec![
        Fault::PrimaryCrash,
        Fault::PrimaryFreeze,
        Fault::PrimaryLoss,
        Fault::Resets(0),
        Fault::SlowDisk,
    ];
    match name {
        "servers" => servers,
        "redis" => redis,
        "replicas" => replicas,
        "primary" => primary,
        "none" => Vec::new(),
        "mixed" => [servers, redis, replicas, primary].concat(),
        other => panic!("{other:?} is no schedule; there are {NAMES:?}"),
    }
}

/// The schedule of a name and a seed. Its last fault ends before `total` does.
pub(super) fn draw(name: &str, seed: u64, total: Duration) -> Vec<Event> {
    let random = SplitMix::seeded(seed);
    let choices = choices(name);
    let mut events = Vec::new();
    let mut at = QUIET;
    // Each kind comes once before any comes twice.
    let mut left: Vec<Fault> = Vec::new();
    while !choices.is_empty() {
        if left.is_empty() {
            left.clone_from(&choices);
        }
        let place = usize::try_from(random.bits()).unwrap_or_default() % left.len();
        let fault = aimed(left.swap_remove(place), &random);
        let lasts = fault.lasts(&random);
        if at + lasts + QUIET > total {
            break;
        }
        events.push(Event { at, lasts, fault });
        at += lasts + Duration::from_millis(PAUSE_MS.0 + random.bits() % PAUSE_MS.1);
    }
    events
}

/// At one of the three nodes or two replicas.
fn aimed(fault: Fault, random: &SplitMix) -> Fault {
    let of = |count: u64| usize::try_from(random.bits() % count).unwrap_or_default();
    match fault {
        Fault::ServerKill(_) => Fault::ServerKill(of(3)),
        Fault::ServerFreeze(_) => Fault::ServerFreeze(of(3)),
        Fault::RedisKill(_) => Fault::RedisKill(of(3)),
        Fault::RedisFreeze(_) => Fault::RedisFreeze(of(3)),
        Fault::ReplicaPause(_) => Fault::ReplicaPause(of(2)),
        Fault::ReplicaKill(_) => Fault::ReplicaKill(of(2)),
        Fault::ReplicaFreeze(_) => Fault::ReplicaFreeze(of(2)),
        Fault::Resets(0) => Fault::Resets(0),
        Fault::Resets(_) => Fault::Resets(1 + of(2)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_seed_draws_the_same_schedule_and_another_seed_another() {
        assert_eq!(draw("mixed", 7, MINUTE), draw("mixed", 7, MINUTE));
        assert_ne!(draw("mixed", 7, MINUTE), draw("mixed", 8, MINUTE));
    }

    #[test]
    fn faults_do_not_overlap_and_are_over_before_the_end() {
        for seed in 0..50 {
            let events = draw("mixed", seed, MINUTE);
            assert!(events.len() > 8, "{events:?}");
            assert!(
                events
                    .windows(2)
                    .all(|pair| pair[0].at + pair[0].lasts < pair[1].at)
            );
            assert!(
                events
                    .iter()
                    .all(|event| event.at + event.lasts + QUIET <= MINUTE)
            );
        }
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        for name in NAMES {
            let kinds = choices(name).len();
            let events = draw(name, 3, MINUTE * 5);
            let first: BTreeSet<_> = events
                .iter()
                .take(kinds)
                .map(|event| event.fault.kind())
                .collect();
            let all: BTreeSet<_> = choices(name).iter().map(|fault| fault.kind()).collect();
            assert_eq!(first, all, "{name}");
        }
    }
}
