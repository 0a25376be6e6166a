//! N2: the hit path allocates nothing.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use contextkeep_cache::{Policy, Put, Read};

use crate::source::{Source, cache, v};

#[tokio::test]
async fn a_hit_allocates_nothing() {
    let cache = cache(Policy::default());
    cache
        .put(Put::value("k", v(1), "one").tags(["tag"]))
        .await
        .unwrap();
    let read = Read::new().floor(v(1));
    let hit = allocation_counter::measure(|| drop(black_box(cache.get("k", &read).unwrap())));
    assert_eq!(hit.count_total, 0);
    let loader = Source::new().loader();
    let awaited = allocation_counter::measure(|| {
        let read = pin!(cache.get_or_load("k", &read, &loader));
        let polled = read.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(_))));
    });
    assert_eq!(awaited.count_total, 0);
    let miss = allocation_counter::measure(|| assert!(cache.get("other", &read).is_none()));
    assert_eq!(miss.count_total, 0);
}
