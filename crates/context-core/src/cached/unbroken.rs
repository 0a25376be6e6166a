//! A future that nobody's going away ends.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs where it is awaited, and goes on in a task of its own if it is dropped before its end. A task from the beginning
/// would cost each write another wake-up of another thread, for the few whose callers go away.
pub(super) struct Unbroken<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Unbroken<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<T: Send + 'static> Future for Unbroken<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that one that panics is not polled again by a task.
        let Some(mut future) = self.0.take() else {
            return Poll::Pending;
        };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(future);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Unbroken<T> {
    fn drop(&mut self) {
        // Without a runtime the process ends, and with it every write under way.
        if let Some(rest) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(rest));
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Unbroken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unbroken")
            .field("is_over", &self.0.is_none())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_answers_where_it_is_awaited() {
        // A test is in no task, and what it awaits is neither.
        let task = Unbroken::new(async { tokio::task::try_id() }).await;
        assert_eq!(task, None);
    }

    #[tokio::test]
    async fn dropped_before_its_end_it_goes_on() {
        let (go, going) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut work = Box::pin(Unbroken::new(async move {
            going.await.unwrap();
            done.send(()).unwrap();
        }));
        assert!(work.as_mut().now_or_never().is_none());
        drop(work);
        go.send(()).unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn dropped_before_it_began_it_is_done_all_the_same() {
        let (done, is_done) = oneshot::channel();
        drop(Unbroken::new(async move { done.send(()).unwrap() }));
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn what_panicked_is_not_begun_again() {
        let (ended, has_ended) = oneshot::channel::<()>();
        let work = tokio::spawn(Unbroken::new(async move {
            assert!(ended.is_closed(), "planted");
        }));
        assert!(work.await.unwrap_err().is_panic());
        assert!(has_ended.await.is_err(), "the future was dropped");
    }
}
