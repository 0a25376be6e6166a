//! The binary, and a handler that answers what its GET brought.

use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use super::client::Process;
use super::cluster::{Cluster, Server};
use super::{METADATA, READERS, bare_get, id, load, multiplexed, report, set_bare};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(1);

pub(crate) async fn compare(cluster: &Cluster, server: &Server) {
    println!("N3 over REST: heads from Redis against a bare axum handler with a bare GET of the same body");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bare", &cluster.redis.url()]);
    let bare = Process::of(command);
    let connection = multiplexed(&cluster.redis.url()).await;
    for metadata in METADATA {
        let path = |number| format!("/v1/contexts/{}", id(metadata, number));
        let answer = answered(server, &path(0)).await;
        set_bare(&connection, metadata, answer.as_bytes()).await;
        for readers in READERS {
            let paths: Vec<String> = (0..readers).map(path).collect();
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(load::rate(&server.process.address, &paths, ROUND).await);
                theirs.push(load::rate(&bare.address, &paths, ROUND).await);
            }
            report("over REST: ", answer.len(), readers, ours, theirs);
        }
        answered(server, &path(0)).await;
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
