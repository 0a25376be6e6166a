//! Clients that ask all the time, and the least that a server can do.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::client::{Connection, get};

/// What clients were answered.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) answers: f64,
    /// A second.
    pub(crate) rate: f64,
}

/// So many clients, each on a connection of its own that waits for its answer. `place` says which of the requests a client
/// sends in its turn, both from 0.
pub(crate) async fn ask(
    address: &str,
    clients: usize,
    round: Duration,
    requests: Vec<Vec<u8>>,
    place: impl Fn(usize, usize) -> usize + Copy + Send + 'static,
) -> Asked {
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let requests: Arc<[Vec<u8>]> = requests.into();
    // What a connection costs to make is no part of what is measured.
    let connections: Vec<Connection> = join_all((0..clients).map(|_| Connection::open(address))).await;
    let begun = Instant::now();
    let mut running = Vec::new();
    for (client, mut connection) in connections.into_iter().enumerate() {
        let (over, done, requests) = (over.clone(), done.clone(), requests.clone());
        running.push(tokio::spawn(async move {
            for turn in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                connection.send(&requests[place(client, turn)]).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(round).await;
    over.store(true, Ordering::Relaxed);
    for client in running {
        client.await.unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let answers = done.load(Ordering::Relaxed) as f64;
    Asked {
        answers,
        rate: answers / begun.elapsed().as_secs_f64(),
    }
}

/// Answers a second to as many clients as there are paths, each asking for one of them.
pub(crate) async fn rate(address: &str, paths: &[String], round: Duration) -> f64 {
    let requests = paths.iter().map(|path| get(address, path)).collect();
    ask(address, paths.len(), round, requests, |client, _| client)
        .await
        .rate
}

/// Serves this and says where, as the server does.
#[expect(clippy::print_stderr, reason = "who started it reads there where it listens")]
pub(crate) async fn serve(router: Router) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    eprintln!(
        "{}",
        serde_json::json!({"message": "listening", "address": address.to_string()})
    );
    axum::serve(listener, router).await.unwrap();
}
