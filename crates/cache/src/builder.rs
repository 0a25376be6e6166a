//! Describing a cache. Everything that is wrong with the description is reported together.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::clock::{Clock, TokioClock};
use crate::engine::{Engine, Parts};
use crate::error::{BuildError, Problem};
use crate::memory::{Decoded, Limits, Memory};
use crate::observe::Observer;
use crate::policy::Policy;
use crate::random::Random;
use crate::remote::{Backplane, SecondLevel};

/// A cache to be built.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    name: String,
    limits: Option<Limits>,
    policy: Policy,
    bound: Duration,
    partitions: u16,
    clock: Arc<dyn Clock>,
    remote: Option<Arc<dyn SecondLevel>>,
    backplane: Option<Arc<dyn Backplane>>,
    observer: Option<Arc<dyn Observer>>,
    seed: Option<u64>,
    max_deferred: usize,
    #[cfg(test)]
    pub(crate) mutant: Option<crate::engine::Mutant>,
}

impl Builder {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            limits: Some(Limits {
                entries: 10_000,
                bytes: 256 << 20,
                item: 1 << 20,
                decoded: None,
            }),
            policy: Policy::default(),
            bound: Duration::from_millis(300),
            partitions: 256,
            clock: Arc::new(TokioClock),
            remote: None,
            backplane: None,
            observer: None,
            seed: None,
            max_deferred: 10_000,
            #[cfg(test)]
            mutant: None,
        }
    }

    fn limits(&mut self) -> &mut Limits {
        self.limits.get_or_insert(Limits {
            entries: 0,
            bytes: 0,
            item: 0,
            decoded: None,
        })
    }

    /// Most entries of the first level; 10,000 unless told.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.limits().entries = entries;
        self
    }

    /// Most bytes of the first level, accounted by the README's formula; 256 MiB unless told.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.limits().bytes = bytes;
        self
    }

    /// Larger values are not kept in the first level; 1 MiB unless told.
    pub fn max_item(mut self, bytes: u64) -> Self {
        self.limits().item = bytes;
        self
    }

    /// For a cache that is read through a [`Typed`](crate::Typed): bytes that a decoded value takes beside those which it is
    /// decoded of, and how many copies of those are in it. Each value then counts with both, so that
    /// [`max_bytes`](Self::max_bytes) bounds what is decoded as well. That counts nothing unless told.
    pub fn decoded_size(mut self, bytes: u64, copies: u64) -> Self {
        if let Some(limits) = &mut self.limits {
            limits.decoded = Some(Decoded { bytes, copies });
        }
        self
    }

    /// No first level.
    pub fn without_memory(mut self) -> Self {
        self.limits = None;
        self
    }

    /// How long things are kept and waited for.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// G5: how far an answer without a floor may lag; 300 ms unless told.
    pub const fn bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// How many partitions keys are spread over; all nodes and the second level have to agree. 256 unless told.
    pub const fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self
    }

    /// The level that processes share. It needs a [`backplane`](Self::backplane) as well.
    pub fn second_level(mut self, level: Arc<dyn SecondLevel>) -> Self {
        self.remote = Some(level);
        self
    }

    /// What tells of the others' changes.
    pub fn backplane(mut self, backplane: Arc<dyn Backplane>) -> Self {
        self.backplane = Some(backplane);
        self
    }

    /// Another clock than [`TokioClock`].
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears what happens.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Makes jitter reproducible.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Most changes that wait for a second level that is down; 10,000 unless told.
    pub const fn max_deferred(mut self, changes: usize) -> Self {
        self.max_deferred = changes;
        self
    }

    /// Builds it and starts its background tasks on the present tokio runtime.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the description, or that no runtime is running.
    pub fn build(self) -> Result<Cache, BuildError> {
        let mut problems = self.problems();
        if tokio::runtime::Handle::try_current().is_err() {
            add(
                &mut problems,
                "the cache",
                "has to be built within a tokio runtime",
            );
        }
        if !problems.is_empty() {
            return Err(BuildError(problems));
        }
        let random = self.seed.map_or_else(Random::from_entropy, Random::seeded);
        let (engine, replays) = Engine::new(Parts {
            name: self.name,
            policy: self.policy,
            bound: self.bound,
            clock: self.clock,
            memory: self.limits.and_then(Memory::new),
            partitions: self.partitions,
            remote: self.remote,
            backplane: self.backplane,
            observer: self.observer,
            random,
            max_deferred: self.max_deferred,
            #[cfg(test)]
            mutant: self.mutant,
        });
        Ok(Cache::start(Arc::new(engine), replays))
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(limits) = &self.limits {
            check_limits(limits, &mut problems);
        }
        check_policy(&self.policy, &mut problems);
        if self.partitions == 0 {
            add(&mut problems, "partitions", "must not be zero");
        }
        if self.bound < Duration::from_millis(20) {
            let why = "is under 20 ms, which leaves no room for polls";
            add(&mut problems, "bound", why);
        }
        if self.remote.is_some() && self.backplane.is_none() {
            let why = "needs a backplane, or this process would not hear of changes";
            add(&mut problems, "second_level", why);
        }
        problems
    }
}

fn add(problems: &mut Vec<Problem>, what: &'static str, why: &str) {
    problems.push(Problem {
        what,
        why: why.to_owned(),
    });
}

fn check_limits(limits: &Limits, problems: &mut Vec<Problem>) {
    if limits.entries == 0 {
        add(problems, "max_entries", "must not be zero");
    }
    if limits.bytes == 0 {
        add(problems, "max_bytes", "must not be zero");
    }
    if limits.item > limits.bytes / 2 {
        add(
            problems,
            "max_item",
            "is over half of max_bytes: such a value would evict everything else",
        );
    }
}

fn check_policy(policy: &Policy, problems: &mut Vec<Problem>) {
    let durations = [
        ("policy.ttl", policy.ttl),
        ("policy.negative_ttl", policy.negative_ttl),
        ("policy.marker_ttl", policy.marker_ttl),
        ("policy.hard_timeout", policy.hard_timeout),
        ("policy.load_timeout", policy.load_timeout),
        ("policy.remote_timeout", policy.remote_timeout),
    ];
    for (what, _) in durations.into_iter().filter(|(_, duration)| duration.is_zero()) {
        add(problems, what, "must not be zero");
    }
    if !(0.0..=0.5).contains(&policy.jitter) {
        add(problems, "policy.jitter", "is not between 0 and 0.5");
    }
    if !(policy.refresh_after > 0.0 && policy.refresh_after <= 1.0) {
        add(problems, "policy.refresh_after", "is not over 0 and up to 1");
    }
    if !(0.0..=100.0).contains(&policy.early) {
        add(problems, "policy.early", "is not between 0 and 100");
    }
    if policy.max_loads == 0 {
        add(problems, "policy.max_loads", "must not be zero");
    }
    if policy.marker_ttl < policy.load_timeout {
        add(
            problems,
            "policy.marker_ttl",
            "is under policy.load_timeout: a change could be forgotten before a load that began before it ends",
        );
    }
    if policy
        .adaptive
        .is_some_and(|adaptive| adaptive.min > adaptive.max || adaptive.min.is_zero())
    {
        add(
            problems,
            "policy.adaptive",
            "needs a min over zero and not over its max",
        );
    }
}
