//! The manager, wired as the server does it, in this process.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_core::session::{Consistency, Session, Token};
use contextkeep_core::{ContextId, ContextKey, ContextManager, Origin, TenantId};
use contextkeep_server::app::Parts;
use contextkeep_test_support::eventually_async;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::cmd;
use serde_json::Value;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::{CONTEXTS, METADATA, PAIRS, READERS, Rates, bare_get, config, id, multiplexed, report, set_bare};

/// Of a round, by [`READERS`]. Few: the machine's speed moves within seconds, and only rounds beside each other are compared.
const GETS: [usize; READERS.len()] = [1_500, 12_800];
/// Of a pair: a manager that is wired anew, and a bare connection that is made anew.
const ROUNDS: usize = 20;

pub(crate) async fn compare(cluster: &Cluster, settings: &Value) {
    println!("N3 at the manager: heads from Redis against a bare GET of as many bytes");
    for metadata in METADATA {
        let keys = keys(metadata);
        let bytes = kept(cluster, &id(metadata, 0)).await;
        let mut rates = Rates::default();
        for _ in 0..PAIRS {
            let parts = Parts::open_cached(&config(cluster.settings(settings))).unwrap();
            parts.storage.prepare().await.unwrap();
            let bare = multiplexed(&cluster.redis.url()).await;
            set_bare(&bare, metadata, &vec![b'7'; bytes]).await;
            eventually_async("heads to come from Redis", Duration::from_secs(30), async || {
                for key in keys.iter() {
                    if get(&*parts.manager, key).await != Some(Origin::L2) {
                        return None;
                    }
                }
                Some(())
            })
            .await;
            for ((readers, gets), (ours, theirs)) in READERS.into_iter().zip(GETS).zip(&mut rates) {
                for _ in 0..ROUNDS {
                    ours.push(rate(readers, gets, &keys, &ours_by(&parts.manager)).await);
                    theirs.push(rate(readers, gets, &keys, &theirs_by(&bare)).await);
                }
            }
            parts.close().await;
        }
        report("the manager:", bytes, rates, ROUNDS);
    }
}

fn keys(metadata: usize) -> Arc<[ContextKey]> {
    (0..CONTEXTS)
        .map(|number| {
            ContextKey::new(
                TenantId::parse("default").unwrap(),
                ContextId::parse(&id(metadata, number)).unwrap(),
            )
        })
        .collect()
}

/// One request of one session. Where its answer came from.
async fn get(manager: &dyn ContextManager, key: &ContextKey) -> Option<Origin> {
    let session = Session::new(Consistency::Session, Token::default());
    let head = session.scope(manager.get(key)).await.unwrap().value;
    // Who looks at more than the document has it read: its price belongs to what is measured.
    assert_eq!(head.id, key.id);
    session.origin()
}

/// Bytes that Redis keeps of this head.
async fn kept(cluster: &Cluster, id: &str) -> usize {
    let mut connection = multiplexed(&cluster.redis.url()).await;
    let mut keys = cmd("KEYS");
    keys.arg(format!("*{id}*"));
    let keys: Vec<bytes::Bytes> = keys.query_async(&mut connection).await.unwrap();
    let mut longest = 0;
    for key in keys {
        let mut length = cmd("STRLEN");
        length.arg(&*key);
        longest = longest.max(length.query_async(&mut connection).await.unwrap());
    }
    assert!(longest > 0, "Redis keeps {id}");
    longest
}

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Get = Arc<dyn for<'a> Fn(&'a ContextKey) -> BoxFuture<'a, ()> + Send + Sync>;

fn ours_by(manager: &Arc<dyn ContextManager>) -> Get {
    let manager = Arc::clone(manager);
    Arc::new(move |key| {
        let manager = Arc::clone(&manager);
        Box::pin(async move { assert_eq!(get(&*manager, key).await, Some(Origin::L2)) })
    })
}

fn theirs_by(bare: &MultiplexedConnection) -> Get {
    let bare = bare.clone();
    Arc::new(move |key| {
        let bare = bare.clone();
        Box::pin(async move { assert!(!bare_get(&bare, key.id.as_str()).await.is_empty()) })
    })
}

/// Gets a second by so many tasks at once, each beginning at another context.
async fn rate(readers: usize, gets: usize, keys: &Arc<[ContextKey]>, get: &Get) -> f64 {
    let each = gets / readers;
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for reader in 0..readers {
        let (keys, get) = (Arc::clone(keys), Arc::clone(get));
        running.spawn(async move {
            for key in keys.iter().cycle().skip(reader).take(each) {
                get(key).await;
            }
        });
    }
    running.join_all().await;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let gets = (each * readers) as f64;
    gets / begun.elapsed().as_secs_f64()
}
