//! When a lane sends its next group. A group costs the database about as much whether it has ten appends or thirty, so
//! under load one group after another is cheaper than two small ones at a time.
//!
//! - **P7** A lane whose group is small lets a large one under way end first, and gathers meanwhile; at most [`WAIT_MAX`],
//!   so that a lane that hangs holds up no other one. A group of [`ENOUGH`] waits for nobody, and with few writers nobody
//!   waits at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// From so many appends under way on it pays to wait.
const LARGE: usize = 8;
/// A group of so many is worth a commit at the same time as another one.
const ENOUGH: usize = 32;
/// How long to wait for another group's end, at most.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// What the lanes of one appender know of each other.
#[derive(Debug, Default)]
pub(super) struct Pace {
    under_way: AtomicUsize,
    ended: Notify,
}

/// A group under way; it ends with the value.
#[derive(Debug)]
pub(super) struct UnderWay<'a> {
    pace: &'a Pace,
    appends: usize,
}

impl Pace {
    /// Takes what has come into the queue, and what comes until it is time to send it.
    ///
    /// # Cancellation
    /// What was taken is in `waiting`.
    pub(super) async fn gather<Job>(
        &self,
        queue: &mut mpsc::UnboundedReceiver<Vec<Job>>,
        waiting: &mut VecDeque<Job>,
    ) {
        while let Ok(jobs) = queue.try_recv() {
            waiting.extend(jobs);
        }
        if !self.is_worth_waiting(waiting.len()) {
            return;
        }
        let until = Instant::now() + WAIT_MAX;
        let mut ended = std::pin::pin!(self.ended.notified());
        // Registered before the second look, so that an end in between is not missed.
        ended.as_mut().enable();
        while self.is_worth_waiting(waiting.len()) {
            tokio::select! {
                () = &mut ended => break,
                () = tokio::time::sleep_until(until) => break,
                jobs = queue.recv() => match jobs {
                    Some(jobs) => waiting.extend(jobs),
                    None => break,
                },
            }
        }
        while let Ok(jobs) = queue.try_recv() {
            waiting.extend(jobs);
        }
    }

    fn is_worth_waiting(&self, there: usize) -> bool {
        there < ENOUGH && self.under_way.load(Ordering::Relaxed) >= LARGE
    }

    /// Counts a group of so many appends as under way.
    pub(super) fn begin(&self, appends: usize) -> UnderWay<'_> {
        self.under_way.fetch_add(appends, Ordering::Relaxed);
        UnderWay { pace: self, appends }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.pace.under_way.fetch_sub(self.appends, Ordering::Relaxed);
        self.pace.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a lane with so many waits, and how many it has then.
    async fn gathered(pace: &Pace, there: usize, come: &[usize]) -> (Duration, usize) {
        let (sender, mut queue) = mpsc::unbounded_channel();
        let mut waiting: VecDeque<()> = (0..there).map(|_| ()).collect();
        let begun = Instant::now();
        let sending = async {
            for jobs in come {
                sender.send(vec![(); *jobs]).unwrap();
                tokio::task::yield_now().await;
            }
        };
        let gathering = async {
            pace.gather(&mut queue, &mut waiting).await;
            begun.elapsed()
        };
        let ((), waited) = tokio::join!(sending, gathering);
        (waited, waiting.len())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_small_group_waits_and_only_for_a_large_one() {
        let pace = Pace::default();
        assert_eq!(gathered(&pace, 1, &[]).await, (Duration::ZERO, 1));
        let small = pace.begin(LARGE - 1);
        assert_eq!(gathered(&pace, 1, &[]).await, (Duration::ZERO, 1));
        let _another = pace.begin(1);
        assert_eq!(gathered(&pace, ENOUGH, &[]).await, (Duration::ZERO, ENOUGH));
        let (waited, _) = gathered(&pace, ENOUGH - 1, &[]).await;
        assert!(waited >= WAIT_MAX && waited < WAIT_MAX * 2, "{waited:?}");
        drop(small);
        assert_eq!(gathered(&pace, 1, &[]).await, (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_group_under_way() {
        let pace = Pace::default();
        let large = pace.begin(LARGE);
        let ((waited, there), ()) = tokio::join!(gathered(&pace, 1, &[2, 3]), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(large);
        });
        assert_eq!((waited, there), (Duration::from_millis(1), 6));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_meanwhile_makes_it_enough() {
        let pace = Pace::default();
        let _large = pace.begin(LARGE);
        let (waited, there) = gathered(&pace, 1, &[ENOUGH / 2, ENOUGH / 2, 1]).await;
        assert_eq!((waited, there), (Duration::ZERO, 2 + ENOUGH));
    }
}
