//! So much in each period, and no more: for what must not grow with what goes wrong.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Allowance {
    most: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    used: u32,
    left_out: u64,
}

impl Allowance {
    /// So many in each period; the first period begins with the first that is asked for.
    pub(crate) fn new(most: u32, period: Duration) -> Self {
        let state = State {
            begun: Instant::now(),
            used: 0,
            left_out: 0,
        };
        Self {
            most,
            period,
            state: Mutex::new(state),
        }
    }

    /// How many were left out since the last one that was not; `None` if this one is left out as well.
    pub(crate) fn room(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(state.begun) >= self.period {
            (state.begun, state.used) = (now, 0);
        }
        if state.used == self.most {
            state.left_out += 1;
            return None;
        }
        state.used += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_period_and_the_next_one_says_how_many_were_left_out() {
        let second = Duration::from_secs(1);
        let allowance = Allowance::new(10, second);
        let begun = Instant::now();
        let rooms: Vec<_> = (0..15).map(|_| allowance.room(begun)).collect();
        assert_eq!(rooms.iter().filter(|room| **room == Some(0)).count(), 10);
        assert_eq!(rooms[10..], [None; 5]);
        let later = begun + second * 2;
        assert_eq!((allowance.room(later), allowance.room(later)), (Some(5), Some(0)));
    }
}
