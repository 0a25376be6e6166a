//! Timers that are not armed until they are needed.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Sleep;

/// The future's output, or `None` once it has been pending for as long as `limit` says, if it says so.
///
/// The future is polled before the limit is asked for and before a timer exists: one that is ready at once
/// costs neither. It is borrowed, because moving a large future costs more than polling it.
pub(crate) async fn within<F: Future>(
    limit: impl Fn() -> Option<Duration>,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut sleep = pin!(None::<Sleep>);
    let mut asked = false;
    poll_fn(move |context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        if !asked {
            asked = true;
            sleep.set(limit().map(tokio::time::sleep));
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}
