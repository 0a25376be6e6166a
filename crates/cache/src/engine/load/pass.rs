//! A flight on its way through the tiers.

use std::sync::Arc;

use super::{Engine, Job, Landed, Outcome};
use crate::entry::{Body, Entry};
use crate::flight::Flight;
use crate::loader::Source;
use crate::observe::RemoteOp;
use crate::partition::PartitionId;
use crate::remote::Position;
use crate::sync::lock;
use crate::tag::Captured;
use crate::version::{Key, Version};

/// A flight on its way through the tiers.
pub(super) struct Pass {
    pub(super) flight: Arc<Flight<Outcome>>,
    pub(super) partition: PartitionId,
    /// Captured before anything was asked.
    pub(super) tags: Captured,
    #[cfg(test)]
    pub(super) tag_names: Vec<Key>,
    pub(super) ask_source: bool,
    pub(super) remote_down: bool,
    pub(super) source: Source,
    pub(super) lease: Option<u64>,
    /// The version that the second level was seen to have.
    pub(super) seen: Version,
    /// What a source that was behind had.
    pub(super) found: Version,
    /// What was the newest when it was asked for, and was overtaken meanwhile.
    pub(super) overtaken: Option<Landed>,
}

impl Pass {
    /// An entry of what was found for it.
    pub(super) fn entry(&self, version: Version, body: Body) -> Entry {
        Entry::new(version, body, self.partition, self.flight.generation)
    }
}

impl Engine {
    pub(super) async fn passes(&self, jobs: Vec<Job>) -> Vec<Pass> {
        let mut passes = Vec::with_capacity(jobs.len());
        for job in jobs {
            passes.push(self.pass(job).await);
        }
        passes
    }

    pub(super) async fn pass(&self, job: Job) -> Pass {
        let partition = job.flight.partition;
        Pass {
            partition,
            tags: self.capture(&job.tags).await,
            #[cfg(test)]
            tag_names: job.tags,
            ask_source: job.ask_source || job.past_remote,
            // Loaded as if it did not answer.
            remote_down: job.past_remote,
            source: Source::AtLeast(self.partitions.at(partition).mark()),
            lease: None,
            seen: Version::ZERO,
            found: Version::ZERO,
            overtaken: None,
            flight: job.flight,
        }
    }

    /// The present generations of tags; those not known here are asked for. One that nobody can tell is captured as
    /// unknown, which no entry is trusted under (T2).
    pub(in crate::engine) async fn capture(&self, names: &[Key]) -> Captured {
        match self.capture_known(names) {
            Some(captured) => captured,
            // In a box: most loads have no tags, and no room for asking for them in their futures.
            None => Box::pin(self.capture_asked(names)).await,
        }
    }

    async fn capture_asked(&self, names: &[Key]) -> Captured {
        let now = self.now();
        let mut tags = Vec::with_capacity(names.len());
        for name in names {
            let partition = self.partitions.id(name);
            let cell = self.tags.cell(name, partition);
            let mut generation = cell.generation();
            if let Some(remote) = &self.remote
                && (generation == 0 || !self.partitions.at(partition).holds(now))
            {
                let before = lock(&self.coherence).position(partition);
                let asked = self.ask(RemoteOp::Tag, 1, remote.tags(vec![name.clone()])).await;
                let told = asked.into_iter().next().and_then(Result::ok).unwrap_or(0);
                let same_history =
                    lock(&self.coherence).position(partition).map(|at| at.seq) >= before.map(|at| at.seq);
                if told != 0 && same_history {
                    cell.raise(told);
                }
                generation = if told == 0 { 0 } else { told.max(cell.generation()) };
            }
            tags.push((cell, generation));
        }
        Captured::of(tags)
    }

    /// The present generations of tags, if all of them are known here.
    pub(in crate::engine) fn capture_known(&self, names: &[Key]) -> Option<Captured> {
        if names.is_empty() {
            return Some(Captured::default());
        }
        let now = self.now();
        let mut tags = Vec::with_capacity(names.len());
        for name in names {
            let partition = self.partitions.id(name);
            let cell = self.tags.cell(name, partition);
            let generation = cell.generation();
            if generation == 0 || !self.partitions.at(partition).holds(now) {
                return None;
            }
            tags.push((cell, generation));
        }
        Some(Captured::of(tags))
    }

    pub(super) fn is_suspect(&self, pass: &Pass) -> bool {
        self.partitions.at(pass.partition).is_suspect(self.now())
    }

    pub(super) fn followed(&self, pass: &Pass) -> Option<Position> {
        lock(&self.coherence).position(pass.partition)
    }

    /// Whether the second level speaks of the history that was followed. If not, that history is over.
    pub(super) fn agrees(&self, pass: &Pass, before: Option<Position>, told: Option<Position>) -> bool {
        if self.backplane.is_none() {
            return true;
        }
        let mut coherence = lock(&self.coherence);
        let agrees = match told {
            Some(told) => coherence.agrees(pass.partition, before, told),
            None => before.is_none(),
        };
        let mut steps = Vec::new();
        if !agrees {
            coherence.diverged(pass.partition, &mut steps);
        }
        drop(coherence);
        self.take(steps);
        agrees
    }
}
