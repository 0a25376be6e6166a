//! Real conversations, message by message: each is appended, and then its window is read so many times by whoever follows
//! the conversation, in turn on two servers.

use contextkeep_test_support::redis::Value;
use serde_json::json;

use super::cluster::{Cluster, Server};

/// Reads for each append.
const RATIOS: [usize; 2] = [100, 5];
const BUDGET: u64 = 8192;

pub(crate) struct Conversation {
    pub(crate) id: String,
    pub(crate) messages: Vec<serde_json::Value>,
}

pub(crate) fn conversations(path: &str) -> Vec<Conversation> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let conversation = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        Conversation {
            id: line["id"].as_str().unwrap().to_owned(),
            messages: line["messages"].as_array().unwrap().clone(),
        }
    };
    text.lines().map(conversation).collect()
}

pub(crate) async fn run(conversations: &[Conversation]) {
    let messages: usize = conversations.iter().map(|one| one.messages.len()).sum();
    println!(
        "{} conversations, {messages} messages, windows of {BUDGET} tokens, on two servers in turn",
        conversations.len()
    );
    for ratio in RATIOS {
        let without = statements(conversations, ratio, &json!({"rollout": {"optimized": "off"}})).await;
        let with = statements(conversations, ratio, &json!({})).await;
        let share = |statements: u64| statements as f64 / (messages * ratio) as f64;
        println!(
            "    {ratio:>3} reads an append: {:.3} reading statements a read without the cache, {:.3} with it: {:.1} % saved",
            share(without.0),
            share(with.0),
            100.0 * (1.0 - with.0 as f64 / without.0 as f64),
        );
    }
    for enabled in [false, true] {
        let settings = json!({"cache": {"compression": {"enabled": enabled, "lz4_from": "64B"}}});
        let Held { heads, bytes, taken } = statements(conversations, 1, &settings).await.1;
        println!(
            "    in Redis, compression from 64 bytes {enabled}: {heads} heads, {bytes} bytes, which take {taken}"
        );
    }
}

/// What Redis keeps.
struct Held {
    heads: usize,
    bytes: i64,
    taken: i64,
}

/// Statements that read, and what is in Redis in the end.
async fn statements(
    conversations: &[Conversation],
    ratio: usize,
    settings: &serde_json::Value,
) -> (u64, Held) {
    let cluster = Cluster::start();
    let servers = [cluster.serve(settings), cluster.serve(settings)];
    let mut connections = [servers[0].connect().await, servers[1].connect().await];
    for conversation in conversations {
        let new = json!({"id": conversation.id, "agent_id": "a", "max_tokens": BUDGET}).to_string();
        connections[0].send(&servers[0].post("/v1/contexts", &new)).await;
    }
    let before = servers[0].reads().await + servers[1].reads().await;
    let turns = conversations
        .iter()
        .map(|one| one.messages.len())
        .max()
        .unwrap_or(0);
    // Turn by turn, so that all conversations go on at the same time.
    for turn in 0..turns {
        for conversation in conversations {
            let Some(message) = conversation.messages.get(turn) else {
                continue;
            };
            let writer = turn % 2;
            let items = json!({ "items": [message] }).to_string();
            let path = format!("/v1/contexts/{}/items", conversation.id);
            connections[writer]
                .send(&servers[writer].post(&path, &items))
                .await;
            let path = format!("/v1/contexts/{}/window", conversation.id);
            for read in 0..ratio {
                let reader = read % 2;
                connections[reader].send(&servers[reader].get(&path)).await;
            }
        }
    }
    let reads = servers[0].reads().await + servers[1].reads().await - before;
    (reads, held(&cluster))
}

/// Heads in Redis, the bytes of their values, and what they take there with their names and all.
fn held(cluster: &Cluster) -> Held {
    let redis = &cluster.redis;
    let keys = match redis.command(&["KEYS", "*}e:*"]).unwrap() {
        Value::Array(keys) => keys,
        other => panic!("{other:?}"),
    };
    let sum = |command: &[&str]| -> i64 {
        let size = |key: &Value| match redis.command(&[command, &[key.as_text().unwrap()]].concat()) {
            Ok(Value::Int(size)) => size,
            other => panic!("{other:?}"),
        };
        keys.iter().map(size).sum()
    };
    Held {
        heads: keys.len(),
        bytes: sum(&["STRLEN"]),
        taken: sum(&["MEMORY", "USAGE"]),
    }
}

/// As many appends as there are messages, for the other measurements.
pub(crate) async fn fill(server: &Server, conversations: &[Conversation]) {
    let mut connection = server.connect().await;
    for conversation in conversations {
        let new = json!({"id": conversation.id, "agent_id": "a", "max_tokens": BUDGET}).to_string();
        connection.send(&server.post("/v1/contexts", &new)).await;
        let items = json!({ "items": conversation.messages }).to_string();
        let path = format!("/v1/contexts/{}/items", conversation.id);
        connection.send(&server.post(&path, &items)).await;
    }
}
