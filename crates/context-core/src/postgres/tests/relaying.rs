//! What no cache was told of, told by the outbox: with a real Redis.

use contextkeep_cache::Cache;
use contextkeep_cache::redis::{Options, RedisLevel};
use contextkeep_cache::settings::RedisSettings;
use contextkeep_test_support::Proxy;
use contextkeep_test_support::eventually_async;

use super::*;
use crate::cached::relay::{Outbox, Relay};
use crate::cached::{CachedStore, HeldLimits};
use crate::session::{Consistency, Session, Token};
use crate::store::Retention;
use crate::{Timestamp, Version};

pub(super) const SOON: Duration = Duration::from_secs(15);
/// What is cached lives this long at most.
const LIFE: Duration = Duration::from_hours(2);
const OFTEN: Duration = Duration::from_millis(50);

/// A server with a cache in Redis.
pub(super) struct Node {
    pub(super) store: Arc<PgContextStore>,
    level: Arc<RedisLevel>,
    pub(super) cached: CachedStore,
}

impl Node {
    pub(super) async fn start(scratch: &Scratch, clock: &Arc<ManualClock>, redis: &str) -> Self {
        let store = scratch.open(clock.clone()).await;
        let settings = RedisSettings {
            enabled: true,
            endpoints: vec![redis.to_owned()],
            ..RedisSettings::default()
        };
        // The database's name is nobody else's.
        let level = RedisLevel::connect(&settings, Options::named(scratch.name.clone())).unwrap();
        let level = Arc::new(level);
        let cache = Cache::builder(scratch.name.clone())
            .second_level(level.clone())
            .backplane(level.clone())
            .build()
            .unwrap();
        let limits = HeldLimits {
            contexts: 100,
            bytes: 8 << 20,
            context_bytes: 1 << 20,
            cold_percent: 30,
        };
        let cached = CachedStore::new(store.clone(), cache, Some(limits), clock.clone());
        let node = Self { store, level, cached };
        eventually_async("the cache to be trusted", SOON, async || {
            let stats = node.cached.cache().stats();
            (stats.trusted_partitions == 256 && node.store.history() != 0).then_some(())
        })
        .await;
        node
    }

    /// The version that a read without a token is answered with.
    async fn reads(&self, key: &ContextKey) -> Version {
        let session = Session::new(Consistency::Bounded, Token::default());
        session.scope(self.cached.head(key)).await.unwrap().version
    }

    fn relay(&self) -> Relay {
        let outbox = self.store.outbox(LIFE);
        Relay::start(outbox, self.store.clone(), self.level.clone(), OFTEN)
    }

    /// Nothing is left to be told.
    async fn is_told(&self) -> bool {
        let look = self.store.outbox(LIFE).look().await.unwrap();
        !look.due && look.lag.is_none()
    }
}

pub(super) fn redis() -> String {
    Services::attach().urls.redis
}

fn proxied() -> (Proxy, String) {
    let url = redis();
    let addr = url.trim_start_matches("redis://").trim_end_matches('/');
    let proxy = Proxy::start(addr.parse().unwrap()).unwrap();
    let url = format!("redis://{}", proxy.addr());
    (proxy, url)
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

/// A context that both nodes hold in version 1 and read so.
async fn known(nodes: [&Node; 2]) -> ContextKey {
    let created = nodes[0]
        .cached
        .create(&tenant(), NewContext::of_agent("a"))
        .await
        .unwrap();
    let key = ContextKey::new(tenant(), created.context.id);
    for node in nodes {
        assert_eq!(node.reads(&key).await, 1);
    }
    key
}

/// A change by somebody who tells no cache.
async fn change(store: &PgContextStore, key: &ContextKey) -> Version {
    let patch = ContextPatch {
        name: Some(Some("changed".to_owned())),
        ..ContextPatch::default()
    };
    store.update(key, patch, None).await.unwrap().version
}

/// Has a relay of one node tell what there is.
async fn told_by(node: &Node, other: &Node) {
    let relay = node.relay();
    eventually_async("all to be told", SOON, async || {
        other.is_told().await.then_some(())
    })
    .await;
    drop(relay);
}

/// Waits until nothing older runs anywhere on the server, which others use as well.
async fn due(outbox: &dyn Outbox) {
    eventually_async("something to tell", SOON, async || {
        outbox.look().await.unwrap().due.then_some(())
    })
    .await;
}

/// The staleness that the relay mends is there before it begins.
async fn stays_stale(nodes: [&Node; 2], key: &ContextKey) {
    for node in nodes {
        assert_eq!(node.reads(key).await, 1, "somebody told the cache already");
    }
}

async fn column<T: for<'a> tokio_postgres::types::FromSql<'a>>(scratch: &Scratch, sql: &str) -> T {
    let dsn = with_database(&scratch.server, &scratch.name);
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let value = client.query_one(sql, &[]).await.unwrap().get(0);
    drop(client);
    connection.await.unwrap().unwrap();
    value
}

async fn place(scratch: &Scratch) -> String {
    column(
        scratch,
        "SELECT concat(xid, '/', change_no, '/', after_ctx) FROM contextkeep.relaying",
    )
    .await
}

pub(super) async fn sql(scratch: &Scratch, sql: &str) {
    run(&with_database(&scratch.server, &scratch.name), sql).await;
}

// O1, G5: whoever wrote it and whether he lived to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_write_past_the_cache_is_known_everywhere() {
    let scratch = Scratch::create(&shared()).await;
    let clock = Arc::new(ManualClock::starting_at(Timestamp::from_micros(1 << 50)));
    let url = redis();
    let here = Node::start(&scratch, &clock, &url).await;
    let there = Node::start(&scratch, &clock, &url).await;
    let key = known([&here, &there]).await;
    let outsider = scratch.open(clock.clone()).await;
    assert_eq!(change(&outsider, &key).await, 2);
    stays_stale([&here, &there], &key).await;
    let relay = here.relay();
    eventually_async("the other server to know", SOON, async || {
        (there.reads(&key).await == 2).then_some(())
    })
    .await;
    assert!(relay.status().mended >= 1, "{:?}", relay.status());
    // Whoever has nothing in the process meets nothing old in Redis.
    let newcomer = Node::start(&scratch, &clock, &url).await;
    assert_eq!(newcomer.reads(&key).await, 2);
    // What the cache was told by its writer is not told anew.
    eventually_async("the outbox to be told", SOON, async || {
        there.is_told().await.then_some(())
    })
    .await;
    let mended = relay.status().mended;
    for _ in 0..20 {
        change_through(&there, &key).await;
    }
    let known = relay.status().known;
    eventually_async("the relay to come by", SOON, async || {
        (there.is_told().await && relay.status().known > known).then_some(())
    })
    .await;
    assert_eq!(here.reads(&key).await, 22);
    assert!(relay.status().mended <= mended + 20);
    // Deletes are changes.
    outsider.delete(&key, None).await.unwrap();
    eventually_async("the delete to be known", SOON, async || {
        let session = Session::new(Consistency::Bounded, Token::default());
        let head = session.scope(there.cached.head(&key)).await;
        matches!(head, Err(Error::NotFound)).then_some(())
    })
    .await;
}

async fn change_through(node: &Node, key: &ContextKey) {
    let patch = ContextPatch {
        description: Some(Some("through".to_owned())),
        ..ContextPatch::default()
    };
    node.cached.update(key, patch, None).await.unwrap();
}

// O2: one holds the place, by name and for a limited time; who lost it moves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn two_relays_move_the_place_once() {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(crate::contract::clock()).await;
    let created = store.create(&tenant(), NewContext::of_agent("a")).await.unwrap();
    let key = ContextKey::new(tenant(), created.context.id);
    let (one, other) = (store.outbox(LIFE), store.outbox(LIFE));
    due(&*one).await;
    let first = one.take(100).await.unwrap().unwrap();
    assert!(
        first.overtaken,
        "before the first time nobody knows what was told"
    );
    assert!(first.changes.contains(&(key.clone(), 1)));
    assert!(!other.look().await.unwrap().due, "it is taken");
    assert!(other.take(100).await.unwrap().is_none());
    assert!(one.told(&first).await.unwrap());
    // Given back with the last of it: whoever comes next has it, and goes on there.
    let version = change(&store, &key).await;
    due(&*other).await;
    let mut second = other.take(100).await.unwrap().unwrap();
    if second.changes != [(key.clone(), version)] {
        // The first time the outbox itself may have had to wait for others' transactions.
        assert!(other.told(&second).await.unwrap());
        due(&*other).await;
        second = other.take(100).await.unwrap().unwrap();
    }
    assert_eq!(second.changes, [(key.clone(), version)]);
    assert!(!second.overtaken);
    // Its process hangs: the lease ends, another one goes on, and what it comes with then is refused.
    sql(
        &scratch,
        "UPDATE contextkeep.relaying SET held_until = clock_timestamp()",
    )
    .await;
    let third = one.take(100).await.unwrap().unwrap();
    assert_eq!(third.changes, second.changes);
    let before = place(&scratch).await;
    assert!(!other.told(&second).await.unwrap());
    other.give_back().await.unwrap();
    assert_eq!(place(&scratch).await, before);
    assert!(
        other.take(100).await.unwrap().is_none(),
        "it gave back what it has not"
    );
    assert!(one.told(&third).await.unwrap());
    assert_ne!(place(&scratch).await, before);
    assert_eq!(one.look().await.unwrap().lag, None);
}

// O1: a transaction that draws its number early and commits late is not passed over; a batch ends where it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn nothing_is_passed_over() {
    let scratch = Scratch::create(&shared()).await;
    let store = scratch.open(crate::contract::clock()).await;
    let mut keys = Vec::new();
    for _ in 0..5 {
        let new = NewContext::of_agent("a");
        let created = store.create(&tenant(), new).await.unwrap();
        keys.push(ContextKey::new(tenant(), created.context.id));
    }
    sql(&scratch, "UPDATE contextkeep.relaying SET overtaken = false").await;
    let outbox = store.outbox(LIFE);
    let mut told = Vec::new();
    eventually_async("all to be read", SOON, async || {
        let untold = outbox.take(2).await.unwrap().unwrap();
        assert!(untold.changes.len() <= 2);
        told.extend(untold.changes.iter().map(|(key, _)| key.clone()));
        assert!(outbox.told(&untold).await.unwrap());
        (told.len() >= 5).then_some(())
    })
    .await;
    assert_eq!(told.len(), 5);
    assert!(keys.iter().all(|key| told.contains(key)));
    let dsn = with_database(&scratch.server, &scratch.name);
    let (late, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    late.batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    change(&store, &keys[1]).await;
    let look = outbox.look().await.unwrap();
    assert!(!look.due, "a transaction before it still runs");
    assert!(look.lag.is_some(), "it waits all the same");
    late.batch_execute(&format!(
        "INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
         SELECT 0, ARRAY[ctx_no], ARRAY[7], '{{}}', '{{}}', '{{}}' FROM contextkeep.contexts WHERE id = '{}';
         COMMIT",
        keys[0].id
    ))
    .await
    .unwrap();
    eventually_async("both to be read", SOON, async || {
        let untold = outbox.take(100).await.unwrap().unwrap();
        [(&keys[0], 7), (&keys[1], 2)]
            .iter()
            .all(|(key, version)| untold.changes.contains(&((*key).clone(), *version)))
            .then_some(())
    })
    .await;
    drop(late);
    connection.await.unwrap().unwrap();
}

// O1, O3: while Redis is away nothing is lost, and no transaction waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn redis_that_is_away_or_hangs_is_told_when_it_is_back() {
    let scratch = Scratch::create(&shared()).await;
    let clock = Arc::new(ManualClock::starting_at(Timestamp::from_micros(1 << 50)));
    let (proxy, url) = proxied();
    let here = Node::start(&scratch, &clock, &url).await;
    let there = Node::start(&scratch, &clock, &redis()).await;
    let relay = here.relay();
    let key = known([&here, &there]).await;
    let told = || {
        eventually_async("the outbox to be told", SOON, async || {
            there.is_told().await.then_some(())
        })
    };
    told().await;
    for (version, hangs) in [(2, false), (3, true)] {
        let (before, failed) = (place(&scratch).await, relay.status().failed);
        if hangs {
            proxy.blackhole();
        } else {
            proxy.cut();
        }
        assert_eq!(change(&there.store, &key).await, version);
        if hangs {
            // The indexer may be between two statements at one moment, but not for as long as Redis hangs.
            eventually_async("the relay to be at it without a transaction", SOON, async || {
                let held = "SELECT held_until > clock_timestamp() AND NOT EXISTS (
                                SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
                                AND pid <> pg_backend_pid() AND state = 'idle in transaction')
                            FROM contextkeep.relaying";
                column::<bool>(&scratch, held).await.then_some(())
            })
            .await;
        }
        eventually_async("a try to fail", SOON, async || {
            (relay.status().failed > failed).then_some(())
        })
        .await;
        assert_eq!(place(&scratch).await, before, "the place moved without Redis");
        assert_eq!(
            there.reads(&key).await,
            version - 1,
            "somebody else told the cache"
        );
        proxy.heal();
        told().await;
        eventually_async("the change to be known", SOON, async || {
            (there.reads(&key).await == version).then_some(())
        })
        .await;
        assert_ne!(place(&scratch).await, before);
    }
}

/// Purges the outbox, which waits for no relay.
async fn purged(scratch: &Scratch, node: &Node) {
    let retention = Retention {
        tombstones_before: Timestamp::from_micros(0),
        keys_before: Timestamp::from_micros(0),
        batch: 100,
    };
    eventually_async("the outbox to be purged", SOON, async || {
        node.store.purge(retention).await.unwrap();
        let left = "SELECT count(*) FROM contextkeep.changes";
        (column::<i64>(scratch, left).await == 0).then_some(())
    })
    .await;
}

// O5: what was purged before it was told is found in the heads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_place_that_was_overtaken_has_all_told_anew() {
    let scratch = Scratch::create(&shared()).await;
    let clock = Arc::new(ManualClock::starting_at(Timestamp::from_micros(1 << 50)));
    let url = redis();
    let here = Node::start(&scratch, &clock, &url).await;
    let there = Node::start(&scratch, &clock, &url).await;
    let key = known([&here, &there]).await;
    told_by(&here, &there).await;
    change(&there.store, &key).await;
    clock.advance(Duration::from_mins(6));
    purged(&scratch, &there).await;
    stays_stale([&here, &there], &key).await;
    let relay = here.relay();
    eventually_async("the purged change to be known", SOON, async || {
        (there.reads(&key).await == 2).then_some(())
    })
    .await;
    assert_eq!(relay.status().walks, 1);
    drop(relay);
    // A purge of what was told is no reason for a walk.
    change(&here.store, &key).await;
    told_by(&here, &there).await;
    clock.advance(Duration::from_mins(6));
    purged(&scratch, &there).await;
    assert!(there.is_told().await);
    // What did not change lately cannot be in the cache.
    let other = known([&here, &there]).await;
    told_by(&here, &there).await;
    clock.advance(LIFE + Duration::from_secs(1));
    change(&there.store, &key).await;
    sql(
        &scratch,
        "UPDATE contextkeep.relaying SET overtaken = true, held_until = '-infinity'",
    )
    .await;
    let walked = there.store.outbox(LIFE).take(100).await.unwrap().unwrap();
    assert!(walked.overtaken && walked.place.walked.is_none() && !walked.more);
    assert!(walked.changes.contains(&(key, 4)), "{walked:?}");
    assert!(walked.changes.iter().all(|(key, _)| *key != other), "{walked:?}");
}

// O5: rows that were copied from another server, whose numbers of transactions are not those of this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn a_place_of_another_server_hides_nothing() {
    let scratch = Scratch::create(&shared()).await;
    let clock = Arc::new(ManualClock::starting_at(Timestamp::from_micros(1 << 50)));
    let url = redis();
    let here = Node::start(&scratch, &clock, &url).await;
    let there = Node::start(&scratch, &clock, &url).await;
    let key = known([&here, &there]).await;
    told_by(&here, &there).await;
    sql(
        &scratch,
        "UPDATE contextkeep.relaying SET xid = '9000000000000000000', held_until = '-infinity'",
    )
    .await;
    change(&there.store, &key).await;
    stays_stale([&here, &there], &key).await;
    let relay = here.relay();
    eventually_async("the change to be known", SOON, async || {
        (there.reads(&key).await == 2).then_some(())
    })
    .await;
    assert_eq!(relay.status().walks, 1);
}
