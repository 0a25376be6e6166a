//! Durable appends over REST on Postgres, beside `pgbench`'s inserts (N4): `cargo bench -p contextkeep-server --bench rest`.
//!
//! The server is the binary; the clients, 64 connections that each wait for their answer, run on the same cores, and so
//! does the database. Medians of rounds that take turns, on one server whose commits reach the disk.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/load.rs"]
mod load;
#[path = "support/usage.rs"]
mod usage;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use contextkeep_test_support::figures::{median, ratio};
use contextkeep_test_support::{PgCluster, locate};

use client::{Connection, Process, post};

const CLIENTS: usize = 64;
const CONTEXTS: usize = 1000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);

fn main() {
    let cluster = PgCluster::builder()
        .durable(true)
        .setting("shared_buffers", "512MB")
        .setting("max_wal_size", "4GB")
        .start()
        .unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let settings = serde_json::json!({"context_manager": {"database": {"dsn": cluster.primary().dsn()}}});
    let server = Process::serve(folder.path(), &settings);
    let address = server.address.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut setup = Connection::open(&address).await;
        for context in 0..CONTEXTS {
            let new = format!(r#"{{"id":"c{context}","agent_id":"a"}}"#);
            setup.send(&post(&address, "/v1/contexts", &new)).await;
        }
        let processes = Processes {
            database: postmaster(&cluster),
            server: server.id(),
        };
        measure(&cluster, processes, &address, &mut setup).await;
    });
}

/// Whose processor time is counted.
#[derive(Clone, Copy)]
struct Processes {
    database: u32,
    server: u32,
}

fn postmaster(cluster: &PgCluster) -> u32 {
    let pid = cluster.primary().daemon().pid().unwrap();
    pid.as_raw_nonzero().get().cast_unsigned()
}

/// Appends of one round.
struct Appends {
    /// A second.
    rate: f64,
    /// Microseconds of processor time an append: of the database, the server, and the clients.
    costs: [f64; 3],
}

async fn measure(cluster: &PgCluster, processes: Processes, address: &str, setup: &mut Connection) {
    cluster
        .primary()
        .sql("CREATE TABLE inserted (id bigserial PRIMARY KEY, body text NOT NULL)")
        .unwrap();
    let script = std::env::temp_dir().join(format!("contextkeep-rest-{}.sql", std::process::id()));
    let insert = format!(
        "INSERT INTO inserted (body) VALUES (repeat('x', {}));\n",
        item().len()
    );
    std::fs::write(&script, insert).unwrap();
    let (mut inserts, mut spread, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        indexed(address, setup).await;
        inserts.push(pgbench(&script, cluster));
        spread.push(appends(processes, address, CONTEXTS).await);
        indexed(address, setup).await;
        single.push(appends(processes, address, 1).await);
    }
    drop(std::fs::remove_file(&script));
    println!(
        "N4 over REST: {CLIENTS} connections, items of {} bytes, one commit each",
        item().len()
    );
    println!(
        "    pgbench single-row inserts        {:>9.0} /s",
        median(inserts.clone())
    );
    for (what, rounds) in [("1,000 contexts", spread), ("one context   ", single)] {
        let rates: Vec<f64> = rounds.iter().map(|round| round.rate).collect();
        let ratio = ratio(&rates, &inserts);
        let rate = median(rates);
        let [database, server, clients] =
            [0, 1, 2].map(|whose| median(rounds.iter().map(|round| round.costs[whose]).collect()));
        println!(
            "    appends to {what}         {rate:>9.0} /s   ratio {ratio:.2}   processor time an append: \
             database {database:.0} us, server {server:.0} us, clients {clients:.0} us"
        );
    }
}

/// A kilobyte of JSON, the same as in the bench of the store.
fn item() -> String {
    let words = "the quick brown fox jumps over the lazy dog ".repeat(22);
    serde_json::json!({"role": "user", "content": words}).to_string()
}

/// Appends by all clients, over so many contexts.
async fn appends(processes: Processes, address: &str, contexts: usize) -> Appends {
    let body = format!(r#"{{"items":[{}]}}"#, item());
    let path = |context| format!("/v1/contexts/c{context}/items");
    let requests = (0..contexts)
        .map(|context| post(address, &path(context), &body))
        .collect();
    let used = || {
        [
            usage::of_tree(processes.database),
            usage::of(processes.server),
            usage::of(std::process::id()),
        ]
    };
    let health = client::get(address, "/healthz");
    let connections = load::connected(address, CLIENTS, &health).await;
    let before = used();
    let place = move |client, turn| (client * 15 + (turn + 1) * 641) % contexts;
    let asked = load::ask(connections, ROUND, requests, place).await;
    let after = used();
    let each = |used: Duration| used.as_secs_f64() * 1e6 / asked.answers;
    Appends {
        rate: asked.rate,
        costs: [0, 1, 2].map(|whose| each(after[whose].saturating_sub(before[whose]))),
    }
}

/// Waits until the search index has caught up, so that nobody works off the round before.
async fn indexed(address: &str, connection: &mut Connection) {
    let search = post(address, "/v1/search", r#"{"query":"nothing"}"#);
    for _ in 0..1200 {
        let answer = connection.send(&search).await;
        if answer.contains(r#""lag_items":0"#) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the search index did not catch up within two minutes");
}

fn pgbench(script: &Path, cluster: &PgCluster) -> f64 {
    let output = Command::new(locate::postgres().unwrap().join("pgbench"))
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
