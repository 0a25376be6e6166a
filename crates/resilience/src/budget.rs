//! The budget: what retries and hedges may add to the load, together.
//!
//! One budget is shared by everything that makes extra attempts at one dependency. Both forms hold under
//! any concurrency: an extra attempt is reserved by one compare-and-swap.

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

/// What an extra attempt is made for, which sets its price in a token budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// The last attempt failed: one token.
    Retry,
    /// The last attempt timed out, so its work may still be going on over there: two tokens.
    AfterTimeout,
    /// The last attempt is merely late: one token.
    Hedge,
}

/// A shared allowance of extra attempts. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Form>);

#[derive(Debug)]
enum Form {
    /// `extra 32 | calls 32` in flight.
    Share {
        ppm: u64,
        min: u64,
        in_flight: AtomicU64,
    },
    /// Milli-tokens.
    Tokens {
        deposit: u64,
        capacity: u64,
        tokens: AtomicU64,
    },
}

const MILLI: u64 = 1000;
const EXTRA: u64 = 1 << 32;
const CALLS_MASK: u64 = EXTRA - 1;

impl Budget {
    /// Extra attempts in flight are at most `share` (0 to 1) of the calls in flight, or `min` if that is more.
    /// Scales with the load and needs no clock.
    pub fn share_of_in_flight(share: f64, min: u32) -> Self {
        let ppm = u64::from(thousandths(share)) * MILLI;
        Self(Arc::new(Form::Share {
            ppm,
            min: min.into(),
            in_flight: AtomicU64::new(0),
        }))
    }

    /// Each call deposits `per_call` tokens (0 to 1) and an extra attempt spends one or two, so in the long
    /// run extra attempts are at most that share of the calls. `reserve` tokens are there at the start and
    /// at most `reserve` plus what 1000 calls deposit are kept.
    pub fn tokens(per_call: f64, reserve: u32) -> Self {
        let deposit = u64::from(thousandths(per_call));
        let reserve = u64::from(reserve) * MILLI;
        let capacity = reserve + deposit * 1000;
        Self(Arc::new(Form::Tokens {
            deposit,
            capacity,
            tokens: AtomicU64::new(reserve),
        }))
    }

    /// Whether this is the other one's clone.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Books a call, before its first attempt. Keep the guard until the call is over.
    pub fn call(&self) -> InFlight {
        match &*self.0 {
            Form::Share { in_flight, .. } => {
                in_flight.fetch_add(1, Ordering::Relaxed);
            }
            Form::Tokens {
                deposit,
                capacity,
                tokens,
            } => {
                update(tokens, |held| {
                    let next = (held + deposit).min(*capacity);
                    (next != held).then_some(next)
                });
            }
        }
        InFlight(self.if_share())
    }

    /// Itself, when the end of a call or of an extra attempt has to be booked as well.
    fn if_share(&self) -> Option<Self> {
        matches!(*self.0, Form::Share { .. }).then(|| self.clone())
    }

    /// Reserves an extra attempt, or `None` when the allowance is used up. Keep the guard until the attempt
    /// is over.
    pub fn try_spend(&self, what: Extra) -> Option<Spent> {
        let granted = match &*self.0 {
            Form::Share { ppm, min, in_flight } => update(in_flight, |seen| {
                let allowed = ((seen & CALLS_MASK) * ppm / 1_000_000).max(*min);
                (seen / EXTRA < allowed).then(|| seen + EXTRA)
            }),
            Form::Tokens { tokens, .. } => {
                let price = if what == Extra::AfterTimeout {
                    2 * MILLI
                } else {
                    MILLI
                };
                update(tokens, |held| held.checked_sub(price))
            }
        };
        granted.then(|| Spent(self.if_share()))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=1000"
)]
fn thousandths(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 1000.0).round() as u32
}

/// Applies `change` unless it declines.
fn update(word: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> bool {
    let mut seen = word.load(Ordering::Relaxed);
    while let Some(next) = change(seen) {
        match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

/// Books what is over.
fn end(budget: Option<&Budget>, what: u64) {
    if let Some(Budget(form)) = budget
        && let Form::Share { in_flight, .. } = &**form
    {
        in_flight.fetch_sub(what, Ordering::Relaxed);
    }
}

/// A call that the budget knows of.
#[derive(Debug)]
#[must_use = "the call counts as over when this is dropped"]
pub struct InFlight(Option<Budget>);

impl Drop for InFlight {
    fn drop(&mut self) {
        end(self.0.as_ref(), 1);
    }
}

/// A reserved extra attempt.
#[derive(Debug)]
#[must_use = "the attempt counts as over when this is dropped"]
pub struct Spent(Option<Budget>);

impl Drop for Spent {
    fn drop(&mut self) {
        end(self.0.as_ref(), EXTRA);
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
