//! Loading: second level, lease, source, fill.

mod begin;
mod pass;

use std::sync::Arc;
use std::time::Duration;

use self::pass::Pass;
use super::{Engine, Landed, Outcome};
use crate::answer::Origin;
use crate::clock::Nanos;
use crate::entry::{Body, Entry};
use crate::error::{Error, LoadError, RemoteError};
use crate::flight::Flight;
use crate::loader::{Loaded, Loader, Source, Wanted};
use crate::observe::{Event, RemoteOp};
use crate::remote::{Fetched, Fill, Filled, Leased, Position, Record};
use crate::tag::Captured;
use crate::version::{Key, Version};

/// How often a source that is behind is asked again for its newest.
const ATTEMPTS: u32 = 3;
/// The first and the longest pause between two looks for what another node loads.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(32);

/// A flight that is to be flown.
pub(crate) struct Job {
    pub(crate) flight: Arc<Flight<Outcome>>,
    pub(crate) tags: Vec<Key>,
    /// Do not look into the second level first.
    pub(crate) ask_source: bool,
    /// Leave the second level alone.
    pub(crate) past_remote: bool,
}

/// What a look into the second level has come to.
enum Looked {
    /// It landed, or this is left.
    Over(Option<Pass>),
    /// It is there, and its tags have to be looked for.
    Tagged(Box<(Pass, Record)>),
}

impl Engine {
    async fn fly(self: &Arc<Self>, jobs: Vec<Job>, loader: &Arc<dyn Loader>) {
        let passes = self.passes(jobs).await;
        let passes = self.consult(passes).await;
        self.fly_on(passes, loader).await;
    }

    /// What the second level did not have.
    async fn fly_on(&self, passes: Vec<Pass>, loader: &Arc<dyn Loader>) {
        let (granted, mut held) = self.lease(passes).await;
        // What this node is to load comes first: keys that other nodes load must not hold it up, and such a node may wait
        // for one of these in turn.
        self.load(granted, loader).await;
        let end = self.now().after(self.policy.lease_wait);
        while !held.is_empty() {
            let (ready, rest) = self.follow(held, end).await;
            self.load(ready, loader).await;
            held = rest;
        }
    }

    /// Asks the second level; what it answers well lands, the rest comes back.
    async fn consult(&self, passes: Vec<Pass>) -> Vec<Pass> {
        let Some(remote) = &self.remote else { return passes };
        let (ask, mut rest): (Vec<_>, Vec<_>) = passes
            .into_iter()
            .partition(|pass| !pass.ask_source && !self.is_suspect(pass));
        if ask.is_empty() {
            return rest;
        }
        let keys: Vec<Key> = ask.iter().map(|pass| pass.flight.key.clone()).collect();
        let before: Vec<_> = ask.iter().map(|pass| self.followed(pass)).collect();
        let sent = self.now();
        let answers = self.ask(RemoteOp::Get, keys.len(), remote.get(keys)).await;
        for ((pass, before), answer) in ask.into_iter().zip(before).zip(answers) {
            let found = self.fetched(pass, before, sent, answer);
            rest.extend(self.land_found(found, sent).await);
        }
        rest
    }

    /// [`consult`](Self::consult) for a flight that is alone.
    async fn consult_one(&self, pass: Pass) -> Option<Pass> {
        let Some(remote) = &self.remote else {
            return Some(pass);
        };
        let before = self.followed(&pass);
        // A moment ago: what is answered may be called a little older than it is, never younger.
        let sent = pass.flight.began;
        if self.partitions.at(pass.partition).is_suspect(sent) {
            return Some(pass);
        }
        let get = remote.get_one(pass.flight.key.clone());
        let answer = self.ask_one(RemoteOp::Get, get).await;
        let found = self.fetched(pass, before, sent, answer);
        self.land_found(found, sent).await
    }

    /// Lands what the second level had, if it has no tags.
    fn fetched(
        &self,
        mut pass: Pass,
        before: Option<Position>,
        sent: Nanos,
        answer: Result<Fetched, RemoteError>,
    ) -> Looked {
        let fetched = match answer {
            Ok(fetched) => fetched,
            // What it holds can't be read, but it is there: a fill will heal it.
            Err(RemoteError::Corrupt(_) | RemoteError::TooLarge(_)) => return Looked::Over(Some(pass)),
            Err(_) => {
                pass.remote_down = true;
                return Looked::Over(Some(pass));
            }
        };
        if !self.agrees(&pass, before, fetched.position) {
            pass.source = Source::Newest;
            return Looked::Over(Some(pass));
        }
        let Some(record) = fetched.record else {
            return Looked::Over(Some(pass));
        };
        pass.seen = record.version;
        if record.body == Body::Unknown || record.version < pass.flight.need() {
            pass.flight.raise(record.version);
            return Looked::Over(Some(pass));
        }
        if record.tags.is_empty() {
            return Looked::Over(self.land_record(pass, sent, record, Captured::default()));
        }
        Looked::Tagged(Box::new((pass, record)))
    }

    async fn land_found(&self, found: Looked, sent: Nanos) -> Option<Pass> {
        match found {
            Looked::Over(left) => left,
            Looked::Tagged(found) => {
                let (pass, record) = *found;
                let names: Vec<Key> = record.tags.iter().map(|(name, _)| name.clone()).collect();
                // In a box, as what was found is: most reads have no tags, and need no room for them.
                let known = Box::pin(self.capture(&names)).await;
                self.land_record(pass, sent, record, known)
            }
        }
    }

    /// Lands what the second level had, unless a tag of it was raised since.
    fn land_record(&self, mut pass: Pass, sent: Nanos, record: Record, known: Captured) -> Option<Pass> {
        let same = known
            .iter()
            .zip(&record.tags)
            .all(|((_, generation), (_, captured))| generation == captured);
        if !same {
            // Until we hold the lease another node may fill it anew in this very version: look again then.
            pass.seen = Version::ZERO;
            return Some(pass);
        }
        let mut entry = pass.entry(record.version, record.body);
        entry.tags = known;
        entry.known_at = sent;
        entry.age_then = record.age;
        let entry = self.finish(entry, None, &pass.flight.key);
        // One step: who landed is in nobody's way any more.
        let mut locked = self.flights.lock_of(&pass.flight);
        if self.land_locked(&pass, &entry, Origin::L2) {
            self.store_locked(&mut locked, &pass.flight, &entry);
            return None;
        }
        drop(locked);
        pass.source = Source::Newest;
        Some(pass)
    }

    /// Leases keys: those this node is to load, and those another one does.
    async fn lease(&self, passes: Vec<Pass>) -> (Vec<Pass>, Vec<Pass>) {
        let Some(remote) = &self.remote else {
            return (passes, Vec::new());
        };
        let (ask, mut granted): (Vec<_>, Vec<_>) = passes.into_iter().partition(|pass| !pass.remote_down);
        let (mut held, mut again) = (Vec::new(), Vec::new());
        if ask.is_empty() {
            return (granted, held);
        }
        let keys: Vec<Key> = ask.iter().map(|pass| pass.flight.key.clone()).collect();
        let before: Vec<_> = ask.iter().map(|pass| self.followed(pass)).collect();
        let answers = self.ask(RemoteOp::Lease, keys.len(), remote.lease(keys)).await;
        for ((mut pass, before), answer) in ask.into_iter().zip(before).zip(answers) {
            match answer {
                Ok(Leased::Granted(lease)) => {
                    let agrees = self.agrees(&pass, before, Some(lease.position));
                    pass.flight.raise(lease.floor);
                    let partition = self.partitions.at(pass.partition);
                    partition.raise_mark(lease.mark);
                    if pass.source != Source::Newest {
                        pass.source = Source::AtLeast(partition.mark());
                    }
                    if !agrees || self.is_suspect(&pass) {
                        pass.source = Source::Newest;
                    }
                    pass.lease = Some(lease.token);
                    if lease.floor > pass.seen && !pass.ask_source && agrees {
                        // Somebody filled or changed it between our look and our lease.
                        again.push(pass);
                    } else {
                        granted.push(pass);
                    }
                }
                Ok(Leased::Held) => {
                    self.event(&Event::LeaseHeld);
                    held.push(pass);
                }
                Err(_) => {
                    pass.remote_down = true;
                    granted.push(pass);
                }
            }
        }
        if !again.is_empty() {
            granted.extend(self.consult(again).await);
        }
        (granted, held)
    }

    /// Waits for what other nodes load, until some of it is to be loaded here: leased or, when patience ends, not. Gives
    /// that back, and what is still loaded elsewhere.
    async fn follow(&self, mut held: Vec<Pass>, end: Nanos) -> (Vec<Pass>, Vec<Pass>) {
        let mut pause = FIRST_LOOK;
        while !held.is_empty() && self.now() < end {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
            for pass in &mut held {
                pass.ask_source = false;
            }
            let left = self.consult(held).await;
            let granted;
            (granted, held) = self.lease(left).await;
            if !granted.is_empty() {
                return (granted, held);
            }
        }
        for pass in &mut held {
            pass.remote_down = true;
        }
        (held, Vec::new())
    }

    /// Asks the source until every key has a version that will do, then fills and stores.
    async fn load(&self, passes: Vec<Pass>, loader: &Arc<dyn Loader>) {
        let mut left = passes;
        for _ in 0..ATTEMPTS {
            if left.is_empty() {
                return;
            }
            left = self.load_once(left, loader).await;
        }
        for pass in left {
            if let Some(overtaken) = pass.overtaken.clone() {
                // G9: it is an answer, and not to be kept.
                pass.flight.land(Ok(overtaken));
                self.flights.lock_of(&pass.flight).leave(&pass.flight);
                continue;
            }
            let floor = pass.flight.need();
            let found = pass.found;
            self.fail(&[pass], &Error::BelowFloor { floor, found }).await;
        }
    }

    async fn load_once(&self, mut passes: Vec<Pass>, loader: &Arc<dyn Loader>) -> Vec<Pass> {
        #[cfg(test)]
        let late_tags = self.is(super::Mutant::LateTags);
        let wanted: Vec<Wanted> = passes.iter_mut().map(|pass| self.wanted(pass)).collect();
        let began = self.now();
        let loaded = loader.load(wanted.clone()).await;
        let cost = self.now().since(began);
        let loaded = match loaded {
            Ok(loaded) if loaded.len() == passes.len() => loaded,
            Ok(_) => {
                self.fail(&passes, &Error::Abandoned).await;
                return Vec::new();
            }
            Err(error) => {
                self.event(&Event::LoadFailed(cost));
                self.fail(&passes, &Error::Load(LoadError::clone(&error))).await;
                return Vec::new();
            }
        };
        self.event(&Event::Loaded(cost));
        let mut behind = Vec::new();
        let mut landed = Vec::new();
        for ((mut pass, wanted), loaded) in passes.into_iter().zip(wanted).zip(loaded) {
            let known = loaded.version.max(pass.flight.told());
            let loaded = settle_absence(loaded, &wanted);
            #[cfg(test)]
            if late_tags {
                pass.tags = self.capture(&pass.tag_names).await;
            }
            let mut entry = pass.entry(loaded.version, loaded.body);
            entry.tags = pass.tags.clone();
            entry.known_at = began;
            entry.cost = cost;
            let mut entry = self.finish(entry, loaded.ttl, &pass.flight.key);
            if self.remote.is_none()
                && loaded.origin != Origin::Primary
                && let Some(entry) = Arc::get_mut(&mut entry)
            {
                // A replica's word is as old as the horizon, not as the load.
                entry.span.trusted_until = Nanos::ZERO;
            }
            if self.try_land(&pass, &entry, loaded.origin) {
                if entry.body == Body::Absent && known < entry.version {
                    // What a reader asks for is no change: kept at his version, it would hide all below it.
                    let mut kept = pass.entry(known, Body::Absent);
                    (kept.tags, kept.known_at, kept.cost) = (pass.tags.clone(), began, cost);
                    entry = self.finish(kept, loaded.ttl, &pass.flight.key);
                }
                landed.push((pass, entry));
            } else {
                self.event(&Event::SourceBehind);
                if wanted.source == Source::Newest && entry.version >= wanted.floor {
                    pass.overtaken = Some(Landed {
                        entry: Arc::clone(&entry),
                        origin: loaded.origin,
                        overtaken: true,
                    });
                }
                pass.source = Source::Newest;
                pass.found = entry.version;
                behind.push(pass);
            }
        }
        self.fill(landed).await;
        behind
    }

    /// What is asked of the source for a pass.
    fn wanted(&self, pass: &mut Pass) -> Wanted {
        let partition = self.partitions.at(pass.partition);
        let unknown = if self.remote.is_some() {
            pass.remote_down
        } else {
            !partition.holds(self.now())
        };
        if unknown || self.is_suspect(pass) {
            // Nobody could tell how far a replica has to be.
            pass.source = Source::Newest;
        }
        Wanted {
            key: pass.flight.key.clone(),
            floor: pass.flight.need(),
            source: pass.source,
        }
    }

    /// Lands a flight if the version will do. Under the key's lock, so that nobody who joined since a change gets what
    /// was before it.
    fn try_land(&self, pass: &Pass, entry: &Arc<Entry>, origin: Origin) -> bool {
        let _locked = self.flights.lock_of(&pass.flight);
        self.land_locked(pass, entry, origin)
    }

    /// [`try_land`](Self::try_land) for who holds the key's lock.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "a planted fault is asked of it")
    )]
    fn land_locked(&self, pass: &Pass, entry: &Arc<Entry>, origin: Origin) -> bool {
        let below = entry.version < pass.flight.need();
        #[cfg(test)]
        let below = below && !self.is(super::Mutant::MissingFloor);
        if !below {
            pass.flight.land(Ok(Landed {
                entry: Arc::clone(entry),
                origin,
                overtaken: false,
            }));
        }
        !below
    }

    /// Brings what was loaded to the second level, and to the first where that agrees.
    async fn fill(&self, landed: Vec<(Pass, Arc<Entry>)>) {
        let (fill, only_here): (Vec<_>, Vec<_>) = landed
            .into_iter()
            .partition(|(pass, _)| pass.lease.is_some() && self.remote.is_some());
        for (pass, entry) in only_here {
            self.store(&pass.flight, &entry);
        }
        let Some(remote) = &self.remote else { return };
        if fill.is_empty() {
            return;
        }
        let fills: Vec<Fill> = fill
            .iter()
            .filter_map(|(pass, entry)| {
                Some(Fill {
                    key: pass.flight.key.clone(),
                    token: pass.lease?,
                    version: entry.version,
                    body: entry.body.clone(),
                    tags: entry
                        .tags
                        .iter()
                        .map(|(cell, generation)| (cell.name.clone(), *generation))
                        .collect(),
                })
            })
            .collect();
        let results = self.ask(RemoteOp::Fill, fills.len(), remote.fill(fills)).await;
        for ((pass, entry), result) in fill.into_iter().zip(results) {
            match result {
                Ok(Filled::Refused) => {
                    // It changed meanwhile, or somebody else may load it now: what was loaded was for those who waited.
                    self.event(&Event::FillRefused);
                    self.flights.lock_of(&pass.flight).leave(&pass.flight);
                }
                Ok(Filled::Stored) | Err(_) => self.store(&pass.flight, &entry),
            }
        }
    }

    /// Lands flights with an error, which stays the answer for a while.
    async fn fail(&self, passes: &[Pass], error: &Error) {
        for pass in passes {
            pass.flight.land(Err(error.clone()));
        }
        let backoff = self.policy.error_backoff;
        if !backoff.is_zero() {
            tokio::time::sleep(backoff.mul_f64(0.5 + 0.5 * self.random.unit())).await;
        }
        for pass in passes {
            self.flights.lock_of(&pass.flight).leave(&pass.flight);
        }
    }

    /// Sets the entry's span.
    pub(super) fn finish(&self, mut entry: Entry, ttl: Option<Duration>, key: &Key) -> Arc<Entry> {
        let previous = self.memory.as_ref().and_then(|memory| memory.peek(key));
        let bound = self.bound.trusted();
        entry.span = self
            .policy
            .span(&entry, ttl, previous.as_deref(), bound, &self.random);
        if let Some(previous) = previous {
            entry.inherit(&previous);
        }
        Arc::new(entry)
    }
}

/// The newest state of a source that keeps no versions of deleted keys: nothing is there, whatever was.
fn settle_absence(mut loaded: Loaded, wanted: &Wanted) -> Loaded {
    if loaded.body == Body::Absent && wanted.source == Source::Newest {
        loaded.version = loaded.version.max(wanted.floor);
    }
    loaded
}
