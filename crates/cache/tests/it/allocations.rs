//! N2: the hit path allocates nothing.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use contextkeep_cache::{Cache, Policy, Put, Read};

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

/// Bytes that stay allocated for an entry of a full first level, index and all.
fn bytes_an_entry(entries: u32, key: usize, value: usize) -> f64 {
    let cache = Cache::builder("weighed")
        .max_entries(entries.into())
        .build()
        .unwrap();
    let weighed = allocation_counter::measure(|| {
        for number in 0..entries {
            // Half of what fits, so that none is evicted.
            if number % 2 == 0 {
                let name = format!("{number:0key$}");
                let mut put = pin!(cache.put(Put::value(name, v(1), vec![0; value])));
                let polled = put.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Ready(Ok(_))));
            }
        }
    });
    let held = u32::try_from(cache.stats().entries).unwrap();
    assert_eq!(held, entries / 2);
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let bytes = weighed.bytes_current as f64;
    bytes / f64::from(held)
}

#[tokio::test]
async fn an_entry_takes_no_more_than_it_is_accounted_with() {
    for (key, value) in [(16, 0), (16, 256), (40, 1024)] {
        let bytes = bytes_an_entry(20_000, key, value);
        println!("key of {key}, value of {value}: {bytes:.0} bytes an entry");
        let formula = u32::try_from(352 + key + value).unwrap();
        assert!(bytes <= f64::from(formula), "{bytes} over {formula}");
    }
}
