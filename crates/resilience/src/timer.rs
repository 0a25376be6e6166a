//! Timers that are not armed until they are needed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Sleep;

use crate::deadline::{Deadline, enter};

/// Where a timer would go. The caller pins it, so that a limit costs no future of its own.
pub(crate) type Timer = Option<Sleep>;

/// The future's output, or `None` once it has been pending for as long as `limit` says, if it says so.
///
/// The future is polled before the limit is asked for and before a timer exists: one that is ready at once
/// costs neither. It is borrowed, because moving a large future costs more than polling it.
pub(crate) fn within<F: Future>(
    limit: impl Fn() -> Option<Duration>,
    future: Pin<&mut F>,
    timer: Pin<&mut Timer>,
) -> impl Future<Output = Option<F::Output>> {
    within_scope(None, limit, future, timer)
}

/// The same, each poll of the future under a deadline that it can ask for.
pub(crate) fn within_scope<F: Future>(
    scope: Option<Deadline>,
    limit: impl Fn() -> Option<Duration>,
    mut future: Pin<&mut F>,
    mut timer: Pin<&mut Timer>,
) -> impl Future<Output = Option<F::Output>> {
    poll_fn(move |context| {
        let scope = scope.map(enter);
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        drop(scope);
        if timer.is_none() {
            timer.set(limit().map(tokio::time::sleep));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
}
