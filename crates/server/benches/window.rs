//! Windows over REST from memory, beside a bare axum handler that returns the same bytes (N1):
//! `cargo bench -p contextkeep-server --bench window`.
//!
//! Both servers are processes of their own; the clients, 64 connections that each wait for their answer, run on the same
//! cores. Medians of rounds that take turns, and of the ratios of rounds that follow each other.
//!
//! `… --bench window -- instructions` counts the instructions of a request instead, outside of the kernel, by valgrind,
//! which other work on the machine does not disturb. There has to be a valgrind.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/instructions.rs"]
mod instructions;
#[path = "support/load.rs"]
mod load;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use contextkeep_test_support::figures::{self, median, ratio};

use client::{Connection, Process, post};
use instructions::{collected, each};

const CLIENTS: usize = 64;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
/// Items of a context: a window of about a kilobyte, and one of about 8,000 tokens.
const SIZES: [usize; 2] = [4, 160];
/// Requests of the two runs whose instructions are counted.
const COUNTED: (u64, u64) = (2_000, 10_000);

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("bare") => return bare(&arguments.next().unwrap()),
        Some("instructions") => return count(),
        _ => {}
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = Process::serve(folder.path(), &serde_json::json!({}));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("N1: {CLIENTS} connections, windows from memory against a bare axum handler");
    for items in SIZES {
        let body = runtime.block_on(prepare(&server.address, items));
        let bare = Process::of(bare_command(folder.path(), &body));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(runtime.block_on(rate(&server.address, &path(items))));
            theirs.push(runtime.block_on(rate(&bare.address, "/window")));
        }
        let ratio = ratio(&ours, &theirs);
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "    {items:>4} items, {:>6} bytes: {ours:>8.0} /s, bare {theirs:>8.0} /s, ratio {ratio:.2}",
            body.len()
        );
    }
    traces(&runtime);
}

/// This program as the bare server of this body.
fn bare_command(folder: &Path, body: &[u8]) -> Command {
    let file = folder.join("body.json");
    std::fs::write(&file, body).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("bare").arg(&file);
    command
}

/// Instructions of a request, both sizes, both servers: one connection, the difference of two numbers of requests.
fn count() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("N1: instructions of a request outside of the kernel, one connection");
    for items in SIZES {
        let mut body = Vec::new();
        let mut ours = |requests| {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let server = Process::command(folder.path(), &serde_json::json!({}));
            collected(folder.path(), &server, |address| {
                runtime.block_on(async {
                    body = prepare(address, items).await;
                    repeat(address, &path(items), requests).await;
                });
            })
        };
        let ours = each(COUNTED, &mut ours);
        let bare = each(COUNTED, &mut |requests| {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let bare = bare_command(folder.path(), &body);
            collected(folder.path(), &bare, |address| {
                runtime.block_on(repeat(address, "/window", requests));
            })
        });
        println!(
            "    {items:>4} items, {:>6} bytes: {ours:>7}, bare {bare:>7}",
            body.len()
        );
    }
}

async fn repeat(address: &str, path: &str, requests: u64) {
    let mut connection = Connection::open(address).await;
    let request = client::get(address, path);
    for _ in 0..requests {
        connection.send(&request).await;
    }
}

/// What traces cost a window from memory, by the share of requests that are traced; nobody listens at the endpoint.
fn traces(runtime: &tokio::runtime::Runtime) {
    println!("traces: {CLIENTS} connections, windows from memory against a server that does not trace");
    let items = SIZES[0];
    let start = |settings: serde_json::Value| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let server = Process::serve(folder.path(), &settings);
        runtime.block_on(prepare(&server.address, items));
        (folder, server)
    };
    let (_folder, off) = start(serde_json::json!({}));
    for (ratio, most) in [(0.0, 100), (0.1, 100), (1.0, 100_000)] {
        let traces = serde_json::json!({
            "enabled": true, "endpoint": "http://127.0.0.1:9/v1/traces", "sample_ratio": ratio, "max_per_second": most
        });
        let (_folder, on) = start(serde_json::json!({"telemetry": {"traces": traces}}));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(runtime.block_on(rate(&on.address, &path(items))));
            theirs.push(runtime.block_on(rate(&off.address, &path(items))));
        }
        let compared = figures::ratio(&ours, &theirs);
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "    ratio {ratio:.1}, at most {most:>6} /s: {ours:>8.0} /s, off {theirs:>8.0} /s, ratio {compared:.2}"
        );
    }
}

fn path(items: usize) -> String {
    format!("/v1/contexts/c{items}/window?max_tokens=16000")
}

/// Fills a context and reads its window until it comes from memory.
async fn prepare(address: &str, items: usize) -> Vec<u8> {
    let mut connection = Connection::open(address).await;
    let new = format!(r#"{{"id":"c{items}","agent_id":"a"}}"#);
    connection.send(&post(address, "/v1/contexts", &new)).await;
    let words = "the quick brown fox jumps over the lazy dog ".repeat(5);
    let item = serde_json::json!({"role": "user", "content": words});
    let body = serde_json::json!({"items": vec![item; items]}).to_string();
    let append = post(address, &format!("/v1/contexts/c{items}/items"), &body);
    connection.send(&append).await;
    let window = client::get(address, &path(items));
    for _ in 0..100 {
        let answer = connection.send(&window).await;
        if answer.contains("contextkeep-origin: l1") {
            return answer.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no window came from memory within five seconds");
}

/// Answers a second to all clients together.
async fn rate(address: &str, path: &str) -> f64 {
    load::rate(address, &vec![path.to_owned(); CLIENTS], ROUND).await
}

/// The least that a server can do: the same bytes, the same content type, nothing else.
fn bare(file: &str) {
    let body = Bytes::from(std::fs::read(file).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let handler = move || async move { ([(CONTENT_TYPE, "application/json")], body) };
        load::serve(Router::new().route("/window", get(handler))).await;
    });
}
