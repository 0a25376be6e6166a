//! The binary, and a handler that answers what its GET brought.

use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::client::{self, Connection, Process};
use super::cluster::{Cluster, Server};
use super::instructions::{collected, each};
use super::{CONTEXTS, METADATA, PAIRS, READERS, Rates, bare_get, id, load, multiplexed, report, set_bare};

/// Of a pair of servers that are begun anew. Short, for the same reason as by the manager.
const ROUNDS: usize = 17;
const ROUND: Duration = Duration::from_millis(200);
/// Requests of the two runs whose instructions are counted.
const COUNTED: (u64, u64) = (6_400, 25_600);

pub(crate) async fn compare(cluster: &Cluster, settings: &Value) {
    println!("N3 over REST: heads from Redis against a bare axum handler with a bare GET of the same body");
    let connection = multiplexed(&cluster.redis.url()).await;
    for metadata in METADATA {
        let path = |number| format!("/v1/contexts/{}", id(metadata, number));
        let mut rates = Rates::default();
        let mut bytes = 0;
        for _ in 0..PAIRS {
            let server = cluster.serve(settings);
            let bare = Process::of(bare_command(cluster));
            let answer = answered(&server, &path(0)).await;
            set_bare(&connection, metadata, answer.as_bytes()).await;
            bytes = answer.len();
            for (readers, (ours, theirs)) in READERS.into_iter().zip(&mut rates) {
                let paths: Vec<String> = (0..readers).map(path).collect();
                for _ in 0..ROUNDS {
                    ours.push(load::rate(&server.process.address, &paths, ROUND).await);
                    theirs.push(load::rate(&bare.address, &paths, ROUND).await);
                }
            }
            answered(&server, &path(0)).await;
        }
        report("over REST: ", bytes, rates, ROUNDS);
    }
}

fn bare_command(cluster: &Cluster) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bare", &cluster.redis.url()]);
    command
}

/// Instructions of a request, both sizes, both servers: 64 connections, the difference of two numbers of requests. What the
/// cache asks Redis by the clock is in it, which is more beside requests that valgrind slows down.
pub(crate) fn count(runtime: &Runtime, cluster: &Cluster, server: &Server, settings: &Value) {
    println!("N3 over REST: instructions of a request outside of the kernel, {CONTEXTS} connections");
    let connection = runtime.block_on(multiplexed(&cluster.redis.url()));
    for metadata in METADATA {
        let path = |number| format!("/v1/contexts/{}", id(metadata, number));
        let body = runtime.block_on(async {
            let body = answered(server, &path(0)).await;
            set_bare(&connection, metadata, body.as_bytes()).await;
            body
        });
        let of = |command: &dyn Fn(&std::path::Path) -> Command| {
            each(COUNTED, &mut |requests| {
                let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
                collected(folder.path(), &command(folder.path()), |address| {
                    let turns = usize::try_from(requests).unwrap() / CONTEXTS;
                    let readers = (0..CONTEXTS).map(|number| repeat(address, path(number), turns));
                    runtime.block_on(futures_util::future::join_all(readers));
                })
            })
        };
        let ours = of(&|folder| Process::command(folder, &cluster.settings(settings)));
        let bare = of(&|folder| {
            let mut command = bare_command(cluster);
            command.current_dir(folder);
            command
        });
        println!("    {:>6} bytes: {ours:>7}, bare {bare:>7}", body.len());
    }
}

async fn repeat(address: &str, path: String, turns: usize) {
    let mut connection = Connection::open(address).await;
    let request = client::get(address, &path);
    for _ in 0..turns {
        connection.send(&request).await;
    }
}

/// The body of a head that came from Redis.
async fn answered(server: &Server, path: &str) -> String {
    let mut connection = server.connect().await;
    let answer = connection.send(&server.get(path)).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("contextkeep-origin: l2"), "{head}");
    body.to_owned()
}

/// The least that a server can do with what Redis has.
pub(crate) async fn bare(url: &str) {
    let connection = multiplexed(url).await;
    let handler = move |Path(id): Path<String>| {
        let connection = connection.clone();
        async move {
            (
                [(CONTENT_TYPE, "application/json")],
                bare_get(&connection, &id).await,
            )
        }
    };
    load::serve(Router::new().route("/v1/contexts/{id}", get(handler))).await;
}
