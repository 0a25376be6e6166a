//! What every answer is held against.

use std::collections::BTreeMap;
use std::time::Duration;

use super::BOUND;
use crate::answer::{Answer, Origin};
use crate::clock::Nanos;
use crate::version::{Key, Version};

/// What the second level has acknowledged, and when.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    keys: BTreeMap<Key, Vec<(Version, Nanos)>>,
    tags: BTreeMap<Key, Vec<Nanos>>,
}

/// What a read asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) began: Nanos,
    pub(super) floor: Version,
    pub(super) stale: Option<Duration>,
    pub(super) tag: Option<Key>,
}

impl Ledger {
    pub(super) fn acknowledge(&mut self, key: &Key, version: Version, at: Nanos) {
        self.keys.entry(key.clone()).or_default().push((version, at));
    }

    pub(super) fn raise(&mut self, tag: &Key, at: Nanos) {
        self.tags.entry(tag.clone()).or_default().push(at);
    }

    /// A failover: what was acknowledged later than its state is not in force until it is acknowledged again.
    pub(super) fn lose(&mut self, since: Nanos) {
        for acknowledged in self.keys.values_mut() {
            acknowledged.retain(|(_, at)| *at <= since);
        }
        for raised in self.tags.values_mut() {
            raised.retain(|at| *at <= since);
        }
    }

    /// The highest version acknowledged up to a point in time.
    pub(super) fn reached(&self, key: &Key, by: Nanos) -> Version {
        let all = self.keys.get(key).into_iter().flatten();
        all.filter(|(_, at)| *at <= by)
            .map(|(version, _)| *version)
            .max()
            .unwrap_or_default()
    }

    /// G4 to G7 for one answer. `made` tells when what was answered was read at the source.
    pub(super) fn check(
        &self,
        asked: &Asked,
        answer: &Answer,
        version: Version,
        made: Option<Nanos>,
    ) -> Result<(), String> {
        let Asked {
            key, floor, began, ..
        } = asked;
        let origin = answer.origin();
        if version < *floor {
            return Err(format!("G4: {key} below its floor {floor}: {answer:?}"));
        }
        if let Some(value) = answer.value() {
            let expected = format!("{key}={version}");
            if !value.starts_with(expected.as_bytes()) {
                return Err(format!(
                    "G7: {key}: not the value of its version: {answer:?} {value:?}"
                ));
            }
        }
        if origin == Origin::Stale {
            return match asked.stale {
                Some(up_to) if answer.age() <= up_to => Ok(()),
                _ => Err(format!("G7: {key}: stale and not asked for: {answer:?}")),
            };
        }
        let since = Nanos::from_nanos(
            began
                .as_nanos()
                .saturating_sub(u64::try_from(BOUND.as_nanos()).unwrap()),
        );
        let must = self.reached(key, since);
        if version < must {
            return Err(format!(
                "G5: {key} should have reached {must}: {answer:?} for {asked:?}"
            ));
        }
        if let (Some(tag), Some(made)) = (&asked.tag, made) {
            let raised = self.tags.get(tag).into_iter().flatten();
            if let Some(at) = raised.filter(|at| **at <= since && **at > made).max() {
                return Err(format!(
                    "G5 tag: {key}: made at {made:?}, tag {tag} raised at {at:?}: {answer:?} for {asked:?}"
                ));
            }
        }
        Ok(())
    }
}
