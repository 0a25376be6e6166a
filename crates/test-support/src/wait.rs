//! The one place that waits by looking again.
//!
//! Servers and other processes do not tell us when they are done, so somebody has to ask repeatedly. That
//! happens here only, always with a deadline and always about a stated condition. Tests never sleep: what they
//! wait for is a condition too, and [`eventually`] is how they wait for it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Pause after the first look; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What one look saw.
#[derive(Debug)]
pub enum Look<T> {
    /// The condition holds.
    Done(T),
    /// Not yet; the text (may be empty) goes into the error when time runs out.
    NotYet(String),
}

impl<T> Look<T> {
    /// Not yet, and there is nothing to tell about it.
    pub const fn not_yet() -> Self {
        Self::NotYet(String::new())
    }
}

impl Look<()> {
    /// Done or not, with nothing to tell.
    pub const fn when(condition: bool) -> Self {
        if condition {
            Self::Done(())
        } else {
            Self::not_yet()
        }
    }
}

/// Looks until `look` is done or fails, at most for `timeout`.
///
/// The first look happens at once, the last one after the deadline, so a condition that comes true while this
/// thread is not running is still seen. `what` completes the sentence "waiting for …".
///
/// # Errors
///
/// [`Error::TimedOut`] at the deadline, or the first error that `look` returns.
pub fn until<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let started = now();
    let mut pause = FIRST_PAUSE;
    loop {
        let late = now().duration_since(started) >= timeout;
        match look()? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(last) if late => {
                let last = Some(last).filter(|last| !last.is_empty());
                return Err(Error::TimedOut {
                    what: what.to_owned(),
                    after: timeout,
                    last,
                });
            }
            Look::NotYet(_) => nap(pause),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits in a test until `probe` returns a value, and panics with `what` at the deadline.
///
/// # Panics
///
/// When `probe` still returns `None` after `timeout`.
#[track_caller]
#[expect(clippy::panic, reason = "an assertion for tests")]
pub fn eventually<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let seen = until(what, timeout, || {
        Ok(probe().map_or_else(Look::not_yet, Look::Done))
    });
    match seen {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// As [`eventually`], for a probe that has to be awaited. Works in any runtime, paused time included: the pauses
/// are real ones, taken by a thread of their own, because what is waited for lives in real time.
///
/// Dropping the future is safe at any point; at most one thread stays until its pause (50 ms) is over.
///
/// # Panics
///
/// When `probe` still returns `None` after `timeout`. A probe that never returns is not interrupted.
pub async fn eventually_async<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = now();
    let mut pause = FIRST_PAUSE;
    loop {
        let late = now().duration_since(started) >= timeout;
        if let Some(value) = probe().await {
            return value;
        }
        assert!(!late, "gave up after {timeout:?} waiting for {what}");
        nap_async(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A pause that leaves the executor's thread free.
async fn nap_async(pause: Duration) {
    #[derive(Default)]
    struct Shared {
        over: bool,
        waker: Option<Waker>,
    }
    let shared = Arc::new(Mutex::new(Shared::default()));
    let napping = Arc::clone(&shared);
    thread::spawn(move || {
        nap(pause);
        let mut shared = napping.lock().unwrap_or_else(PoisonError::into_inner);
        shared.over = true;
        shared.waker.take().map(Waker::wake)
    });
    poll_fn(|context| {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.over {
            return Poll::Ready(());
        }
        shared.waker = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Starts counting; the returned function tells how long ago that was. For messages, never for decisions.
pub fn stopwatch() -> impl Fn() -> Duration {
    let started = now();
    move || now().duration_since(started)
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of real processes are measured on the real clock"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks; see the module's documentation"
)]
fn nap(pause: Duration) {
    thread::sleep(pause);
}

#[cfg(test)]
mod tests;
