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

/// So many connections, each of which was answered this request already: what it costs to make one, and the server to accept
/// it, is no part of what is measured.
pub(crate) async fn connected(address: &str, clients: usize, request: &[u8]) -> Vec<Connection> {
    join_all((0..clients).map(async |_| {
        let mut connection = Connection::open(address).await;
        connection.send(request).await;
        connection
    }))
    .await
}

/// Clients that each have one of the connections and wait for each answer. `place` says which of the requests a client sends
/// in its turn, both from 0.
pub(crate) async fn ask(
    connections: Vec<Connection>,
    round: Duration,
    requests: Vec<Vec<u8>>,
    place: impl Fn(usize, usize) -> usize + Copy + Send + 'static,
) -> Asked {
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let requests: Arc<[Vec<u8>]> = requests.into();
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
    let requests: Vec<Vec<u8>> = paths.iter().map(|path| get(address, path)).collect();
    let connections = connected(address, paths.len(), &requests[0]).await;
    ask(connections, round, requests, |client, _| client).await.rate
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
