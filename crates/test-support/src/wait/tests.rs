use std::pin::pin;
use std::task::{Context, Wake};

use super::*;

/// The smallest executor: the thread parks until it is woken.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_condition_that_holds_is_seen_at_the_first_look() {
    let mut looks = 0;
    let value = until("nothing", Duration::ZERO, || {
        looks += 1;
        Ok(Look::Done(7))
    });
    assert_eq!(value.unwrap(), 7);
    assert_eq!(looks, 1);
}

#[test]
fn a_condition_that_comes_true_later_is_seen() {
    let mut looks = 0;
    let value = eventually("the third look", Duration::from_secs(30), || {
        looks += 1;
        (looks == 3).then_some(looks)
    });
    assert_eq!(value, 3);
}

#[test]
fn the_deadline_names_the_condition_and_what_was_seen_last() {
    let error = until::<()>("the moon", Duration::from_millis(5), || {
        Ok(Look::NotYet("clouds".to_owned()))
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "gave up after 5ms waiting for the moon; last seen: clouds"
    );
}

#[test]
fn an_error_ends_the_wait_at_once() {
    let mut looks = 0;
    let error = until::<()>("nothing", Duration::from_secs(30), || {
        looks += 1;
        Err(Error::State("broken".to_owned()))
    });
    assert_eq!(error.unwrap_err().to_string(), "broken");
    assert_eq!(looks, 1);
}

#[test]
#[should_panic(expected = "waiting for a value that never comes")]
fn a_test_that_waits_in_vain_says_for_what() {
    eventually::<()>("a value that never comes", Duration::ZERO, || None);
}

#[test]
fn an_awaited_condition_that_comes_true_later_is_seen() {
    let mut looks = 0;
    let value = block_on(eventually_async(
        "the third look",
        Duration::from_secs(30),
        async || {
            looks += 1;
            (looks == 3).then_some(looks)
        },
    ));
    assert_eq!(value, 3);
}

#[test]
#[should_panic(expected = "waiting for a value that never comes")]
fn an_awaited_condition_that_never_holds_says_what_it_was() {
    block_on(eventually_async::<()>(
        "a value that never comes",
        Duration::ZERO,
        async || None,
    ));
}
