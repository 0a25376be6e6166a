//! What happens in the cache, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use contextkeep_cache::Origin;
use contextkeep_cache::observe::{Event, Observer};

/// Where reads of heads were answered from.
const ORIGINS: [&str; 5] = ["l1", "l2", "replica", "primary", "stale"];

/// What happens now and then.
const EVENTS: [&str; 15] = [
    "loaded",
    "load_failed",
    "refreshing",
    "overloaded",
    "remote_failed",
    "fill_refused",
    "lease_held",
    "source_behind",
    "gap",
    "diverged",
    "deferred",
    "recovered",
    "recovery_full",
    "warmed",
    "oversize",
];

/// The counts of this process.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    origins: [AtomicU64; ORIGINS.len()],
    events: [AtomicU64; EVENTS.len()],
}

impl Counts {
    pub(crate) fn origins(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named(&ORIGINS, &self.origins)
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named(&EVENTS, &self.events)
    }
}

fn named<'count>(
    names: &'static [&'static str],
    counts: &'count [AtomicU64],
) -> impl Iterator<Item = (&'static str, u64)> + 'count {
    names
        .iter()
        .zip(counts)
        .map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
}

fn add(names: &[&str], counts: &[AtomicU64], name: &str, many: u64) {
    if let Some(at) = names.iter().position(|known| *known == name)
        && let Some(count) = counts.get(at)
    {
        count.fetch_add(many, Ordering::Relaxed);
    }
}

impl Observer for Counts {
    fn answered(&self, origin: Origin) {
        add(&ORIGINS, &self.origins, origin.as_str(), 1);
    }

    fn event(&self, event: &Event) {
        let many = |number: usize| number as u64;
        let (name, count) = match event {
            Event::Loaded(_) => ("loaded", 1),
            Event::LoadFailed(_) => ("load_failed", 1),
            Event::Refreshing => ("refreshing", 1),
            Event::Overloaded => ("overloaded", 1),
            Event::RemoteFailed(_) => ("remote_failed", 1),
            Event::FillRefused => ("fill_refused", 1),
            Event::LeaseHeld => ("lease_held", 1),
            Event::SourceBehind => ("source_behind", 1),
            Event::Gap => ("gap", 1),
            Event::Diverged => ("diverged", 1),
            Event::Deferred => ("deferred", 1),
            Event::Recovered(changes) => ("recovered", many(*changes)),
            Event::RecoveryFull => ("recovery_full", 1),
            Event::Warmed { .. } => ("warmed", 1),
            Event::Oversize(_) => ("oversize", 1),
            _ => return,
        };
        add(&EVENTS, &self.events, name, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_counted_under_its_name() {
        let counts = Counts::default();
        counts.answered(Origin::L2);
        counts.event(&Event::Recovered(3));
        counts.event(&Event::Gap);
        let nonzero = |counts: Vec<(&'static str, u64)>| {
            counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect::<Vec<_>>()
        };
        assert_eq!(nonzero(counts.origins().collect()), [("l2", 1)]);
        assert_eq!(nonzero(counts.events().collect()), [("gap", 1), ("recovered", 3)]);
    }
}
