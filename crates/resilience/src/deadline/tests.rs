use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use super::{Deadline, scope};
use crate::{Clock, ManualClock};

const SECOND: Duration = Duration::from_secs(1);

fn poll_once<F: Future>(future: F) -> std::task::Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn what_remains_shrinks_and_ends() {
    let clock = ManualClock::new();
    let deadline = Deadline::within(2 * SECOND, &clock);
    clock.advance(SECOND);
    assert_eq!(deadline.remaining(&clock), Some(SECOND));
    clock.advance(SECOND);
    assert_eq!(deadline.remaining(&clock), None);
    assert_eq!(
        Deadline::within(Duration::MAX, &clock)
            .remaining(&clock)
            .unwrap()
            .as_secs(),
        u64::MAX / 1_000_000_000 - 2
    );
}

#[test]
fn an_inner_scope_only_shortens() {
    let clock = ManualClock::new();
    let at = |seconds: u32| Deadline::at(clock.now().after(SECOND * seconds));
    let seen = poll_once(scope(at(5), async {
        let shorter = scope(at(3), async { Deadline::current() }).await;
        let longer = scope(at(9), async { Deadline::current() }).await;
        (shorter, longer, Deadline::current())
    }));
    assert_eq!(
        seen,
        std::task::Poll::Ready((Some(at(3)), Some(at(5)), Some(at(5))))
    );
    assert_eq!(Deadline::current(), None);
}

#[test]
fn a_pending_scope_leaves_nothing_behind_on_the_thread() {
    let deadline = Deadline::at(crate::Nanos::from_nanos(1));
    assert!(poll_once(scope(deadline, std::future::pending::<()>())).is_pending());
    assert_eq!(Deadline::current(), None);
}
