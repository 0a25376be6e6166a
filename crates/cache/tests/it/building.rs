//! Descriptions, and values instead of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use contextkeep_cache::{Cache, Codec, Error, LoadError, Policy, Put, Read, Typed};

use crate::source::{cache, ms, v};

#[tokio::test]
async fn all_problems_are_reported_together() {
    let mut policy = Policy::default();
    policy.ttl = ms(0);
    policy.jitter = f64::NAN;
    policy.max_loads = 0;
    let built = Cache::builder("wrong")
        .max_entries(0)
        .max_item(1 << 40)
        .bound(ms(1))
        .partitions(0)
        .policy(policy)
        .build();
    let error = built.unwrap_err();
    let what: Vec<_> = error.problems().iter().map(|problem| problem.what).collect();
    let expected = [
        "max_entries",
        "max_item",
        "policy.ttl",
        "policy.jitter",
        "policy.max_loads",
        "partitions",
        "bound",
    ];
    assert_eq!(what, expected);
    assert!(error.to_string().contains("partitions must not be zero; bound"));
}

#[test]
fn a_runtime_is_needed() {
    assert!(
        Cache::builder("lost")
            .build()
            .unwrap_err()
            .to_string()
            .contains("tokio")
    );
}

#[derive(Debug, Default)]
struct Number {
    decoded: Arc<AtomicU64>,
}

impl Codec<u64> for Number {
    fn encode(&self, value: &u64) -> Result<Bytes, LoadError> {
        Ok(value.to_string().into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<u64, LoadError> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(bytes);
        text.parse().map_err(|error| Arc::new(error) as LoadError)
    }
}

#[tokio::test]
async fn a_typed_hit_decodes_once() {
    let codec = Number::default();
    let decoded = Arc::clone(&codec.decoded);
    let numbers = Typed::new(cache(Policy::default()), codec);
    numbers.put("k", v(1), &42).await.unwrap();
    for _ in 0..3 {
        let found = numbers.get("k", &Read::new()).unwrap().unwrap();
        assert_eq!((*found.value.unwrap(), found.version), (42, v(1)));
    }
    assert_eq!(decoded.load(Ordering::Relaxed), 1);
    numbers
        .cache()
        .put(Put::value("k", v(2), "no number"))
        .await
        .unwrap();
    assert!(matches!(numbers.get("k", &Read::new()), Err(Error::Decode(_))));
}
