//! Whose turn it is. Pure bookkeeping, no I/O and no clock of its own.
//!
//! - **Q1** A context waits at most once; a later wish takes the place of the one before.
//! - **Q2** Tenants take turns, one context each, however many of theirs wait.
//! - **Q3** At most `room` contexts wait. When that is used up, the tenant of whom most wait gives way: the last of his
//!   goes, unless he is the one who asks (longest queue drop, as in "Stochastic Fairness Queueing", INFOCOM 1990).
//! - **Q4** One context is worked on once at a time. What is wished of it meanwhile comes after.
//! - **Q5** A context that failed has a rest.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::id::{ContextId, ContextKey, TenantId};
use crate::store::SeqRange;

/// Contexts that have a rest and are remembered; what is beyond is forgotten and may be tried too early.
const RESTS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Queue {
    room: usize,
    /// Tenants of whom somebody waits, in order of their turns.
    turns: VecDeque<TenantId>,
    waiting: HashMap<TenantId, VecDeque<ContextId>>,
    wishes: HashMap<ContextKey, SeqRange>,
    /// What is worked on, and what was wished of it meanwhile.
    running: HashMap<ContextKey, (SeqRange, Option<SeqRange>)>,
    rests: HashMap<ContextKey, Instant>,
    closed: bool,
}

/// What became of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// It waits in the place of another context, which does not any more.
    Displaces,
    /// The context waits or is worked on already.
    Joins,
    /// The context has a rest.
    Rests,
    /// There is no room, or no more work is taken.
    Refused,
}

impl Queue {
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            wishes: HashMap::new(),
            running: HashMap::new(),
            rests: HashMap::new(),
            closed: false,
        }
    }

    pub(super) fn push(&mut self, key: &ContextKey, range: SeqRange, now: Instant) -> Pushed {
        if self.closed {
            return Pushed::Refused;
        }
        if self.rests.get(key).is_some_and(|until| *until > now) {
            return Pushed::Rests;
        }
        if let Some((current, next)) = self.running.get_mut(key) {
            *next = (*current != range).then_some(range);
            return Pushed::Joins;
        }
        if let Some(wish) = self.wishes.get_mut(key) {
            *wish = range;
            return Pushed::Joins;
        }
        let mut pushed = Pushed::Waits;
        if self.wishes.len() >= self.room {
            if !self.displace(&key.tenant) {
                return Pushed::Refused;
            }
            pushed = Pushed::Displaces;
        }
        let of_tenant = self.waiting.entry(key.tenant.clone()).or_default();
        if of_tenant.is_empty() {
            self.turns.push_back(key.tenant.clone());
        }
        of_tenant.push_back(key.id.clone());
        self.wishes.insert(key.clone(), range);
        pushed
    }

    /// Q3. Whether room was made for one of this tenant.
    fn displace(&mut self, tenant: &TenantId) -> bool {
        let own = self.waiting.get(tenant).map_or(0, VecDeque::len);
        let longest = self.waiting.iter().max_by_key(|(_, ids)| ids.len());
        let Some(longest) = longest.filter(|(_, ids)| ids.len() > own + 1) else {
            return false;
        };
        let other = longest.0.clone();
        let last = self.waiting.get_mut(&other).and_then(VecDeque::pop_back);
        if let Some(id) = last {
            self.wishes.remove(&ContextKey::new(other, id));
        }
        true
    }

    /// What to work on next; it counts as running until [`Queue::done`].
    pub(super) fn next(&mut self) -> Option<(ContextKey, SeqRange)> {
        let tenant = self.turns.pop_front()?;
        let of_tenant = self.waiting.get_mut(&tenant)?;
        let id = of_tenant.pop_front()?;
        if of_tenant.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.turns.push_back(tenant.clone());
        }
        let key = ContextKey::new(tenant, id);
        let range = self.wishes.remove(&key)?;
        self.running.insert(key.clone(), (range, None));
        Some((key, range))
    }

    /// It was worked on; `rest` says until when it is left alone if that failed.
    pub(super) fn done(&mut self, key: &ContextKey, rest: Option<Instant>, now: Instant) {
        let next = self.running.remove(key).and_then(|(_, next)| next);
        if let Some(until) = rest {
            if self.rests.len() >= RESTS_MAX {
                self.rests.retain(|_, until| *until > now);
            }
            if self.rests.len() < RESTS_MAX {
                self.rests.insert(key.clone(), until);
            }
        } else if let Some(next) = next {
            self.rests.remove(key);
            self.push(key, next, now);
        } else {
            self.rests.remove(key);
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.wishes.len()
    }

    /// Nobody waits any more, and nobody may.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.turns.clear();
        self.waiting.clear();
        self.wishes.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(tenant: &str, id: usize) -> ContextKey {
        ContextKey::new(
            TenantId::parse(tenant).unwrap(),
            ContextId::parse(&format!("c{id}")).unwrap(),
        )
    }

    const fn to(last: u64) -> SeqRange {
        SeqRange { first: 1, last }
    }

    fn drained(queue: &mut Queue) -> Vec<String> {
        let mut order = Vec::new();
        while let Some((key, range)) = queue.next() {
            order.push(format!(
                "{}/{}:{}",
                key.tenant.as_str(),
                key.id.as_str(),
                range.last
            ));
            queue.done(&key, None, Instant::now());
        }
        order
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_and_a_context_waits_once() {
        let (mut queue, now) = (Queue::new(10), Instant::now());
        for id in 0..4 {
            assert_eq!(queue.push(&key("flood", id), to(1), now), Pushed::Waits);
        }
        assert_eq!(queue.push(&key("calm", 0), to(1), now), Pushed::Waits);
        assert_eq!(queue.push(&key("flood", 1), to(9), now), Pushed::Joins, "Q1");
        assert_eq!(
            drained(&mut queue),
            [
                "flood/c0:1",
                "calm/c0:1",
                "flood/c1:9",
                "flood/c2:1",
                "flood/c3:1"
            ],
            "Q2"
        );
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_most_waiting_gives_way() {
        let (mut queue, now) = (Queue::new(4), Instant::now());
        for id in 0..4 {
            assert_eq!(queue.push(&key("flood", id), to(1), now), Pushed::Waits);
        }
        assert_eq!(queue.push(&key("flood", 4), to(1), now), Pushed::Refused);
        assert_eq!(queue.push(&key("calm", 0), to(1), now), Pushed::Displaces);
        assert_eq!(queue.push(&key("calm", 1), to(1), now), Pushed::Displaces);
        assert_eq!(
            queue.push(&key("calm", 2), to(1), now),
            Pushed::Refused,
            "two each is fair"
        );
        assert_eq!(queue.push(&key("third", 0), to(1), now), Pushed::Displaces);
        assert_eq!(queue.waiting(), 4, "Q3");
        let order = drained(&mut queue);
        assert!(
            order.contains(&"third/c0:1".to_owned()) && order.len() == 4,
            "{order:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_not_run_twice_and_what_failed_rests() {
        let (mut queue, now) = (Queue::new(4), Instant::now());
        queue.push(&key("a", 0), to(1), now);
        let (first, _) = queue.next().unwrap();
        assert_eq!(queue.push(&first, to(1), now), Pushed::Joins);
        assert_eq!(queue.push(&first, to(2), now), Pushed::Joins);
        assert!(queue.next().is_none(), "Q4");
        queue.done(&first, None, now);
        assert_eq!(drained(&mut queue), ["a/c0:2"]);

        queue.push(&first, to(3), now);
        queue.next().unwrap();
        queue.push(&first, to(4), now);
        let until = now + Duration::from_mins(1);
        queue.done(&first, Some(until), now);
        assert_eq!(queue.push(&first, to(4), now), Pushed::Rests, "Q5");
        assert!(queue.next().is_none(), "what was wished meanwhile rests as well");
        assert_eq!(queue.push(&first, to(4), until), Pushed::Waits);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_is_empty_and_takes_nothing() {
        let (mut queue, now) = (Queue::new(4), Instant::now());
        queue.push(&key("a", 0), to(1), now);
        queue.close();
        assert_eq!(queue.waiting(), 0);
        assert!(queue.next().is_none());
        assert_eq!(queue.push(&key("a", 1), to(1), now), Pushed::Refused);
    }
}
