//! What the cache saves the database, over REST and with real parts: `cargo bench -p contextkeep-server --bench traffic --
//! transcripts.jsonl`, each line `{"id", "messages": […]}` in the chat format.
//!
//! Statements, loads and bytes are counts and the same on any machine; the throughput of several servers is not, and shares
//! the processors with the database, with Redis and with the clients.
#![expect(
    clippy::cast_precision_loss,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "traffic/flood.rs"]
mod flood;
#[path = "traffic/herd.rs"]
mod herd;
#[path = "traffic/replay.rs"]
mod replay;
#[path = "traffic/scale.rs"]
mod scale;

fn main() {
    let path = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let path = path.unwrap_or_else(|| panic!("name a file of conversations: see the head of this file"));
    let conversations = replay::conversations(&path);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        replay::run(&conversations).await;
        herd::run().await;
        scale::run(&conversations).await;
        flood::run().await;
    });
}
