//! Heads from Redis, by the manager as the server wires it and over REST, beside a bare GET of as many bytes on a
//! multiplexed connection (N3): `cargo bench -p contextkeep-server --bench remote`.
//!
//! Nothing is kept in the process, so that each read is a hit of the second level; both sides check that. By the manager a
//! hit is measured from the session's scope to the `Context`, beside the GET of a value as long as Redis keeps the head.
//! Over REST both servers are processes of their own: the binary, and an axum handler that answers what its GET brought, a
//! value as long as the server's body. Clients, servers and Redis share the cores.
//!
//! Medians of rounds that take turns, and of the ratios of rounds that follow each other, of several pairs of ours and bare, begun
//! one after the other.
//!
//! `… --bench remote -- instructions` counts the instructions of a request instead, outside of the kernel, by valgrind.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/instructions.rs"]
mod instructions;
#[path = "support/load.rs"]
mod load;
#[path = "remote/manager.rs"]
mod manager;
#[path = "remote/rest.rs"]
mod rest;

use contextkeep_test_support::figures::{median, ratio};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Client, cmd};
use serde_json::{Value, json};

use cluster::{Cluster, Server};

const CONTEXTS: usize = 64;
/// Bytes of metadata: a small head, and one as large as applications make them.
const METADATA: [usize; 2] = [32, 1024];
/// Readers that each wait for their answer.
const READERS: [usize; 2] = [1, 64];
/// Pairs of ours and bare, begun one after the other: with the same code, the ratio of one may be a fifth from that of another.
const PAIRS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let first = arguments.next();
    if first.as_deref() == Some("bare") {
        return runtime.block_on(rest::bare(&arguments.next().unwrap()));
    }
    let cluster = Cluster::start();
    let without_memory = json!({"cache": {"in_memory": {"enabled": false}}});
    let server = cluster.serve(&without_memory);
    runtime.block_on(async {
        for metadata in METADATA {
            fill(&server, metadata).await;
        }
    });
    if first.as_deref() == Some("instructions") {
        return rest::count(&runtime, &cluster, &server, &without_memory);
    }
    drop(server);
    runtime.block_on(async {
        manager::compare(&cluster, &without_memory).await;
        rest::compare(&cluster, &without_memory).await;
    });
}

fn id(metadata: usize, number: usize) -> String {
    format!("context-{metadata}-{number:04}")
}

/// Creates the contexts of this size, and reads each so that Redis has it.
async fn fill(server: &Server, metadata: usize) {
    let mut connection = server.connect().await;
    for number in 0..CONTEXTS {
        let new = json!({
            "id": id(metadata, number), "agent_id": "support", "metadata": {"note": "n".repeat(metadata)}
        });
        connection
            .send(&server.post("/v1/contexts", &new.to_string()))
            .await;
        connection
            .send(&server.get(&format!("/v1/contexts/{}", id(metadata, number))))
            .await;
    }
}

/// A connection that shares nothing with the server's.
async fn multiplexed(url: &str) -> MultiplexedConnection {
    let client = Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Puts a value of so many bytes at the bare key of each context.
async fn set_bare(connection: &MultiplexedConnection, metadata: usize, value: &[u8]) {
    for number in 0..CONTEXTS {
        let mut set = cmd("SET");
        set.arg(bare_key(&id(metadata, number))).arg(value);
        set.query_async::<()>(&mut connection.clone()).await.unwrap();
    }
}

async fn bare_get(connection: &MultiplexedConnection, id: &str) -> bytes::Bytes {
    let mut get = cmd("GET");
    get.arg(bare_key(id));
    let value: Option<bytes::Bytes> = get.query_async(&mut connection.clone()).await.unwrap();
    value.unwrap_or_else(|| panic!("{id} is not there"))
}

fn bare_key(id: &str) -> String {
    format!("bare-{id}")
}

/// Gets a second, ours and bare, for each number of readers.
type Rates = [(Vec<f64>, Vec<f64>); READERS.len()];

/// Of pairs that each had so many rounds.
fn report(what: &str, bytes: usize, rates: Rates, rounds: usize) {
    for (readers, (ours, bare)) in READERS.into_iter().zip(rates) {
        let pairs = ours.chunks(rounds).zip(bare.chunks(rounds));
        let ratios: Vec<String> = pairs
            .map(|(ours, bare)| format!("{:.2}", ratio(ours, bare)))
            .collect();
        let all = ratio(&ours, &bare);
        let (ours, bare) = (median(ours), median(bare));
        println!(
            "    {what} {bytes:>5} bytes, {readers:>2} readers: {ours:>8.0} /s, bare {bare:>8.0} /s, ratio {all:.2}"
        );
        println!("        by pairs: {}", ratios.join(", "));
    }
}

/// What a server's settings are in a process that is not one.
fn config(settings: Value) -> contextkeep_server::config::AppConfig {
    serde_json::from_value(settings).unwrap()
}
