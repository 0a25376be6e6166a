//! Three servers, each asked by many at once for the same contexts, none of which is in any memory (N7).

use serde_json::json;

use super::cluster::Cluster;

const SERVERS: usize = 3;
const TASKS: usize = 32;
const CONTEXTS: usize = 200;

pub(crate) async fn run() {
    let cluster = Cluster::start();
    let writer = cluster.serve(&json!({"rollout": {"optimized": "off"}}));
    let mut connection = writer.connect().await;
    for context in 0..CONTEXTS {
        let new = format!(r#"{{"id":"h{context}","agent_id":"a"}}"#);
        connection.send(&writer.post("/v1/contexts", &new)).await;
    }
    drop(connection);
    drop(writer);
    // The writer told Redis of its changes.
    cluster.redis.command(&["FLUSHALL"]).unwrap();
    let servers: Vec<_> = (0..SERVERS).map(|_| cluster.serve(&json!({}))).collect();
    let mut before = 0;
    let mut readers = Vec::new();
    for server in &servers {
        before += server.reads().await;
        for _ in 0..TASKS {
            let mut connection = server.connect().await;
            let requests: Vec<_> = (0..CONTEXTS)
                .map(|context| server.get(&format!("/v1/contexts/h{context}")))
                .collect();
            readers.push(tokio::spawn(async move {
                for request in &requests {
                    connection.send(request).await;
                }
            }));
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let mut after = 0;
    for server in &servers {
        after += server.reads().await;
    }
    println!(
        "N7: {SERVERS} servers x {TASKS} readers, {CONTEXTS} cold contexts in step: {:.3} reading statements a context",
        (after - before) as f64 / CONTEXTS as f64
    );
}
