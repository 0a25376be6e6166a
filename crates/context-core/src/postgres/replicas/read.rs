//! One read: a replica, a second one if the first is late, the primary if neither will do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contextkeep_resilience::breaker::Permit;
use contextkeep_resilience::replicas::{Picked, Tried};
use contextkeep_resilience::{Extra, Outcome, Profile};
use futures_util::future::{Either, select};

use super::super::link::{Endpoint, Fault, Kind};
use super::health::State;
use super::member::Member;
use super::{Consistency, Demand, Replicas, Served, ServedBy};

/// Why a read that was meant for a replica goes to the primary.
#[derive(Clone, Copy, Debug)]
enum Hop {
    Unmet,
    Failed,
    None,
}

impl Replicas {
    /// Reads where `demand` allows it.
    ///
    /// `op` reads on the server it is given; it may be called for two replicas at the same time, and once more for
    /// the primary. `accept` says of a replica's answer whether it will do: not if a row's version is below the
    /// caller's floor, or is missing while there is a floor, or the floor was not reached. The
    /// primary's answer is not asked about: it is the truth.
    ///
    /// # Errors
    /// The primary's own; `Spill` when it serves as many as it may; errors that no other server would mend.
    ///
    /// # Cancellation
    /// Dropping it drops what is under way.
    pub(crate) async fn read<T, Op, Reading>(
        self: &Arc<Self>,
        demand: &Demand,
        op: Op,
        accept: impl Fn(&T) -> bool + Send + Sync,
    ) -> Result<Served<T>, Fault>
    where
        Op: Fn(Arc<Endpoint>) -> Reading + Send + Sync,
        Reading: Future<Output = Result<T, Fault>> + Send,
        T: Send,
    {
        self.start();
        if demand.consistency == Consistency::Strong || self.set.endpoints().len() == 1 {
            add(&self.counts.primary);
            return self.on_primary(&op).await;
        }
        let _booked = self.budget.call();
        let hop = match self.others(demand) {
            // Nothing was looked at yet: no reason to refuse anybody.
            None if self.epoch().is_none() => {
                add(&self.counts.primary);
                return self.on_primary(&op).await;
            }
            None => Hop::None,
            Some(others) => match self.on_replicas(others, demand.slow, &op, &accept).await {
                Some(Ok(served)) if accept(&served.value) => {
                    add(&self.counts.replica);
                    return Ok(served);
                }
                Some(Ok(_)) => Hop::Unmet,
                Some(Err(fault)) if is_final(&fault) => return Err(fault),
                Some(Err(_)) => Hop::Failed,
                None => Hop::None,
            },
        };
        self.spill(hop, &op).await
    }

    /// The primary instead of a replica, if it has room for that.
    async fn spill<T, Op, Reading>(self: &Arc<Self>, hop: Hop, op: &Op) -> Result<Served<T>, Fault>
    where
        Op: Fn(Arc<Endpoint>) -> Reading,
        Reading: Future<Output = Result<T, Fault>>,
    {
        let place = match &self.spill {
            // A burst waits for a moment, an overload does not.
            Some(spill) => spill
                .acquire_within(Some(Profile::PostgresRead.queue_wait()))
                .await
                .ok(),
            None => None,
        };
        let Some(_place) = place else {
            add(&self.counts.shed);
            return Err(Fault::new(
                Kind::Spill,
                "no replica could answer, and the primary serves as many reads for them as \
                 context_manager.routing.primary_spill_max allows",
            ));
        };
        add(match hop {
            Hop::Unmet => &self.counts.unmet,
            Hop::Failed => &self.counts.failed,
            Hop::None => &self.counts.none,
        });
        self.on_primary(op).await
    }

    async fn on_primary<T, Op, Reading>(self: &Arc<Self>, op: &Op) -> Result<Served<T>, Fault>
    where
        Op: Fn(Arc<Endpoint>) -> Reading,
        Reading: Future<Output = Result<T, Fault>>,
    {
        let member = self.primary_member();
        let entered = member.enter().await?;
        let result = member.while_it_answers(op(member.endpoint.clone())).await;
        entered.end(&result);
        match result {
            Ok(value) => Ok(Served {
                value,
                by: member.endpoint.clone(),
                from: ServedBy::Primary,
                age: None,
            }),
            Err(fault) => {
                self.notice(&member.endpoint, &fault);
                Err(fault)
            }
        }
    }

    /// The first answer that will do out of one replica, or two if the first is late or fails. `None`: none could
    /// be asked.
    async fn on_replicas<T, Op, Reading>(
        self: &Arc<Self>,
        others: Tried,
        slow: bool,
        op: &Op,
        accept: &(impl Fn(&T) -> bool + Send + Sync),
    ) -> Option<Result<Served<T>, Fault>>
    where
        Op: Fn(Arc<Endpoint>) -> Reading,
        Reading: Future<Output = Result<T, Fault>>,
    {
        let will_do =
            |result: &Result<Served<T>, Fault>| result.as_ref().is_ok_and(|served| accept(&served.value));
        let hedge = self
            .hedge
            .as_ref()
            .filter(|_| !slow && crate::session::Session::current_plan().hedging);
        let first = self.begin(others, slow)?;
        let tried = others.and(first.index());
        let mut first = Box::pin(self.on_replica(first, op));

        let early = match hedge {
            None => Some(first.as_mut().await),
            Some(hedge) => {
                let early = tokio::time::timeout(hedge.delay(), first.as_mut()).await.ok();
                if early.is_some() {
                    hedge.in_time();
                } else {
                    hedge.late();
                }
                early
            }
        };
        if let Some(result) = early {
            // Failed early: another replica, if there is one and the budget allows it.
            let mends = matches!(&result, Err(fault) if !is_final(fault));
            let Some(_extra) = mends.then(|| self.budget.try_spend(Extra::Retry)).flatten() else {
                return Some(result);
            };
            let Some(second) = self.begin_untried(tried, slow) else {
                return Some(result);
            };
            return Some(self.on_replica(second, op).await);
        }

        let leave = self
            .hedge
            .as_ref()
            .and_then(contextkeep_resilience::Hedge::try_start);
        let Some((_leave, second)) = leave.and_then(|leave| Some((leave, self.begin_untried(tried, slow)?)))
        else {
            return Some(first.await);
        };
        add(&self.counts.hedged);
        let second = Box::pin(self.on_replica(second, op));
        Some(match select(first, second).await {
            Either::Left((result, second)) if !will_do(&result) => {
                let other = second.await;
                if will_do(&other) {
                    add(&self.counts.hedge_won);
                    other
                } else {
                    result
                }
            }
            Either::Left((result, _)) => result,
            Either::Right((result, first)) if !will_do(&result) => first.await,
            Either::Right((result, _)) => {
                add(&self.counts.hedge_won);
                result
            }
        })
    }

    /// A replica out of those that are not left out, with its breaker's leave.
    fn begin(&self, others: Tried, slow: bool) -> Option<Attempt<'_>> {
        let picked = self.set.pick(others).ok()?;
        // The picker falls back to those that were left out; here they are out for a reason.
        if others.contains(picked.index()) {
            return None;
        }
        let permit = picked.permit().ok()?;
        Some(Attempt {
            picked: Some(picked),
            permit,
            slow,
        })
    }

    /// As [`Replicas::begin`], for a second one.
    fn begin_untried(&self, tried: Tried, slow: bool) -> Option<Attempt<'_>> {
        let all = (0..self.set.endpoints().len()).all(|index| tried.contains(index));
        if all { None } else { self.begin(tried, slow) }
    }

    async fn on_replica<T, Op, Reading>(
        self: &Arc<Self>,
        attempt: Attempt<'_>,
        op: &Op,
    ) -> Result<Served<T>, Fault>
    where
        Op: Fn(Arc<Endpoint>) -> Reading,
        Reading: Future<Output = Result<T, Fault>>,
    {
        let member = self.member(attempt.index()).clone();
        let endpoint = member.endpoint.clone();
        let reading = op(endpoint.clone());
        let result = if attempt.slow {
            // It ends by the statement's own limit, and before that only if the replica falls silent.
            member.while_it_answers(reading).await
        } else {
            let reading = tokio::time::timeout(self.settings.replica_timeout, reading);
            reading.await.unwrap_or_else(|_| {
                Err(Fault::new(
                    Kind::TimedOut,
                    "a replica did not answer within context_manager.routing.replica_timeout",
                ))
            })
        };
        attempt.end(&result);
        if let Err(fault) = &result
            && (fault.is_suspect() || matches!(fault.kind(), Kind::TimedOut | Kind::Silent))
        {
            member.doubt();
        }
        let value = result?;
        let seen = member.seen();
        Ok(Served {
            value,
            by: endpoint,
            from: if seen.health.state == State::Lagging {
                ServedBy::LaggingReplica
            } else {
                ServedBy::Replica
            },
            age: seen.fresh.map(|fresh| fresh.elapsed()),
        })
    }
}

/// A call on a replica. Dropped before its end, it books the time it took as the least the replica needs.
struct Attempt<'a> {
    picked: Option<Picked<'a, Arc<Member>>>,
    permit: Option<Permit>,
    slow: bool,
}

impl Attempt<'_> {
    fn index(&self) -> usize {
        self.picked.as_ref().map_or(usize::MAX, Picked::index)
    }

    fn end<T>(mut self, result: &Result<T, Fault>) {
        let outcome = match result {
            Ok(_) if self.slow => Outcome::NEUTRAL,
            Ok(_) => Outcome::SUCCESS,
            Err(fault) => fault.outcome(),
        };
        // The caller's deadline is an abandonment, which the breaker judges by its time.
        let is_deadline = matches!(result, Err(fault) if fault.kind() == Kind::Deadline);
        if let Some(permit) = self.permit.take().filter(|_| !is_deadline) {
            permit.record(outcome.verdict);
        }
        if let Some(picked) = self.picked.take() {
            picked.record(outcome);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(picked) = self.picked.take().filter(|_| !self.slow) {
            picked.record(Outcome::SUCCESS);
        }
    }
}

/// Whether no other server would do better.
const fn is_final(fault: &Fault) -> bool {
    matches!(
        fault.kind(),
        Kind::Deadline | Kind::Denied | Kind::Nul | Kind::Constraint | Kind::Internal | Kind::Closed
    )
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
