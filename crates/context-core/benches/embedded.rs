//! The embedded store in numbers: `cargo bench -p contextkeep-core --bench embedded`.
//!
//! Prints medians and the ratios that the design asks for. Ratios are taken in one run on one machine, the two
//! sides of each alternating, so that a busy machine slows both.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::settings::{EmbeddedSettings, LimitSettings};
use contextkeep_core::{
    AppendRequest, ContextId, ContextKey, ContextManager, ContextStore as _, NewContext, NewItem,
    StandardContextManager, SystemClock, TenantId, WindowRequest,
};
use tokio::time::Instant;

/// Samples of each latency.
const SAMPLES: usize = 200;
/// Samples that need a store of their own.
const COLD_SAMPLES: usize = 30;
/// Appends of each throughput figure.
const APPENDS: usize = 2000;
/// The budget of the windows, in tokens.
const BUDGET: u64 = 8000;

struct Bench {
    store: Arc<EmbeddedStore>,
    manager: StandardContextManager,
}

impl Bench {
    fn open(folder: &Path) -> Self {
        let settings = EmbeddedSettings {
            path: folder.to_owned(),
            ..EmbeddedSettings::default()
        };
        let store = Arc::new(EmbeddedStore::open(&settings, Arc::new(SystemClock)).unwrap());
        let manager = StandardContextManager::new(store.clone(), LimitSettings::default());
        Self { store, manager }
    }

    /// Creates a context of `items` items.
    async fn fill(&self, id: &str, items: usize) {
        let new = NewContext::of_agent("bench").with_id(ContextId::parse(id).unwrap());
        self.manager.create(&tenant(), new).await.unwrap();
        let all: Vec<usize> = (0..items).collect();
        for chunk in all.chunks(1000) {
            self.append(id, chunk.iter().map(|n| item(*n)).collect()).await;
        }
    }

    async fn append(&self, id: &str, items: Vec<NewItem>) {
        let request = AppendRequest {
            items,
            expected: None,
            idempotency_key: None,
        };
        self.manager.append(&key(id), request).await.unwrap();
    }

    async fn time_append(&self, id: &str) -> Duration {
        let item = item(7);
        let begun = Instant::now();
        self.append(id, vec![item]).await;
        begun.elapsed()
    }

    async fn time_window(&self, id: &str) -> Duration {
        let request = WindowRequest {
            max_tokens: Some(BUDGET),
            cut: contextkeep_core::window::Cut::Tight,
            ..WindowRequest::default()
        };
        let begun = Instant::now();
        let window = self.manager.window(&key(id), request).await.unwrap();
        let took = begun.elapsed();
        assert!(!window.value.items.is_empty());
        took
    }
}

fn tenant() -> TenantId {
    TenantId::parse("bench").unwrap()
}

fn key(id: &str) -> ContextKey {
    ContextKey::new(tenant(), ContextId::parse(id).unwrap())
}

/// About a hundred tokens and half a kilobyte, as a turn of a conversation is.
fn item(number: usize) -> NewItem {
    let text = "I would like to change my flight from New York to Seattle on the 20th of May. ".repeat(5);
    let body = format!(r#"{{"role":"user","content":"{number} {text}"}}"#);
    NewItem::parse(&body, ByteSize::mib(1).as_u64()).unwrap()
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

async fn appends(bench: &Bench) {
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        // A new small one each time, or it would not stay small.
        let id = format!("small-{sample}");
        bench.fill(&id, 10).await;
        small.push(bench.time_append(&id).await);
        large.push(bench.time_append("10000").await);
    }
    let (small, large) = (median(small), median(large));
    println!("append at 10 items       {small:>10.1?}");
    println!(
        "append at 10,000 items   {large:>10.1?}   ratio {:.2} (N5: 1.10)",
        ratio(large, small)
    );
}

/// One append after the other, the search index included: what the process hands to the system.
async fn written(bench: &Bench) {
    bench.store.settle().await.unwrap();
    let before = bytes_written();
    for _ in 0..SAMPLES {
        bench.time_append("10000").await;
    }
    bench.store.settle().await.unwrap();
    if let (Some(before), Some(after)) = (before, bytes_written()) {
        let payload = item(7).body.len() as u64;
        let each = (after - before) / SAMPLES as u64;
        println!(
            "bytes written an append  {each:>10}   payload {payload} (N5: {})",
            payload * 5 / 2 + 1024
        );
    }
}

/// Bytes that this process has written to files, where the system counts them.
fn bytes_written() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines()
        .find_map(|line| line.strip_prefix("wchar: ")?.parse().ok())
}

async fn warm_windows(bench: &Bench) {
    let mut took: [Vec<Duration>; 3] = Default::default();
    for _ in 0..SAMPLES {
        for (samples, id) in took.iter_mut().zip(["10", "100", "10000"]) {
            samples.push(bench.time_window(id).await);
        }
    }
    let [ten, hundred, all] = took.map(median);
    println!("window at 10 items       {ten:>10.1?}   warm");
    println!("window at 100 items      {hundred:>10.1?}   warm");
    println!(
        "window at 10,000 items   {all:>10.1?}   warm, ratio {:.2} to 100 items",
        ratio(all, hundred)
    );
}

/// Each with a store that was just opened: nothing in the store's own cache, the system's cache warm.
async fn cold_windows(folder: &Path) {
    let (mut hundred, mut all) = (Vec::new(), Vec::new());
    for _ in 0..COLD_SAMPLES {
        hundred.push(Bench::open(folder).time_window("100").await);
        all.push(Bench::open(folder).time_window("10000").await);
    }
    let (hundred, all) = (median(hundred), median(all));
    println!("window at 100 items      {hundred:>10.1?}   cold");
    println!(
        "window at 10,000 items   {all:>10.1?}   cold, ratio {:.2} (N9: 1.5)",
        ratio(all, hundred)
    );
}

/// Appends of one item each, a second, by so many writers at once.
async fn throughput(bench: &Arc<Bench>, writers: usize) -> f64 {
    for writer in 0..writers {
        bench.fill(&format!("w{writers}-{writer}"), 0).await;
    }
    let begun = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (bench, id) = (bench.clone(), format!("w{writers}-{writer}"));
            tokio::spawn(async move {
                for n in 0..APPENDS / writers {
                    bench.append(&id, vec![item(n)]).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let appends = u32::try_from(APPENDS / writers * writers).unwrap();
    f64::from(appends) / begun.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bench = Arc::new(Bench::open(folder.path()));
    for items in [10, 100, 10_000] {
        bench.fill(&items.to_string(), items).await;
    }
    bench.store.settle().await.unwrap();
    warm_windows(&bench).await;
    cold_windows(folder.path()).await;
    appends(&bench).await;
    written(&bench).await;
    let one = throughput(&bench, 1).await;
    println!("group commit, 1 writer   {one:>10.0} appends/s");
    for writers in [16, 64] {
        let many = throughput(&bench, writers).await;
        println!(
            "group commit, {writers} writers {many:>10.0} appends/s, {:.1} times one",
            many / one
        );
    }
    bench.store.close();
}
