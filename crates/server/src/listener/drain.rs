//! Telling connections that the server drains.
//!
//! A connection looks at a flag each time it has something to do. To be woken when it has not, it leaves its task's waker
//! once: to ask anew at every turn, as a select does, costs a request as much as its timer.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;

/// Whether the server drains.
#[derive(Debug, Default)]
pub(super) struct Drain {
    has_begun: AtomicBool,
    news: Notify,
}

/// A connection that can be asked to end after the request that it serves.
pub(super) trait Ends: Future {
    fn end_soon(self: Pin<&mut Self>);
}

impl Drain {
    /// From here on every connection ends as soon as it may.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Sees a connection through to its end. To be the whole of a task, or at least its waker's only owner: the waker of
    /// the first turn has to be good for all of them.
    pub(super) async fn see_through<C: Ends>(&self, connection: C) -> C::Output {
        let mut connection = pin!(connection);
        // Made before the flag is looked at, so that a beginning in between is noticed by one or the other.
        let mut news = pin!(self.news.notified());
        let (mut is_waiting, mut is_told) = (false, false);
        std::future::poll_fn(|context| {
            if !is_told && self.is_over(&mut is_waiting, news.as_mut(), context) {
                is_told = true;
                connection.as_mut().end_soon();
            }
            connection.as_mut().poll(context)
        })
        .await
    }

    fn is_over(
        &self,
        is_waiting: &mut bool,
        news: Pin<&mut impl Future<Output = ()>>,
        context: &mut Context<'_>,
    ) -> bool {
        if self.has_begun.load(Ordering::Acquire) {
            return true;
        }
        if *is_waiting {
            return false;
        }
        *is_waiting = true;
        matches!(news.poll(context), Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    /// Ends when it is told, or with what it does.
    struct Connection {
        work: oneshot::Receiver<()>,
        is_told: bool,
    }

    impl Future for Connection {
        type Output = &'static str;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<&'static str> {
            if self.is_told {
                return Poll::Ready("told");
            }
            Pin::new(&mut self.work).poll(context).map(|_| "done")
        }
    }

    impl Ends for Connection {
        fn end_soon(mut self: Pin<&mut Self>) {
            assert!(!std::mem::replace(&mut self.is_told, true), "told twice");
        }
    }

    fn connection() -> (oneshot::Sender<()>, Connection) {
        let (work, works) = oneshot::channel();
        let connection = Connection {
            work: works,
            is_told: false,
        };
        (work, connection)
    }

    async fn outcome(drain: &Arc<Drain>, connection: Connection) -> tokio::task::JoinHandle<&'static str> {
        let drain = drain.clone();
        let task = tokio::spawn(async move { drain.see_through(connection).await });
        tokio::task::yield_now().await;
        task
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_idle_connection_is_woken_and_told() {
        let drain = Arc::new(Drain::default());
        let (_work, connection) = connection();
        let task = outcome(&drain, connection).await;
        drain.begin();
        assert_eq!(tokio::time::timeout(SOON, task).await.unwrap().unwrap(), "told");
    }

    #[tokio::test]
    async fn a_connection_that_comes_later_is_told_at_once() {
        let drain = Arc::new(Drain::default());
        drain.begin();
        let (_work, connection) = connection();
        let task = outcome(&drain, connection).await;
        assert_eq!(tokio::time::timeout(SOON, task).await.unwrap().unwrap(), "told");
    }

    #[tokio::test]
    async fn a_connection_ends_by_itself_as_well() {
        let drain = Arc::new(Drain::default());
        let (work, connection) = connection();
        let task = outcome(&drain, connection).await;
        work.send(()).unwrap();
        assert_eq!(tokio::time::timeout(SOON, task).await.unwrap().unwrap(), "done");
    }

    /// However the beginning and a connection's first turns fall together.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_beginning_is_missed() {
        for _ in 0..2000 {
            let drain = Arc::new(Drain::default());
            let (_work, connection) = connection();
            let task = {
                let drain = drain.clone();
                tokio::spawn(async move { drain.see_through(connection).await })
            };
            drain.begin();
            assert_eq!(tokio::time::timeout(SOON, task).await.unwrap().unwrap(), "told");
        }
    }
}
