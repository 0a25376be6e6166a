//! N2: a hit against a raw `quick_cache` get of an `Arc`, in one run: `cargo bench -p contextkeep-cache --bench hit`.
//!
//! Rounds of the two alternate; the median of the ratios is what counts. Fails when a hit allocates.
#![expect(clippy::print_stdout, reason = "a report for people is its output")]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use contextkeep_cache::{Cache, Clock, Put, Read, TokioClock, Version};
use quick_cache::sync::Cache as Raw;

const KEYS: usize = 1000;
const GETS: usize = 200_000;
const ROUNDS: usize = 41;

/// Nanoseconds of a run.
fn time(run: impl FnOnce()) -> f64 {
    let start = TokioClock.now();
    run();
    TokioClock.now().since(start).as_secs_f64() * 1e9
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("context-{key:08}")).collect();
    let value = Bytes::from(vec![7_u8; 256]);
    let raw: Raw<String, Arc<Bytes>> = Raw::new(10_000);
    let cache = Cache::builder("bench").build().expect("it is a good description");
    for key in &keys {
        raw.insert(key.clone(), Arc::new(value.clone()));
        cache
            .put(Put::value(key.as_str(), Version::new(1), value.clone()))
            .await
            .expect("no level is down");
    }
    let read = Read::new().floor(Version::new(1));
    let run_raw = || {
        for key in keys.iter().cycle().take(GETS) {
            black_box(raw.get(black_box(key.as_str())));
        }
    };
    let run_ours = || {
        for key in keys.iter().cycle().take(GETS) {
            black_box(cache.get(black_box(key.as_str()), &read));
        }
    };
    run_raw();
    run_ours();
    let (mut theirs, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (time(run_raw), time(run_ours));
        theirs.push(a);
        ours.push(b);
        ratios.push(a / b);
    }
    let each = |times| median(times) / f64::from(u32::try_from(GETS).unwrap_or(u32::MAX));
    println!("raw quick_cache get of an Arc  {:6.1} ns", each(theirs));
    println!("hit, floor checked             {:6.1} ns", each(ours));
    println!("ratio (median of {ROUNDS})          {:6.2}", median(ratios));
    let allocations = allocation_counter::measure(run_ours).count_total;
    println!("allocations in {GETS} hits   {allocations:6}");
    if allocations == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
