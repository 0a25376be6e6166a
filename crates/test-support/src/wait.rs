//! The one place that waits by looking again.
//!
//! Servers and other processes do not tell us when they are done, so somebody has to ask repeatedly. That
//! happens here only, always with a deadline and always about a stated condition. Tests never sleep: what they
//! wait for is a condition too, and [`eventually`] is how they wait for it.

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
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests;
