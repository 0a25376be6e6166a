//! What several rules look up: who wrote what to which context, and when it was acknowledged.

use std::collections::HashMap;
use std::time::Duration;

use crate::chaos::history::{Answer, Done, History, Moment, Name, Operation, Untold, What};

/// A context of a tenant.
pub(super) type Key = (u8, Name);

/// The writes to one context.
#[derive(Debug, Default)]
pub(super) struct Writes<'history> {
    /// To the client.
    acknowledged: Timeline,
    /// By the shared level, as well.
    told: Timeline,
    pub(super) appends: Vec<(&'history Operation, Option<&'history Done>)>,
    /// Truncations and replacements.
    pub(super) shrinks: Vec<(&'history Operation, Option<&'history Done>)>,
    pub(super) deletes: Vec<(&'history Operation, Option<&'history Done>)>,
    /// When it was first known to be there.
    pub(super) created: Option<Moment>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Index<'history> {
    writes: HashMap<Key, Writes<'history>>,
    untold: &'history [Untold],
}

impl<'history> Index<'history> {
    pub(super) fn of(history: &'history History) -> Self {
        let mut writes: HashMap<Key, Writes<'history>> = HashMap::new();
        for operation in history
            .operations
            .iter()
            .filter(|operation| operation.what.is_write())
        {
            let done = match &operation.answer {
                Answer::Done(done) => Some(done),
                Answer::Unknown { .. } => None,
                Answer::Refused { .. } => continue,
            };
            let key = (operation.tenant, operation.context.clone());
            let of = writes.entry(key).or_default();
            match operation.what {
                What::Append { .. } => of.appends.push((operation, done)),
                What::Replace { .. } | What::Truncate => of.shrinks.push((operation, done)),
                What::Delete => of.deletes.push((operation, done)),
                _ => {}
            }
            if let Some(done) = done {
                let version = done.tag.unwrap_or(0);
                of.acknowledged.push(operation.ended, version);
                if let Some(at) = told(operation, &history.untold) {
                    of.told.push(at, version);
                }
                of.created = Some(of.created.map_or(operation.ended, |at| at.min(operation.ended)));
            }
        }
        for of in writes.values_mut() {
            of.acknowledged.finish();
            of.told.finish();
        }
        Self {
            writes,
            untold: &history.untold,
        }
    }

    pub(super) fn contexts(&self) -> impl Iterator<Item = (&Key, &Writes<'history>)> {
        self.writes.iter()
    }

    pub(super) fn told(&self, operation: &Operation) -> Option<Moment> {
        told(operation, self.untold)
    }

    pub(super) fn of_context(&self, tenant: u8, context: &Name) -> Option<&Writes<'history>> {
        self.writes.get(&(tenant, context.clone()))
    }
}

impl Writes<'_> {
    /// The highest version acknowledged to a client up to a moment.
    pub(super) fn acknowledged(&self, by: Moment) -> u64 {
        self.acknowledged.reached(by)
    }

    /// The highest version acknowledged to a client and by the shared level up to a moment (G5).
    pub(super) fn told(&self, by: Moment) -> u64 {
        self.told.reached(by)
    }

    /// Whether a delete may have happened before this moment.
    pub(super) fn may_be_gone(&self, by: Moment) -> bool {
        self.deletes.iter().any(|(operation, _)| operation.began < by)
    }

    /// The first acknowledged delete, with its tombstone's version.
    pub(super) fn gone(&self) -> Option<(&Operation, u64)> {
        let done = self.deletes.iter();
        let done = done.filter_map(|(operation, done)| Some((*operation, done.as_ref()?.tag?)));
        done.min_by_key(|(operation, _)| operation.ended)
    }
}

/// Versions by the moment from which they count.
#[derive(Debug, Default)]
struct Timeline(Vec<(Moment, u64)>);

impl Timeline {
    fn push(&mut self, at: Moment, version: u64) {
        self.0.push((at, version));
    }

    /// Makes each the highest up to its moment.
    fn finish(&mut self) {
        self.0.sort_unstable();
        let mut highest = 0;
        for (_, version) in &mut self.0 {
            highest = highest.max(*version);
            *version = highest;
        }
    }

    fn reached(&self, by: Moment) -> u64 {
        let count = self.0.partition_point(|(at, _)| *at <= by);
        let last = count.checked_sub(1).and_then(|last| self.0.get(last));
        last.map_or(0, |(_, version)| *version)
    }
}

/// When the shared level had acknowledged a write, too; never, if its node died before.
fn told(operation: &Operation, untold: &[Untold]) -> Option<Moment> {
    let meant = untold.iter().filter(|span| {
        span.node == operation.node && span.from <= operation.ended && operation.began <= span.to
    });
    meant
        .map(|span| span.until)
        .try_fold(operation.ended, |at, until| Some(at.max(until?)))
}

/// That much earlier.
pub(super) fn before(moment: Moment, by: Duration) -> Option<Moment> {
    moment.checked_sub(by)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{append, history, name};
    use super::*;

    #[test]
    fn what_was_put_off_counts_from_when_it_was_told() {
        let mut history = history(vec![append(0, 1, 2), append(20, 2, 3)], 2);
        let moment = Duration::from_millis;
        let span = Untold {
            node: 0,
            from: moment(15),
            to: moment(40),
            until: Some(moment(500)),
        };
        history.untold = vec![
            span,
            Untold {
                node: 1,
                until: None,
                ..span
            },
        ];
        let index = Index::of(&history);
        let writes = index.of_context(0, &name("c")).unwrap();
        assert_eq!((writes.told(moment(10)), writes.acknowledged(moment(30))), (2, 3));
        assert_eq!((writes.told(moment(499)), writes.told(moment(500))), (2, 3));
        history.untold = vec![Untold { until: None, ..span }];
        let index = Index::of(&history);
        let writes = index.of_context(0, &name("c")).unwrap();
        assert_eq!(writes.told(Moment::MAX), 2);
    }
}
