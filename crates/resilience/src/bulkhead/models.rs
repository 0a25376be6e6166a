//! Loom: hand-over of slots against leaving waiters.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::thread;

use super::Bulkhead;

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn a_slot_reaches_the_one_who_waits() {
    explore(|| {
        let bulkhead = Bulkhead::new("loom", 1, 1);
        let held = bulkhead.try_acquire().unwrap();
        let thread = thread::spawn(move || drop(held));
        // B2: a lost wake-up would be a deadlock, which loom reports.
        drop(block_on(bulkhead.acquire()).unwrap());
        thread.join().unwrap();
        assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0), "B1");
    });
}

#[test]
fn a_slot_given_to_one_who_leaves_is_not_lost() {
    explore(|| {
        let bulkhead = Bulkhead::new("loom", 1, 1);
        let held = bulkhead.try_acquire().unwrap();
        let waiter = {
            let bulkhead = bulkhead.clone();
            thread::spawn(move || {
                let mut acquire = pin!(bulkhead.acquire());
                let ready = acquire.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                drop(ready);
            })
        };
        drop(held);
        waiter.join().unwrap();
        assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0), "B1, B3");
    });
}
