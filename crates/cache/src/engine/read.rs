//! Reading: the first level, then a shared flight.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;

use super::load::Job;
use super::{Engine, Outcome};
use crate::answer::{Answer, Origin, Read};
use crate::clock::Nanos;
use crate::entry::Body;
use crate::error::{Error, checked};
use crate::flight::Flight;
use crate::loader::Loader;
use crate::observe::{Event, RemoteOp};
use crate::version::{Key, Version};

/// How often a reader joins another flight because a key changes faster than the source answers.
const REJOINS: u32 = 3;

/// How a read that the first level could not answer goes on.
enum Joined {
    Hit(Answer),
    Flight(Arc<Flight<Outcome>>),
    /// A flight of our own, which has to be begun.
    New(Job),
}

impl Engine {
    /// Answers from the cache or by the loader. Dropping the future does not end the load.
    pub(crate) async fn get_or_load(
        self: &Arc<Self>,
        key: &str,
        read: &Read,
        loader: &Arc<dyn Loader>,
    ) -> Result<Answer, Error> {
        if !read.fresh
            && let Some(answer) = self.hit(key, read)
        {
            if answer.is_aging() {
                self.refresh(&checked(key)?, &answer, read, loader);
            }
            return Ok(answer);
        }
        self.fly_with(&checked(key)?, read, loader).await
    }

    /// The value that the second level holds, if it answers and has one.
    pub(crate) async fn remote_value(&self, key: &Key) -> Option<(Version, Bytes)> {
        let remote = self.remote.as_ref()?;
        let fetched = self.ask_one(RemoteOp::Get, remote.get_one(key.clone())).await;
        let record = fetched.ok()?.record?;
        match record.body {
            Body::Value(bytes) => Some((record.version, bytes)),
            Body::Absent | Body::Unknown => None,
        }
    }

    /// Joins a flight or begins one, and waits for it.
    async fn fly_with(
        self: &Arc<Self>,
        key: &Key,
        read: &Read,
        loader: &Arc<dyn Loader>,
    ) -> Result<Answer, Error> {
        let mut began = None;
        let mut found = Version::ZERO;
        for _ in 0..REJOINS {
            let now = self.now();
            let began = *began.get_or_insert(now);
            let flight = match self.join(key, read, now)? {
                Joined::Hit(answer) => return Ok(answer),
                Joined::Flight(flight) => flight,
                Joined::New(job) => {
                    let flight = Arc::clone(&job.flight);
                    self.begin(job, loader);
                    flight
                }
            };
            match self.land(&flight, read, began).await? {
                Ok(answer) => return Ok(answer),
                Err(version) => found = version,
            }
        }
        Err(Error::BelowFloor {
            floor: read.floor,
            found,
        })
    }

    /// As [`get_or_load`](Self::get_or_load) for many keys: what is missing is read and loaded together.
    pub(crate) async fn get_many(
        self: &Arc<Self>,
        keys: &[&str],
        read: &Read,
        loader: &Arc<dyn Loader>,
    ) -> Vec<Result<Answer, Error>> {
        let began = self.now();
        let mut joined = Vec::with_capacity(keys.len());
        let mut jobs = Vec::new();
        for key in keys {
            let one = match (!read.fresh).then(|| self.hit(key, read)).flatten() {
                Some(answer) => Ok(Joined::Hit(answer)),
                None => checked(key).and_then(|key| self.join(&key, read, began)),
            };
            joined.push(one.map(|one| match one {
                Joined::New(job) => {
                    let flight = Arc::clone(&job.flight);
                    jobs.push(job);
                    Joined::Flight(flight)
                }
                other => other,
            }));
        }
        if !jobs.is_empty() {
            self.spawn_load(jobs, Arc::clone(loader));
        }
        // They fly together, so waiting for one after the other takes as long as the slowest.
        let mut answers = Vec::with_capacity(joined.len());
        for one in joined {
            answers.push(match one {
                Ok(Joined::Hit(answer)) => Ok(answer),
                Ok(Joined::Flight(flight) | Joined::New(Job { flight, .. })) => {
                    match self.land(&flight, read, began).await {
                        Ok(Ok(answer)) => Ok(answer),
                        Ok(Err(_)) => self.fly_with(&flight.key, read, loader).await,
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Under the key's lock: what the first level has by now, else a flight that will do, else a new one. `now` is of a
    /// moment ago.
    fn join(&self, key: &Key, read: &Read, now: Nanos) -> Result<Joined, Error> {
        let id = self.partitions.id(key);
        let partition = self.partitions.at(id);
        let mut locked = self.lock_in(id, key);
        let held = self.memory.as_ref().and_then(|memory| memory.peek(key));
        let flying = locked.flight();
        if !read.fresh {
            let served = |held: &&Arc<_>| !read.past_memory && self.serves(held, read.floor, now);
            if let Some(entry) = held.as_ref().filter(served) {
                self.answered(Origin::L1);
                return Ok(Joined::Hit(Answer {
                    entry: Arc::clone(entry),
                    origin: Origin::L1,
                    at: now,
                }));
            }
            if let Some(flight) = flying.filter(|flight| self.joinable(flight, read.floor, now)) {
                return Ok(Joined::Flight(Arc::clone(flight)));
            }
        }
        // What this node has seen, it does not go back behind while it remembers it.
        let seen = held
            .filter(|held| now < held.span.hard)
            .map_or(Version::ZERO, |held| held.version);
        let raised = flying.map_or(Version::ZERO, |flight| flight.need());
        let told = flying.map_or(seen, |flight| flight.told().max(seen));
        let need = read.floor.max(seen).max(raised);
        let begun = locked.begin(need, now, partition.generation(), !read.tags.is_empty());
        let flight = begun.map_err(|_| {
            self.event(&Event::Overloaded);
            Error::Overloaded
        })?;
        flight.raise(told);
        Ok(Joined::New(Job {
            flight,
            tags: read.tags.clone(),
            ask_source: read.fresh,
            past_remote: read.past_remote,
        }))
    }

    /// Whether a flight's answer will do for a reader that comes now: it must not be below the floor, nor have begun
    /// so long ago that a change could have been missed since.
    fn joinable(&self, flight: &Flight<Outcome>, floor: Version, now: Nanos) -> bool {
        let partition = self.partitions.at(flight.partition);
        let young = now < flight.began.after(self.bound.trusted());
        let in_time = young || (!flight.tagged && partition.holds(now));
        let outcome = flight.landed();
        let overtaken = matches!(&outcome, Some(Ok(landed)) if landed.entry.version < flight.need());
        flight.need() >= floor && flight.generation == partition.generation() && in_time && !overtaken
    }

    /// Has an entry that is still served loaded anew.
    fn refresh(self: &Arc<Self>, key: &Key, answer: &Answer, read: &Read, loader: &Arc<dyn Loader>) {
        if !self.policy.is_due(&answer.entry, answer.at, &self.random) {
            return;
        }
        let partition = self.partitions.at(self.partitions.id(key));
        let mut locked = self.lock(key);
        if locked.flight().is_some() {
            return;
        }
        let (need, tagged) = (answer.version(), !read.tags.is_empty());
        let Ok(flight) = locked.begin(need, self.now(), partition.generation(), tagged) else {
            return;
        };
        flight.raise(need);
        drop(locked);
        self.event(&Event::Refreshing);
        let job = Job {
            flight,
            tags: read.tags.clone(),
            ask_source: true,
            past_remote: read.past_remote,
        };
        self.spawn_load(vec![job], Arc::clone(loader));
    }

    /// Waits for a flight as long as this reader does, and falls back to what is stale if it may.
    ///
    /// The inner error is the version of an answer that is too old for this reader, though not for the flight's first
    /// one: it has to join another flight.
    async fn land(
        &self,
        flight: &Arc<Flight<Outcome>>,
        read: &Read,
        began: Nanos,
    ) -> Result<Result<Answer, Version>, Error> {
        let hard = read.wait.unwrap_or(self.policy.hard_timeout);
        let stale = read.stale.and_then(|up_to| self.stale(&flight.key, read, up_to));
        let wait = if stale.is_some() {
            self.policy.soft_timeout.min(hard)
        } else {
            hard
        };
        let failed = match self.outcome(flight, began, wait).await {
            Some(Ok(landed)) => {
                let entry = landed.entry;
                let too_old = entry.known_at.after(self.bound.trusted()) <= began;
                if landed.overtaken && (too_old || entry.version < read.floor) {
                    return Ok(Err(entry.version));
                }
                self.answered(landed.origin);
                return Ok(Ok(Answer {
                    entry,
                    origin: landed.origin,
                    at: self.now(),
                }));
            }
            Some(Err(error)) => error,
            None => Error::TimedOut(wait),
        };
        let answer = stale.ok_or(failed)?;
        self.answered(Origin::Stale);
        Ok(Ok(answer))
    }

    /// What becomes of a flight until a reader has waited for so long.
    ///
    /// Most reads of the second level are answered by the first step of a flight that its readers fly, and the step has a
    /// limit of its own ([`Engine::ask`]). A timer is set only when there is more to wait for.
    async fn outcome(&self, flight: &Arc<Flight<Outcome>>, began: Nanos, limit: Duration) -> Option<Outcome> {
        // In a box, for want of which each read's future would be larger.
        let (mut wait, mut timer) = (pin!(flight.wait()), None::<Pin<Box<Sleep>>>);
        let mut is_first = limit >= self.policy.remote_timeout;
        poll_fn(|context| {
            if let Poll::Ready(outcome) = wait.as_mut().poll(context) {
                return Poll::Ready(Some(outcome));
            }
            if std::mem::take(&mut is_first) && wait.is_flown() {
                return Poll::Pending;
            }
            let timer = timer.get_or_insert_with(|| {
                let left = limit.saturating_sub(self.now().since(began));
                Box::pin(tokio::time::sleep(left))
            });
            timer.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    /// What may be served instead of an error (G7).
    fn stale(&self, key: &Key, read: &Read, up_to: Duration) -> Option<Answer> {
        let entry = self.memory.as_ref()?.peek(key)?;
        let at = self.now();
        let good = !entry.is_marker() && entry.version >= read.floor && entry.age(at) <= up_to;
        good.then_some(Answer {
            entry,
            origin: Origin::Stale,
            at,
        })
    }
}
