//! What a window costs, out of a store and out of memory, by the length of the context:
//! `cargo bench -p contextkeep-core --features cache,postgres --bench window`.
//!
//! Medians. Each kind is read in turns over the three lengths, in one run on one machine. Without the feature `postgres`, or
//! with `-- embedded`, only the embedded store.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

use std::sync::Arc;
use std::time::Duration;

use contextkeep_cache::Cache;
use contextkeep_core::cached::{CACHE_NAME, CachedStore, HeldLimits};
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::session::{Consistency, Session, Token};
use contextkeep_core::settings::{EmbeddedSettings, LimitSettings};
use contextkeep_core::{
    AppendRequest, ContextId, ContextKey, ContextManager, ContextStore, NewContext, NewItem,
    OptimizedContextManager, StandardContextManager, SystemClock, TenantId, WindowRequest,
};
use tokio::time::Instant;

const SAMPLES: usize = 300;
const LENGTHS: [usize; 3] = [100, 1000, 10_000];
/// The budget of the windows, in tokens.
const BUDGET: u64 = 8000;

fn key(items: usize) -> ContextKey {
    let id = ContextId::parse(&format!("c{items}")).unwrap();
    ContextKey::new(TenantId::parse("bench").unwrap(), id)
}

/// About a hundred tokens and half a kilobyte, as a turn of a conversation is.
fn item(number: usize) -> NewItem {
    let text = "I would like to change my flight from New York to Seattle on the 20th of May. ".repeat(5);
    let role = if number.is_multiple_of(2) {
        "user"
    } else {
        "assistant"
    };
    let body = format!(r#"{{"role":"{role}","content":"{number} {text}"}}"#);
    NewItem::parse(&body, 1 << 20).unwrap()
}

async fn append(manager: &dyn ContextManager, key: &ContextKey, items: Vec<NewItem>) {
    let request = AppendRequest {
        items,
        expected: None,
        idempotency_key: None,
    };
    in_session(manager.append(key, request)).await.unwrap();
}

async fn in_session<F: Future>(work: F) -> F::Output {
    Session::new(Consistency::Session, Token::default())
        .scope(work)
        .await
}

async fn fill(manager: &dyn ContextManager) {
    for length in LENGTHS {
        let key = key(length);
        let new = NewContext::of_agent("bench").with_id(key.id.clone());
        manager.create(&key.tenant, new).await.unwrap();
        let all: Vec<usize> = (0..length).collect();
        for chunk in all.chunks(1000) {
            append(manager, &key, chunk.iter().map(|number| item(*number)).collect()).await;
        }
    }
}

/// Median times of windows over the lengths; with an append before each one if `appends`.
async fn windows(manager: &dyn ContextManager, summary: bool, appends: bool) -> [Duration; LENGTHS.len()] {
    let request = WindowRequest {
        max_tokens: Some(BUDGET),
        summary,
        ..WindowRequest::default()
    };
    // The summary of a long context is made in the background, once.
    for length in LENGTHS {
        for _ in 0..1000 {
            let window = in_session(manager.window(&key(length), request)).await.unwrap();
            if window.value.summary.is_some() == summary {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut took: [Vec<Duration>; LENGTHS.len()] = Default::default();
    for sample in 0..=SAMPLES {
        for (samples, length) in took.iter_mut().zip(LENGTHS) {
            let key = key(length);
            if appends {
                append(manager, &key, vec![item(sample)]).await;
            }
            let begun = Instant::now();
            let window = in_session(manager.window(&key, request)).await.unwrap();
            let elapsed = begun.elapsed();
            assert_eq!(
                window.value.summary.is_some(),
                summary,
                "{:?}",
                window.value.reasons
            );
            // The first one fills what is held, and makes the summary.
            if sample > 0 {
                samples.push(elapsed);
            }
        }
    }
    took.map(|mut samples| {
        samples.sort();
        samples[samples.len() / 2]
    })
}

async fn measure(name: &str, store: Arc<dyn ContextStore>) {
    let standard = StandardContextManager::new(store.clone(), LimitSettings::default());
    let cache = Cache::builder(CACHE_NAME).build().unwrap();
    let limits = HeldLimits {
        contexts: 1000,
        bytes: 256 << 20,
        context_bytes: 16 << 20,
        cold_percent: 30,
    };
    let cached = CachedStore::new(store, cache, Some(limits), Arc::new(SystemClock));
    let optimized = OptimizedContextManager::new(cached, LimitSettings::default());
    fill(&optimized).await;
    let rows: [(&str, &dyn ContextManager, bool, bool); 5] = [
        ("store", &standard, false, false),
        ("store, summary", &standard, true, false),
        ("memory, as before", &optimized, false, false),
        ("memory, after an append", &optimized, false, true),
        ("memory, summary", &optimized, true, false),
    ];
    for (row, manager, summary, appends) in rows {
        let [a, b, c] = windows(manager, summary, appends).await;
        println!("{name:9} {row:24} {a:>10.1?} {b:>10.1?} {c:>10.1?}");
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    println!(
        "{:34} {:>10} {:>10} {:>10}",
        "window of 8,000 tokens out of", "100", "1,000", "10,000 items"
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        ..EmbeddedSettings::default()
    };
    let store = Arc::new(EmbeddedStore::open(&settings, Arc::new(SystemClock)).unwrap());
    runtime.block_on(measure("embedded", store.clone()));
    store.close();
    #[cfg(feature = "postgres")]
    if !std::env::args().any(|argument| argument == "embedded") {
        postgres(&runtime);
    }
}

/// A server of its own on this machine, over a socket of TCP.
#[cfg(feature = "postgres")]
fn postgres(runtime: &tokio::runtime::Runtime) {
    use contextkeep_core::postgres::PgContextStore;
    use contextkeep_core::settings::DatabaseSettings;

    let cluster = contextkeep_test_support::PgCluster::builder()
        .durable(true)
        .start()
        .unwrap();
    runtime.block_on(async {
        let settings = DatabaseSettings {
            dsn: Some(cluster.primary().dsn().into()),
            ..DatabaseSettings::default()
        };
        let store = PgContextStore::new(&settings.into(), Arc::new(SystemClock)).unwrap();
        store.prepare().await.unwrap();
        measure("postgres", Arc::new(store)).await;
    });
}
