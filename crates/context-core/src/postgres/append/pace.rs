//! When a lane sends its next group. A group costs the database about as much whether it has ten appends or thirty, so
//! under load one group after another is cheaper than two small ones at a time.
//!
//! - **P7** A lane whose group is small lets the one under way end first, and gathers meanwhile; at most [`WAIT_MAX`], so
//!   that a lane that hangs holds up no other one for longer. A group of [`ENOUGH`] waits for nobody, and with fewer
//!   writers than [`MANY`] nobody waits at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// From so many appends on that are not answered it pays to wait. Not the size of the group under way decides: a small one
/// would be followed by small ones.
const MANY: u64 = 16;
/// A group of so many is worth a commit at the same time as another one.
const ENOUGH: usize = 32;
/// How long to wait for another group's end, at most.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// What the lanes of one appender know of each other.
#[derive(Debug, Default)]
pub(super) struct Pace {
    groups: AtomicUsize,
    ended: Notify,
}

/// A group under way; it ends with the value.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a Pace);

impl Pace {
    /// Takes what has come into the queue, and what comes until it is time to send it. `unanswered` are the appends of all
    /// lanes, these and those under way.
    ///
    /// # Cancellation
    /// What was taken is in `waiting`.
    pub(super) async fn gather<Job>(
        &self,
        queue: &mut mpsc::UnboundedReceiver<Vec<Job>>,
        waiting: &mut VecDeque<Job>,
        unanswered: &AtomicU64,
    ) {
        let is_worth_waiting = |there| {
            there < ENOUGH
                && self.groups.load(Ordering::Relaxed) > 0
                && unanswered.load(Ordering::Relaxed) >= MANY
        };
        while let Ok(jobs) = queue.try_recv() {
            waiting.extend(jobs);
        }
        if !is_worth_waiting(waiting.len()) {
            return;
        }
        let until = Instant::now() + WAIT_MAX;
        let mut ended = std::pin::pin!(self.ended.notified());
        // Registered before the second look, so that an end in between is not missed.
        ended.as_mut().enable();
        while is_worth_waiting(waiting.len()) {
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

    /// Counts a group as under way.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.groups.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.groups.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a lane with so many waits while so many are not answered, and how many it has then.
    async fn gathered(pace: &Pace, there: usize, come: &[usize], unanswered: u64) -> (Duration, usize) {
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
            pace.gather(&mut queue, &mut waiting, &AtomicU64::new(unanswered))
                .await;
            begun.elapsed()
        };
        let ((), waited) = tokio::join!(sending, gathering);
        (waited, waiting.len())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_small_group_waits_and_only_for_another_under_load() {
        let pace = Pace::default();
        assert_eq!(gathered(&pace, 1, &[], MANY).await, (Duration::ZERO, 1));
        let other = pace.begin();
        assert_eq!(gathered(&pace, 1, &[], MANY - 1).await, (Duration::ZERO, 1));
        assert_eq!(gathered(&pace, ENOUGH, &[], MANY).await, (Duration::ZERO, ENOUGH));
        let (waited, _) = gathered(&pace, ENOUGH - 1, &[], MANY).await;
        assert!(waited >= WAIT_MAX && waited < WAIT_MAX * 2, "{waited:?}");
        drop(other);
        assert_eq!(gathered(&pace, 1, &[], MANY).await, (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_group_under_way() {
        let pace = Pace::default();
        let other = pace.begin();
        let ((waited, there), ()) = tokio::join!(gathered(&pace, 1, &[2, 3], MANY), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(other);
        });
        assert_eq!((waited, there), (Duration::from_millis(1), 6));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_meanwhile_makes_it_enough() {
        let pace = Pace::default();
        let _other = pace.begin();
        let (waited, there) = gathered(&pace, 1, &[ENOUGH / 2, ENOUGH / 2, 1], MANY).await;
        assert_eq!((waited, there), (Duration::ZERO, 2 + ENOUGH));
    }
}
