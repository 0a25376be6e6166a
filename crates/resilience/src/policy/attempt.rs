//! Stages 4 to 7: one attempt, or two that race.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::{Judged, Policy, refused};
use crate::breaker::{self, State};
use crate::bulkhead::{self, Bulkhead, Slot};
use crate::classify::{Classify, judge};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{Error, Rejected, Why};
use crate::hedge::{Hedge, Leave};
use crate::outcome::{Idempotent, Verdict};
use crate::replicas::{Endpoint, Picked, Tried};
use crate::timer::within;

/// One attempt, as the operation sees it.
pub struct Attempt<'a, T> {
    endpoint: &'a Endpoint<T>,
    index: usize,
    number: u32,
    hedge: bool,
    timeout: Option<Duration>,
    deadline: Option<Deadline>,
    clock: &'a dyn Clock,
}

impl<'a, T> Attempt<'a, T> {
    /// Where to send it.
    pub const fn endpoint(&self) -> &'a T {
        &self.endpoint.value
    }

    /// Which endpoint that is.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The how-manieth attempt, from one. A hedge has the number of the attempt it joins.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether it runs beside another one.
    pub const fn is_hedge(&self) -> bool {
        self.hedge
    }

    /// How long it may take, to pass on: a `statement_timeout`, a response timeout, a header.
    pub fn remaining(&self) -> Option<Duration> {
        least(self.timeout, left(self.deadline, self.clock))
    }
}

impl<T> Clone for Attempt<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Attempt<'_, T> {}

impl<T> fmt::Debug for Attempt<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("index", &self.index)
            .field("number", &self.number)
            .field("hedge", &self.hedge)
            .finish_non_exhaustive()
    }
}

/// What an attempt is told.
#[derive(Clone, Copy)]
struct Brief {
    number: u32,
    hedge: bool,
    tried: Tried,
    deadline: Option<Deadline>,
}

impl<C, T> Policy<C, T> {
    /// Stage 4.
    pub(super) async fn hedged<'a, R, E, F, Fut>(
        &'a self,
        idempotent: Idempotent,
        number: u32,
        tried: &mut Tried,
        deadline: Option<Deadline>,
        op: &F,
    ) -> Judged<R, E>
    where
        C: Classify<R, E>,
        F: Fn(Attempt<'a, T>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let picked = match self.replicas.pick(*tried) {
            Ok(picked) => picked,
            Err(rejected) => return refused(rejected),
        };
        *tried = tried.and(picked.index());
        let brief = Brief {
            number,
            hedge: false,
            tried: *tried,
            deadline,
        };
        let Some(hedge) = self.plan.hedge.as_ref().filter(|_| idempotent == Idempotent::Yes) else {
            return self.one(brief, picked, op).await;
        };
        let mut first = pin!(self.one(brief, picked, op));
        if let Some(judged) = within(|| Some(hedge.delay()), first.as_mut(), pin!(None)).await {
            // A fast failure says nothing about how long an answer takes.
            if matches!(judged.1.verdict, Verdict::Success | Verdict::Neutral) {
                hedge.in_time();
            }
            return judged;
        }
        hedge.late();
        let Some((picked, _leave)) = self.second(hedge, *tried, deadline) else {
            return first.await;
        };
        *tried = tried.and(picked.index());
        let brief = Brief {
            hedge: true,
            tried: *tried,
            ..brief
        };
        race(first, pin!(self.one(brief, picked, op))).await
    }

    /// Whether a second attempt is wise, and where to. Not at a dependency in trouble or in a crowd, and not
    /// when its answer could not be waited for.
    fn second(
        &self,
        hedge: &Hedge,
        tried: Tried,
        deadline: Option<Deadline>,
    ) -> Option<(Picked<'_, T>, Leave)> {
        let remaining = left(deadline, &*self.plan.clock);
        if remaining.is_some_and(|remaining| remaining < hedge.delay()) {
            return None;
        }
        let picked = self.replicas.pick(tried).ok()?;
        let endpoint = picked.endpoint();
        let crowded = endpoint
            .its_bulkhead()
            .is_some_and(|bulkhead| u64::from(bulkhead.in_use()) * 5 > u64::from(bulkhead.limit()) * 4);
        if crowded || endpoint.breaker().state() != State::Closed {
            return None;
        }
        let leave = hedge.try_start()?;
        Some((picked, leave))
    }

    /// Stages 5 to 7. An endpoint whose guards say no between the choice and the call is left for the next.
    async fn one<'a, R, E, F, Fut>(&'a self, brief: Brief, mut picked: Picked<'a, T>, op: &F) -> Judged<R, E>
    where
        C: Classify<R, E>,
        F: Fn(Attempt<'a, T>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let mut tried = brief.tried;
        loop {
            let room = match picked.endpoint().its_bulkhead() {
                None => Ok(Room::Boundless),
                Some(bulkhead) => match bulkhead.lend() {
                    Some(slot) => Ok(Room::Lent(slot)),
                    None => self.queue(bulkhead, brief.deadline).await.map(Room::Queued),
                },
            };
            let rejected = match room {
                Ok(room) => match picked.lend() {
                    Ok(permit) => return self.call(brief, picked, permit, room, op).await,
                    Err(rejected) => rejected,
                },
                Err(rejected) => rejected,
            };
            tried = tried.and(picked.index());
            match self.replicas.pick(tried) {
                Ok(next) if !tried.contains(next.index()) => picked = next,
                _ => return refused(rejected),
            }
        }
    }

    /// Stage 6, when there was no slot at once.
    async fn queue(&self, bulkhead: &Bulkhead, deadline: Option<Deadline>) -> Result<Slot, Rejected> {
        if !bulkhead.has_queue() {
            return bulkhead.try_acquire();
        }
        let remaining = left(deadline, &*self.plan.clock);
        bulkhead
            .acquire_within(least(self.plan.queue_wait, remaining))
            .await
    }

    /// Stage 7.
    async fn call<'a, R, E, F, Fut>(
        &'a self,
        brief: Brief,
        picked: Picked<'a, T>,
        permit: Option<breaker::Lent<'a>>,
        room: Room<'a>,
        op: &F,
    ) -> Judged<R, E>
    where
        C: Classify<R, E>,
        F: Fn(Attempt<'a, T>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let attempt = Attempt {
            endpoint: picked.endpoint(),
            index: picked.index(),
            number: brief.number,
            hedge: brief.hedge,
            timeout: self.plan.attempt_timeout,
            deadline: brief.deadline,
            clock: &*self.plan.clock,
        };
        // Asked for when the first poll was not enough: what remains is measured then.
        let limit = || least(self.plan.attempt_timeout, left(brief.deadline, &*self.plan.clock));
        let result = match within(limit, pin!(op(attempt)), pin!(None)).await {
            Some(result) => result.map_err(Error::Inner),
            None => Err(Rejected::new(self.plan.name.clone(), self.which_limit(brief.deadline), None).into()),
        };
        drop(room);
        let outcome = match permit {
            Some(permit) => breaker::conclude_held(permit, &self.classify, &result),
            None => judge(&self.classify, result.as_ref()),
        };
        picked.record(outcome);
        (result, outcome)
    }

    /// Whose limit it was that ran out: the deadline's, if that has passed.
    fn which_limit(&self, deadline: Option<Deadline>) -> Why {
        let over = left(deadline, &*self.plan.clock).is_some_and(|left| left.is_zero());
        if over { Why::Deadline } else { Why::AttemptTimeout }
    }
}

/// A place in an endpoint's bulkhead, if it has one.
enum Room<'a> {
    Boundless,
    Lent(#[expect(dead_code, reason = "held, then dropped")] bulkhead::Lent<'a>),
    Queued(#[expect(dead_code, reason = "held, then dropped")] Slot),
}

/// What is left of a deadline: zero when it has passed.
fn left(deadline: Option<Deadline>, clock: &dyn Clock) -> Option<Duration> {
    deadline.map(|deadline| deadline.remaining(clock).unwrap_or_default())
}

/// The smaller of two limits, either of which may be missing.
fn least(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The first good answer of two; the last bad one if neither is good. The loser is dropped, which its
/// breaker books as abandoned.
async fn race<R, E, A>(mut first: Pin<&mut A>, mut second: Pin<&mut A>) -> Judged<R, E>
where
    A: Future<Output = Judged<R, E>>,
{
    let mut bad: Option<Judged<R, E>> = None;
    let mut done = [false; 2];
    poll_fn(move |context| {
        for (done, future) in done.iter_mut().zip([&mut first, &mut second]) {
            if *done {
                continue;
            }
            let Poll::Ready(judged) = future.as_mut().poll(context) else {
                continue;
            };
            *done = true;
            let is_answer = judged.1.verdict == Verdict::Neutral && !is_local(&judged.0);
            if judged.0.is_ok() || is_answer || bad.is_some() {
                return Poll::Ready(judged);
            }
            bad = Some(judged);
        }
        Poll::Pending
    })
    .await
}

fn is_local<R, E>(result: &Result<R, Error<E>>) -> bool {
    result.as_ref().is_err_and(Error::is_local)
}
