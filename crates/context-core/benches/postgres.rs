//! What the Postgres store costs, beside `pgbench` and beside one JSON document a context that is rewritten.
//!
//! Medians of rounds that take turns, in one run on one server whose commits reach the disk; the ratios are the message (of
//! N4 the median of the rounds' ratios), the absolute figures are this machine's.
//! `cargo bench -p contextkeep-core --features postgres --bench postgres`; with `-- n4`, `-- n5` or `-- n9` only that figure.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench prints, and stops at a surprise"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use contextkeep_core::postgres::PgContextStore;
use contextkeep_core::settings::DatabaseSettings;
use contextkeep_core::store::{Append, ContextStore, TailQuery};
use contextkeep_core::{ContextId, ContextKey, NewContext, NewItem, SystemClock, TenantId, Tokenizer};
use contextkeep_test_support::figures::{median, ratio};
use contextkeep_test_support::{PgCluster, locate};
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

const CLIENTS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const LENGTHS: [u64; 4] = [10, 100, 1000, 10_000];
const SAMPLES: usize = 300;

fn main() {
    let cluster = PgCluster::builder()
        .durable(true)
        .setting("shared_buffers", "512MB")
        .setting("max_wal_size", "4GB")
        .start()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dsn = cluster.primary().dsn();
        let settings = DatabaseSettings {
            dsn: Some(SecretString::from(dsn.clone())),
            ..DatabaseSettings::default()
        };
        let store = PgContextStore::new(&settings.into(), Arc::new(SystemClock)).unwrap();
        store.prepare().await.unwrap();
        let store = Arc::new(store);
        let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
        tokio::spawn(connection);
        let asked: Vec<_> = std::env::args().filter(|arg| arg.starts_with('n')).collect();
        let is_asked = |figure: &str| asked.is_empty() || asked.iter().any(|name| name == figure);
        if is_asked("n4") {
            throughput(&store, &client, &cluster).await;
        }
        if is_asked("n5") {
            lengths(&store, &client).await;
        }
        if is_asked("n9") {
            windows(&store).await;
        }
        store.close().await;
    });
}

/// A kilobyte of JSON.
fn body() -> String {
    let words = "the quick brown fox jumps over the lazy dog ".repeat(22);
    serde_json::json!({"role": "user", "content": words}).to_string()
}

fn items(count: usize) -> Arc<[NewItem]> {
    let mut item = NewItem::parse(&body(), 1 << 20).unwrap();
    item.count(Tokenizer::Estimate);
    vec![item; count].into()
}

fn append(items: &Arc<[NewItem]>) -> Append {
    Append {
        items: items.clone(),
        tokenizer: Tokenizer::Estimate,
        expected: None,
        idempotency: None,
    }
}

fn key(name: &str) -> ContextKey {
    ContextKey::new(TenantId::parse("bench").unwrap(), ContextId::parse(name).unwrap())
}

async fn create(store: &PgContextStore, name: &str, length: u64) -> ContextKey {
    let key = key(name);
    let new = NewContext {
        tokenizer: Some(Tokenizer::Estimate),
        ..NewContext::of_agent("a").with_id(key.id.clone())
    };
    store.create(&key.tenant, new).await.unwrap();
    let mut left = usize::try_from(length).unwrap();
    while left > 0 {
        let count = left.min(500);
        store.append(&key, append(&items(count))).await.unwrap();
        left -= count;
    }
    key
}

/// N4: appends a second at 64 clients, each waiting for its commit, against `pgbench`'s inserts.
async fn throughput(store: &Arc<PgContextStore>, client: &Client, cluster: &PgCluster) {
    client
        .batch_execute("CREATE TABLE inserted (id bigserial PRIMARY KEY, body text NOT NULL)")
        .await
        .unwrap();
    let script = std::env::temp_dir().join(format!("contextkeep-bench-{}.sql", std::process::id()));
    std::fs::write(
        &script,
        format!(
            "INSERT INTO inserted (body) VALUES (repeat('x', {}));\n",
            body().len()
        ),
    )
    .unwrap();
    let mut keys = Vec::new();
    for n in 0..1000 {
        keys.push(create(store, &format!("t{n}"), 0).await);
    }
    let (keys, hot) = (Arc::new(keys), Arc::new(vec![create(store, "hot", 0).await]));
    let (mut inserts, mut spread, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Nobody works off the round before.
        store.settle().await.unwrap();
        inserts.push(pgbench(&script, cluster));
        spread.push(appends(store, &keys).await);
        store.settle().await.unwrap();
        single.push(appends(store, &hot).await);
    }
    drop(std::fs::remove_file(&script));
    let ratios = [ratio(&spread, &inserts), ratio(&single, &inserts)];
    let (inserts, spread, single) = (median(inserts), median(spread), median(single));
    println!(
        "N4: {CLIENTS} clients, items of {} bytes, one commit each",
        body().len()
    );
    println!("    pgbench single-row inserts        {inserts:>9.0} /s");
    println!(
        "    appends to 1,000 contexts         {spread:>9.0} /s   ratio {:.2}",
        ratios[0]
    );
    println!(
        "    appends to one context            {single:>9.0} /s   ratio {:.2}",
        ratios[1]
    );
}

fn pgbench(script: &std::path::Path, cluster: &PgCluster) -> f64 {
    let bin: PathBuf = locate::postgres().unwrap();
    let output = Command::new(bin.join("pgbench"))
        .args(["-n", "-M", "prepared", "-c"])
        .arg(CLIENTS.to_string())
        .args(["-j", "2", "-T"])
        .arg(ROUND.as_secs().to_string())
        .arg("-f")
        .arg(script)
        .arg(cluster.primary().dsn())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = tps.and_then(|rest| rest.split(' ').next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

async fn appends(store: &Arc<PgContextStore>, keys: &Arc<Vec<ContextKey>>) -> f64 {
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (store, keys, over, done) = (store.clone(), keys.clone(), over.clone(), done.clone());
            let items = items(1);
            tokio::spawn(async move {
                let mut at = n * 15;
                while !over.load(Ordering::Relaxed) {
                    at = (at + 641) % keys.len();
                    store.append(&keys[at], append(&items)).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    // Clients that waited past the end are counted, and so is the time that they took.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let done = done.load(Ordering::Relaxed) as f64;
    done / begun.elapsed().as_secs_f64()
}

/// N5: an append at each length, beside a document that is rewritten.
async fn lengths(store: &Arc<PgContextStore>, client: &Client) {
    client
        .batch_execute("CREATE TABLE documents (id bigint PRIMARY KEY, doc jsonb NOT NULL)")
        .await
        .unwrap();
    store.settle().await.unwrap();
    let one = items(1);
    let mut ours = [const { Vec::new() }; LENGTHS.len()];
    let mut keys = Vec::new();
    for length in LENGTHS {
        keys.push(create(store, &format!("n{length}"), length).await);
    }
    store.settle().await.unwrap();
    for _ in 0..SAMPLES {
        for (key, times) in keys.iter().zip(&mut ours) {
            let begun = Instant::now();
            store.append(key, append(&one)).await.unwrap();
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    let ours = ours.map(median);
    // The indexer's own writes are not an append's: it has to be done before and is not waited for after.
    store.settle().await.unwrap();
    let mut wal = Vec::new();
    for _ in 0..ROUNDS {
        let before = position(client).await;
        for _ in 0..20 {
            store.append(&keys[3], append(&one)).await.unwrap();
        }
        wal.push((position(client).await - before) / 20.0);
        store.settle().await.unwrap();
    }
    let mut indexed = Vec::new();
    for _ in 0..ROUNDS {
        let before = position(client).await;
        for _ in 0..20 {
            store.append(&keys[3], append(&one)).await.unwrap();
        }
        store.settle().await.unwrap();
        indexed.push((position(client).await - before) / 20.0);
    }
    println!(
        "N5: one item of {} bytes appended, microseconds and bytes of WAL",
        body().len()
    );
    println!("    items    append   document   its WAL");
    for (index, length) in LENGTHS.into_iter().enumerate() {
        let (time, bytes) = document(client, length).await;
        println!("    {length:>6} {:>8.0} {time:>10.0} {bytes:>9.0}", ours[index]);
    }
    println!(
        "    10,000:10 items {:.2}; WAL an append {:.0} bytes, {:.0} with the search index",
        ours[3] / ours[0],
        median(wal),
        median(indexed)
    );
}

/// One item added to a document of so many: read, changed and written by the client, as such code does.
async fn document(client: &Client, length: u64) -> (f64, f64) {
    let item: serde_json::Value = serde_json::from_str(&body()).unwrap();
    let doc = serde_json::json!({"items": vec![item.clone(); usize::try_from(length).unwrap()]}).to_string();
    let id = i64::try_from(length).unwrap();
    let text = tokio_postgres::types::Type::TEXT;
    let int = tokio_postgres::types::Type::INT8;
    client
        .query_typed(
            "INSERT INTO documents VALUES ($1, $2::text::jsonb)",
            &[(&id, int.clone()), (&doc, text.clone())],
        )
        .await
        .unwrap();
    let samples = if length >= 1000 { 10 } else { 60 };
    let (mut times, before) = (Vec::new(), position(client).await);
    for _ in 0..samples {
        let begun = Instant::now();
        client
            .query_typed(
                "UPDATE documents SET doc = $2::text::jsonb WHERE id = $1",
                &[(&id, int.clone()), (&doc, text.clone())],
            )
            .await
            .unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let bytes = (position(client).await - before) / f64::from(samples);
    (median(times), bytes)
}

async fn position(client: &Client) -> f64 {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";
    client.query_typed(sql, &[]).await.unwrap()[0].get(0)
}

/// N9: a window of 8,000 tokens out of a long context and out of a short one.
async fn windows(store: &Arc<PgContextStore>) {
    let keys = [
        create(store, "w100", 100).await,
        create(store, "w10000", 10_000).await,
    ];
    let query = TailQuery {
        max_tokens: Some(8000),
        reserve: 0,
        items_max: 4096,
        bytes_max: 8 << 20,
    };
    let (mut times, mut sizes) = ([Vec::new(), Vec::new()], [0, 0]);
    for _ in 0..SAMPLES {
        for (index, key) in keys.iter().enumerate() {
            let begun = Instant::now();
            let tail = store.tail(key, query).await.unwrap();
            times[index].push(begun.elapsed().as_secs_f64() * 1e6);
            sizes[index] = tail.run.len();
        }
    }
    assert_eq!(sizes[0], sizes[1]);
    let [short, long] = times.map(median);
    println!("N9: window of 8,000 tokens ({} items), no cache", sizes[0]);
    println!(
        "    of 100 items {short:.0} us, of 10,000 items {long:.0} us, ratio {:.2}",
        long / short
    );
}
