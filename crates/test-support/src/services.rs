//! The sum of what the integration tests need: a Postgres primary with two replicas, a Redis node, a Redis Cluster.
//!
//! `cargo xtask test` and `cargo xtask up` start it (or find it) and write it to a JSON file; tests attach to it
//! with [`Services::attach`]. It is shared: a test keeps to names of its own ([`unique_name`]), and one that stops,
//! freezes or promotes members starts servers of its own instead ([`PgCluster::builder`], …).

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::env::{self, keys};
use crate::folder::Folder;
use crate::{Error, PgCluster, RedisCluster, RedisNode, Result};

/// How many replicas the shared Postgres has.
pub const REPLICAS: usize = 2;

/// Who runs the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Somebody else; we were given URLs.
    External,
    /// Docker Compose.
    Compose,
    /// This harness, from local binaries.
    Local,
}

/// Where the services are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// The primary.
    pub pg_primary: String,
    /// The replicas that stream from it.
    pub pg_replicas: Vec<String>,
    /// The single Redis node.
    pub redis: String,
    /// The nodes of the Redis Cluster.
    pub redis_cluster: Vec<String>,
}

impl Urls {
    /// Out of the variables of external mode; `None` when none of them is set.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when only some of them are set: half of the services would be silently somebody else's.
    pub fn from_env() -> Result<Option<Self>> {
        Self::read(|key| env::get(key).map(|value| value.to_string_lossy().into_owned()))
    }

    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let names = [
            keys::PG_PRIMARY,
            keys::PG_REPLICAS,
            keys::REDIS,
            keys::REDIS_CLUSTER,
        ];
        let list = |text: String| text.split(',').map(|url| url.trim().to_owned()).collect();
        match names.map(get) {
            [Some(pg_primary), Some(replicas), Some(redis), Some(cluster)] => Ok(Some(Self {
                pg_primary,
                pg_replicas: list(replicas),
                redis,
                redis_cluster: list(cluster),
            })),
            [None, None, None, None] => Ok(None),
            values => {
                let missing = names.iter().zip(values).filter(|(_, value)| value.is_none());
                let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
                Err(Error::State(format!(
                    "external services are given in part only: {} not set",
                    missing.join(", ")
                )))
            }
        }
    }

    /// The variables that describe them, as external mode reads them.
    pub fn to_env(&self) -> [(&'static str, String); 4] {
        [
            (keys::PG_PRIMARY, self.pg_primary.clone()),
            (keys::PG_REPLICAS, self.pg_replicas.join(",")),
            (keys::REDIS, self.redis.clone()),
            (keys::REDIS_CLUSTER, self.redis_cluster.join(",")),
        ]
    }
}

/// The running services: their URLs, and handles where we run them ourselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Services {
    /// Who runs them.
    pub mode: Mode,
    /// Where they are.
    pub urls: Urls,
    /// The folder they live in (local mode).
    pub root: Option<PathBuf>,
    postgres: Option<PgCluster>,
    redis: Option<RedisNode>,
    redis_cluster: Option<RedisCluster>,
}

impl Services {
    /// Starts all of them from local binaries, in parallel, in one folder.
    ///
    /// # Errors
    ///
    /// The first failure, after the others have come up or failed as well; the folder's owner ends what did start.
    pub fn start_local(folder: &Arc<Folder>) -> Result<Self> {
        let (postgres, redis, cluster) = thread::scope(|scope| {
            let redis = scope.spawn(|| RedisNode::start_in(folder, "redis"));
            let cluster = scope.spawn(|| RedisCluster::builder().start_in(folder));
            let postgres = PgCluster::builder().replicas(REPLICAS).start_in(folder);
            (postgres, joined(redis.join()), joined(cluster.join()))
        });
        let (postgres, redis, redis_cluster) = (postgres?, redis?, cluster?);
        let urls = Urls {
            pg_primary: postgres.primary().dsn(),
            pg_replicas: postgres.replicas().map(crate::postgres::PgMember::dsn).collect(),
            redis: redis.url(),
            redis_cluster: redis_cluster.urls(),
        };
        Ok(Self {
            mode: Mode::Local,
            urls,
            root: Some(folder.root().to_owned()),
            postgres: Some(postgres),
            redis: Some(redis),
            redis_cluster: Some(redis_cluster),
        })
    }

    /// Services that are not run by this harness.
    pub fn elsewhere(mode: Mode, urls: Urls) -> Self {
        Self {
            mode,
            urls,
            root: None,
            postgres: None,
            redis: None,
            redis_cluster: None,
        }
    }

    /// The services that `cargo xtask` has started for this test run.
    ///
    /// # Panics
    ///
    /// When there are none: a test that needs services and does not find them has failed.
    #[track_caller]
    #[expect(clippy::panic, reason = "an assertion for tests")]
    pub fn attach() -> Self {
        match Self::try_attach() {
            Ok(services) => services,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`attach`](Self::attach), for callers that can do without.
    ///
    /// # Errors
    ///
    /// When no services are recorded in the environment, or the record can't be read.
    pub fn try_attach() -> Result<Self> {
        if let Some(path) = env::get(keys::SERVICES) {
            return Self::load(Path::new(&path));
        }
        let urls = Urls::from_env()?.ok_or_else(|| {
            let how = "run the tests with `cargo xtask test`, or start them with `cargo xtask up` and export what it prints";
            Error::State(format!("this test needs services and {} is not set: {how}", keys::SERVICES))
        })?;
        Ok(Self::elsewhere(Mode::External, urls))
    }

    /// Writes them down for [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// When the file can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text =
            serde_json::to_string_pretty(self).map_err(|e| Error::io("describe the services", e.into()))?;
        fs::write(path, text + "\n").map_err(Error::at("write", path))
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// When the file can't be read or was written by another version.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::at("read", path))?;
        serde_json::from_str(&text).map_err(|e| Error::io(format!("understand {}", path.display()), e.into()))
    }

    /// Handles of the Postgres members (local mode).
    pub fn postgres(&self) -> Option<&PgCluster> {
        self.postgres.as_ref()
    }

    /// Handle of the Redis node (local mode).
    pub fn redis(&self) -> Option<&RedisNode> {
        self.redis.as_ref()
    }

    /// Handles of the cluster's nodes (local mode).
    pub fn redis_cluster(&self) -> Option<&RedisCluster> {
        self.redis_cluster.as_ref()
    }
}

fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|_| {
        Err(Error::State(
            "the thread that started a service panicked".to_owned(),
        ))
    })
}

/// A name that no other test has: for a database, a schema, a key prefix (lower case, digits and `_` only).
pub fn unique_name(prefix: &str) -> String {
    // The hasher's keys are random, and differ from call to call.
    format!("{prefix}_{:016x}", RandomState::new().build_hasher().finish())
}

/// The same server's other database.
pub fn with_database(url: &str, database: &str) -> String {
    let (before_query, query) = url
        .split_once('?')
        .map_or((url, None), |(url, query)| (url, Some(query)));
    let (server, _) = before_query.rsplit_once('/').unwrap_or((before_query, ""));
    query.map_or_else(
        || format!("{server}/{database}"),
        |query| format!("{server}/{database}?{query}"),
    )
}

#[cfg(test)]
mod tests;
