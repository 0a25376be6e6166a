use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::{Acquire, Bulkhead, Queue, Slot};
use crate::{Rejected, Why};

fn poll(acquire: &mut Acquire) -> Poll<Result<Slot, Rejected>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}

fn granted(acquire: &mut Acquire) -> Option<Slot> {
    match poll(acquire) {
        Poll::Ready(slot) => Some(slot.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn more_than_the_limit_is_rejected_at_once() {
    let bulkhead = Bulkhead::new("b", 2, 0);
    let _held = [bulkhead.try_acquire().unwrap(), bulkhead.try_acquire().unwrap()];
    assert_eq!(bulkhead.try_acquire().unwrap_err().why, Why::BulkheadFull);
    assert!(
        matches!(poll(&mut bulkhead.acquire()), Poll::Ready(Err(rejected)) if rejected.why == Why::BulkheadFull)
    );
}

#[test]
fn the_queue_is_bounded() {
    let bulkhead = Bulkhead::new("b", 1, 2); // B4
    let _held = bulkhead.try_acquire().unwrap();
    let mut queued = [bulkhead.acquire(), bulkhead.acquire()];
    assert!(queued.iter_mut().all(|acquire| poll(acquire).is_pending()));
    assert!(matches!(poll(&mut bulkhead.acquire()), Poll::Ready(Err(_))));
    assert_eq!(bulkhead.waiting(), 2);
}

#[test]
fn fifo_serves_the_first_and_lifo_the_last() {
    for (order, expected) in [(Queue::Fifo, [true, false]), (Queue::Lifo, [false, true])] {
        let bulkhead = Bulkhead::with_order("b", 1, 2, order);
        let held = bulkhead.try_acquire().unwrap();
        let mut queued = [bulkhead.acquire(), bulkhead.acquire()];
        assert!(queued.iter_mut().all(|acquire| poll(acquire).is_pending()));
        drop(held);
        let served = queued.each_mut().map(granted);
        assert_eq!(served.each_ref().map(Option::is_some), expected);
    }
}

#[test]
fn a_newcomer_does_not_overtake_the_queue() {
    let bulkhead = Bulkhead::new("b", 1, 1);
    let held = bulkhead.try_acquire().unwrap();
    let mut waiter = bulkhead.acquire();
    assert!(poll(&mut waiter).is_pending());
    drop(held);
    assert!(bulkhead.try_acquire().is_err(), "the slot is the waiter's");
    assert!(granted(&mut waiter).is_some());
}

#[test]
fn an_idle_waiter_that_was_never_polled_holds_nothing() {
    let bulkhead = Bulkhead::new("g", 1, 1); // defect G
    let _idle = bulkhead.acquire();
    assert!(bulkhead.try_acquire().is_ok());
}

#[test]
fn a_slot_on_its_way_to_one_who_leaves_goes_on() {
    let bulkhead = Bulkhead::new("b", 1, 2); // B3
    let held = bulkhead.try_acquire().unwrap();
    let (mut leaver, mut next) = (bulkhead.acquire(), bulkhead.acquire());
    assert!(poll(&mut leaver).is_pending() && poll(&mut next).is_pending());
    drop(held);
    drop(leaver);
    assert!(granted(&mut next).is_some());
}

proptest! {
    #[test]
    fn slots_are_conserved(ops in proptest::collection::vec((0_u8..4, any::<usize>()), 1..200), limit in 1_u32..4, queue in 0_u32..4, lifo: bool) {
        let order = if lifo { Queue::Lifo } else { Queue::Fifo };
        let bulkhead = Bulkhead::with_order("b", limit, queue, order);
        let (mut held, mut waiting) = (Vec::new(), Vec::<Acquire>::new());
        for (op, index) in ops {
            match op {
                0 => held.extend(bulkhead.try_acquire().ok()),
                1 => {
                    let mut acquire = bulkhead.acquire();
                    match poll(&mut acquire) {
                        Poll::Ready(slot) => held.extend(slot.ok()),
                        Poll::Pending => waiting.push(acquire),
                    }
                }
                2 if !held.is_empty() => drop(held.swap_remove(index % held.len())),
                3 if !waiting.is_empty() => drop(waiting.swap_remove(index % waiting.len())),
                _ => {}
            }
            waiting.retain_mut(|acquire| match granted(acquire) {
                Some(slot) => { held.push(slot); false }
                None => true,
            });
            prop_assert_eq!(bulkhead.in_use() as usize, held.len()); // B1
            prop_assert_eq!(bulkhead.waiting() as usize, waiting.len());
            prop_assert!(waiting.is_empty() || bulkhead.in_use() == limit); // B2
            prop_assert!(bulkhead.waiting() <= queue); // B4
        }
    }
}
