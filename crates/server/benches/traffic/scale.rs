//! One, two and three servers on the same processors, with 20 windows read for each append.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::replay::{Conversation, fill};

const CLIENTS: usize = 48;
const READS: usize = 20;
const ROUND: Duration = Duration::from_secs(5);

pub(crate) async fn run(conversations: &[Conversation]) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{CLIENTS} clients, {READS} windows read an append, everything on {cores} processors");
    for count in 1..=3 {
        let cluster = Cluster::start();
        let servers: Vec<_> = (0..count).map(|_| cluster.serve(&json!({}))).collect();
        fill(&servers[0], conversations).await;
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = Vec::new();
        let begun = Instant::now();
        for client in 0..CLIENTS {
            let server = &servers[client % count];
            let id = &conversations[client % conversations.len()].id;
            let read = server.get(&format!("/v1/contexts/{id}/window"));
            let item = json!({"items": [{"role": "user", "content": "and then?"}]}).to_string();
            let append = server.post(&format!("/v1/contexts/{id}/items"), &item);
            let mut connection = server.connect().await;
            let (over, done) = (over.clone(), done.clone());
            clients.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    connection.send(&append).await;
                    for _ in 0..READS {
                        connection.send(&read).await;
                    }
                    done.fetch_add(1 + READS as u64, Ordering::Relaxed);
                }
            }));
        }
        tokio::time::sleep(ROUND).await;
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        let rate = done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        println!("    {count} servers: {rate:>8.0} requests/s");
    }
}
