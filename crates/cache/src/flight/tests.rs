use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::{Arc, Flight, Flights, Full, Key, Nanos, Version};

fn table(most: usize) -> Flights<u32> {
    Flights::new(4, most)
}

fn begin(table: &Flights<u32>, key: &Key, need: u64) -> Result<Arc<Flight<u32>>, Full> {
    table
        .lock(key, 0)
        .begin(Version::new(need), Nanos::ZERO, 1, false)
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn every_waiter_hears_of_the_first_outcome() {
    let (table, key) = (table(1), Key::from("k"));
    let flight = begin(&table, &key, 0).unwrap();
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(flight.wait())).collect();
    for wait in &mut waits {
        assert!(poll(wait.as_mut()).is_pending());
    }
    drop(waits.pop());
    flight.land(7);
    flight.land(8);
    for wait in &mut waits {
        assert_eq!(poll(wait.as_mut()), Poll::Ready(7));
    }
    assert_eq!(
        poll(pin!(flight.wait())),
        Poll::Ready(7),
        "even one that comes late"
    );
}

#[test]
fn a_change_raises_the_current_flight_only() {
    let (table, key) = (table(2), Key::from("k"));
    let old = begin(&table, &key, 1).unwrap();
    let new = begin(&table, &key, 2).unwrap();
    assert!(table.lock(&key, 0).raise(Version::new(5)));
    assert_eq!((old.need().get(), new.need().get()), (1, 5));
    let mut locked = table.lock(&key, 0);
    assert!(!locked.leave(&old), "F2: it has no place to leave");
    assert!(locked.flight().is_some_and(|current| Arc::ptr_eq(current, &new)));
    assert!(locked.leave(&new) && !locked.leave(&new));
    assert!(locked.flight().is_none() && !locked.raise(Version::new(6)));
}

#[test]
fn flights_are_counted_until_they_land() {
    let (table, key) = (table(1), Key::from("k"));
    let flight = begin(&table, &key, 0).unwrap();
    assert_eq!(begin(&table, &key, 1).unwrap_err(), Full);
    flight.land(1);
    assert_eq!(table.live(), 0);
    assert!(begin(&table, &key, 1).is_ok());
}
