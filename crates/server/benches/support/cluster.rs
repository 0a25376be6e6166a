//! Servers that share a database and a Redis.
#![allow(dead_code, reason = "each bench uses a part of it")]

use contextkeep_test_support::{PgCluster, RedisNode};
use serde_json::{Value, json};

use super::client::{self, Connection, Process};

pub(crate) struct Cluster {
    database: PgCluster,
    pub(crate) redis: RedisNode,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self {
            database: PgCluster::builder().start().unwrap(),
            redis: RedisNode::start_alone().unwrap(),
        }
    }

    /// A server; `more` is put over `context_manager`.
    pub(crate) fn serve(&self, more: &Value) -> Server {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let process = Process::serve(folder.path(), &self.settings(more));
        Server {
            process,
            _folder: folder,
        }
    }

    /// The settings of [`Cluster::serve`].
    pub(crate) fn settings(&self, more: &Value) -> Value {
        let mut manager = json!({
            "database": {"dsn": self.database.primary().dsn(), "max_open_conns": 20},
            "cache": {"redis": {"enabled": true, "endpoints": [self.redis.url()]}, "warming": {"enabled": false}},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            if let (Some(section), Some(over)) = (manager[key].as_object_mut(), value.as_object()) {
                section.extend(over.clone());
            } else {
                manager[key] = value.clone();
            }
        }
        json!({ "context_manager": manager })
    }
}

pub(crate) struct Server {
    pub(crate) process: Process,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn new(process: Process, folder: tempfile::TempDir) -> Self {
        Self {
            process,
            _folder: folder,
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.process.address).await
    }

    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        client::get(&self.process.address, path)
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Vec<u8> {
        client::post(&self.process.address, path, body)
    }

    /// How often statements that read contexts ran, by name.
    pub(crate) async fn reads(&self) -> u64 {
        const READS: [&str; 4] = ["head", "heads", "tail", "items"];
        let mut connection = self.connect().await;
        let text = connection.send(&self.get("/metrics")).await;
        let count = |name: &str| {
            let series =
                format!("contextkeep_core_statement_duration_seconds_count{{statement=\"{name}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series));
            line.map_or(0, |value| value.parse::<u64>().unwrap())
        };
        READS.into_iter().map(count).sum()
    }
}
