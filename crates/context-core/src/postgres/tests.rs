//! The store against real servers.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_test_support::Services;
use contextkeep_test_support::services::{unique_name, with_database};
use secrecy::SecretString;

use super::*;
use crate::clock::ManualClock;
use crate::id::{ContextKey, TenantId};
use crate::store::{ContextStore, SearchQuery};
use crate::{ContextPatch, NewContext};

#[cfg(feature = "embedded")]
mod adopting;
mod batches;
mod faults;
#[cfg(all(feature = "cache", feature = "embedded"))]
mod feed;
mod history;
mod indexing;
mod insight;
mod limits;
mod load;
mod plans;
mod pooler;
#[cfg(feature = "cache")]
mod relaying;
mod schema;
mod sessions;
#[cfg(feature = "cache")]
mod telling;

/// A database of its own on the shared server, gone with the guard.
#[derive(Debug)]
struct Scratch {
    server: String,
    name: String,
}

impl Scratch {
    async fn create(server: &str) -> Self {
        let name = unique_name("store");
        run(server, &format!("CREATE DATABASE {name}")).await;
        Self {
            server: server.to_owned(),
            name,
        }
    }

    fn settings(&self) -> DatabaseSettings {
        DatabaseSettings {
            dsn: Some(SecretString::from(with_database(&self.server, &self.name))),
            max_open_conns: 12,
            ..DatabaseSettings::default()
        }
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<PgContextStore> {
        let store = PgContextStore::new(&self.settings().into(), clock).unwrap();
        prepared(&store).await;
        Arc::new(store)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, sql) = (
            self.server.clone(),
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(run(&server, &sql));
        });
        // A database that stays costs disk only.
        drop(dropped.join());
    }
}

/// Prepares a store; a server that has just started on a busy machine may need more than one try.
async fn prepared(store: &PgContextStore) {
    for _ in 0..300 {
        match store.prepare().await {
            Ok(()) => return,
            Err(Error::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store is not prepared in three hundred tries");
}

async fn run(dsn: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(dsn, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

fn shared() -> String {
    Services::attach().urls.pg_primary
}

async fn scratch(clock: Arc<ManualClock>) -> (Arc<dyn ContextStore>, Scratch) {
    let scratch = Scratch::create(&shared()).await;
    (scratch.open(clock).await, scratch)
}

crate::store_contract!(
    #[ignore = "needs services"]
    scratch
);
