//! Clients that ask all the time, and the least that a server can do.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::time::Instant;

use super::client::Connection;

pub(crate) fn request(address: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes()
}

/// Answers a second to as many clients as there are paths, each on a connection of its own that waits for its answer.
pub(crate) async fn rate(address: &str, paths: &[String], round: Duration) -> f64 {
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut clients = Vec::new();
    for path in paths {
        let mut connection = Connection::open(address).await;
        let (over, done, request) = (over.clone(), done.clone(), request(address, path));
        clients.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                connection.send(&request).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(round).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let done = done.load(Ordering::Relaxed) as f64;
    done / begun.elapsed().as_secs_f64()
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
