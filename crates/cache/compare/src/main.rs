//! Hit ratios of this project's first level, of plain `quick_cache`, which it is made of, and of `moka`, on the same
//! traces with room for the same number of entries.
//!
//! Informational: nothing depends on it and no test runs it. What it prints is the table in `docs/BENCHMARKS.md`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contextkeep_cache::{Cache, Loaded, Read, Version, Wanted, loader};

const KEYS: usize = 100_000;
const REQUESTS: usize = 1_000_000;

/// splitmix64.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks by Zipf's law, exponent 0.99, by inversion of the cumulated weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=KEYS)
            .map(|rank| {
                sum += (rank as f64).powf(-0.99);
                sum
            })
            .collect();
        cumulated.iter_mut().for_each(|weight| *weight /= sum);
        Self(cumulated)
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.0.partition_point(|weight| *weight < at).min(KEYS - 1)
    }
}

fn zipf() -> Vec<usize> {
    let (zipf, mut random) = (Zipf::new(), Random(1));
    (0..REQUESTS).map(|_| zipf.draw(&mut random)).collect()
}

/// Every 20,000 requests by Zipf, a scan over 20,000 keys in order, each time other ones that nobody else asks for.
fn scans() -> Vec<usize> {
    let (zipf, mut random) = (Zipf::new(), Random(2));
    let mut next = KEYS;
    let mut trace = Vec::with_capacity(REQUESTS);
    while trace.len() < REQUESTS {
        trace.extend((0..20_000).map(|_| zipf.draw(&mut random)));
        trace.extend(next..next + 20_000);
        next += 20_000;
    }
    trace
}

fn plain(trace: &[usize], capacity: usize) -> f64 {
    let cache = quick_cache::sync::Cache::<String, Arc<[u8]>>::new(capacity);
    ratio(trace, |key| {
        let hit = cache.get(key).is_some();
        if !hit {
            cache.insert(key.to_owned(), Arc::from([0_u8; 16]));
        }
        hit
    })
}

fn moka(trace: &[usize], capacity: usize) -> f64 {
    let cache = moka::sync::Cache::<String, Arc<[u8]>>::new(capacity as u64);
    ratio(trace, |key| {
        let hit = cache.get(key).is_some();
        if !hit {
            cache.insert(key.to_owned(), Arc::from([0_u8; 16]));
        }
        hit
    })
}

fn ratio(trace: &[usize], mut hits: impl FnMut(&str) -> bool) -> f64 {
    let count = trace.iter().filter(|key| hits(&format!("context-{key}"))).count();
    count as f64 / trace.len() as f64
}

async fn ours(trace: &[usize], capacity: usize) -> f64 {
    let cache = Cache::builder("compared")
        .max_entries(capacity as u64)
        .build()
        .expect("it is a good description");
    let loads = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&loads);
    let loader = loader::one(move |_: Wanted| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Infallible>(Loaded::value(Version::new(1), vec![0; 16])) }
    });
    for key in trace {
        let answer = cache
            .get_or_load(&format!("context-{key}"), &Read::new(), &loader)
            .await;
        answer.expect("the loader never fails");
    }
    1.0 - loads.load(Ordering::Relaxed) as f64 / trace.len() as f64
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("| trace | entries | contextkeep-cache | quick_cache | moka |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, trace) in [
        ("Zipf 0.99 over 100,000 keys", zipf()),
        ("half of it scans", scans()),
    ] {
        for capacity in [1_000, 5_000, 20_000] {
            let (ours, plain, moka) = (
                ours(&trace, capacity).await,
                plain(&trace, capacity),
                moka(&trace, capacity),
            );
            println!(
                "| {name} | {capacity} | {:.2} % | {:.2} % | {:.2} % |",
                ours * 100.0,
                plain * 100.0,
                moka * 100.0
            );
        }
    }
}
