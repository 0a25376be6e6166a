//! The cache of a server: which levels there are, who tells of others' changes, what is loaded before anybody asks.

mod counts;
mod warming;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use contextkeep_cache::redis::{Options, RedisLevel};
use contextkeep_cache::settings::CacheSettings;
use contextkeep_cache::{Backplane, Cache, RemoteReach};
use contextkeep_core::cached::relay::{Relay, RelayStatus};
use contextkeep_core::cached::{
    CACHE_NAME, CachedStore, ChangeFeed, FeedBackplane, HEAD_BYTES, HEAD_COPIES, HeldLimits, HeldStats,
};
use contextkeep_core::rollout::{Rollout, ShadowCounts};
use contextkeep_core::{Clock, ContextStore};

pub(crate) use self::counts::Counts;
pub(crate) use self::warming::run as keep_warm;
use crate::app::Storage;
use crate::config::ContextManagerSettings;

/// The share of `cache.in_memory.max_bytes` that heads get, in percent; the ends of contexts get the rest. Heads are a
/// few hundred bytes, items are what fills the memory.
const HEADS_SHARE: u64 = 25;

/// Percent of the room for the ends of contexts that holds them compressed, which takes about a third of their bytes: see the
/// bench `cold` of contextkeep-core.
const COLD_PERCENT: u8 = 50;

/// How far the clocks of servers and of the database may be apart, where the age of what is cached depends on them.
const CLOCKS_APART: Duration = Duration::from_mins(10);

/// The cache of a server, and what steers it.
#[derive(Debug)]
pub struct Caching {
    /// The store with a memory.
    pub store: CachedStore,
    /// Which reads use it.
    pub rollout: Arc<Rollout>,
    pub(crate) counts: Arc<Counts>,
    levels: Levels,
    /// What tells Redis of changes that their writers did not tell.
    relay: Option<Relay>,
    snapshot: Option<PathBuf>,
}

/// What there is, for the log and the admin API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    /// In the process.
    pub(crate) memory: bool,
    /// Between processes.
    pub(crate) redis: bool,
    /// Who tells of others' changes.
    pub(crate) backplane: &'static str,
}

/// How the cache is doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) heads: contextkeep_cache::Stats,
    pub(crate) held: HeldStats,
    pub(crate) shadows: ShadowCounts,
    pub(crate) relay: Option<RelayStatus>,
}

impl Caching {
    /// Builds the cache that the settings describe; none if no level is enabled. Has to be called on a runtime.
    ///
    /// # Errors
    /// What is wrong with the settings. A Redis that does not answer is not an error.
    pub fn new(
        settings: &ContextManagerSettings,
        storage: &Storage,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Option<Self>> {
        let cache = &settings.cache;
        // Of the embedded store there is nothing to share with other machines.
        let redis = cache.redis.enabled && matches!(storage, Storage::Postgres(_));
        if !cache.in_memory.enabled && !redis {
            return Ok(None);
        }
        let counts = Arc::new(Counts::default());
        let store = storage.store();
        let mut builder = heads(cache).observer(counts.clone());
        let mut relay = None;
        let backplane;
        if redis {
            let options = Options::named(CACHE_NAME).compression(&cache.compression);
            let level = RedisLevel::connect(&cache.redis, options).context("context_manager.cache.redis")?;
            let level = Arc::new(level);
            if let Storage::Postgres(postgres) = storage {
                let (outbox, interval) = (postgres.outbox(life(cache)), settings.database.relay_interval);
                relay = Some(Relay::start(outbox, store.clone(), level.clone(), interval));
            }
            builder = builder.second_level(level.clone()).backplane(level);
            backplane = "redis";
        } else {
            let (feed, name): (Arc<dyn ChangeFeed>, _) = match storage {
                Storage::Embedded(store) => (store.feed(), "data file"),
                Storage::Postgres(store) => (store.feed(), "outbox"),
            };
            let feed: Arc<dyn Backplane> = Arc::new(FeedBackplane::new(feed, store.clone()));
            builder = builder.partitions(FeedBackplane::PARTITIONS).backplane(feed);
            backplane = name;
        }
        let heads = builder.build().context("context_manager.cache")?;
        let snapshot = match storage {
            Storage::Embedded(_) => Some(settings.embedded.path.join("warm-contexts")),
            Storage::Postgres(_) => None,
        };
        Ok(Some(Self {
            store: cached(cache, store, heads, clock),
            rollout: Arc::new(Rollout::new(settings.rollout)),
            counts,
            levels: Levels {
                memory: cache.in_memory.enabled,
                redis,
                backplane,
            },
            relay,
            snapshot: snapshot.filter(|_| cache.warming.enabled),
        }))
    }

    pub(crate) const fn levels(&self) -> Levels {
        self.levels
    }

    /// Whether Redis answers; `None` without one, and before it was asked.
    pub(crate) fn redis_reach(&self) -> Option<RemoteReach> {
        self.store.cache().remote_reach()
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            heads: self.store.cache().stats(),
            held: self.store.held(),
            shadows: self.rollout.shadows(),
            relay: self.relay.as_ref().map(Relay::status),
        }
    }
}

/// Asks the Redis of the settings, until it answers or a connection and a command had their time.
///
/// # Errors
/// What is wrong with the settings, or that it does not answer.
pub(crate) async fn ask_redis(settings: &CacheSettings) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    let level = RedisLevel::connect(&settings.redis, Options::named(CACHE_NAME))?;
    let answered = async {
        while !level.positions().await.iter().any(Option::is_some) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let within = settings.redis.dial_timeout + settings.redis.read_timeout;
    let answered = tokio::time::timeout(within, answered).await;
    answered.with_context(|| format!("it did not answer within {within:?}"))
}

/// How long what is in Redis, or was read from there, is taken for fresh at most.
fn life(settings: &CacheSettings) -> Duration {
    let adaptive = &settings.adaptive;
    let longest = if adaptive.enabled {
        adaptive.max_ttl
    } else {
        Duration::ZERO
    };
    settings
        .redis
        .ttl
        .saturating_add(settings.in_memory.ttl.max(longest))
        .saturating_add(CLOCKS_APART)
}

fn heads(settings: &CacheSettings) -> contextkeep_cache::Builder {
    let memory = &settings.in_memory;
    let builder = settings.builder(CACHE_NAME);
    if !memory.enabled {
        return builder;
    }
    let bytes = memory.max_bytes.as_u64() * HEADS_SHARE / 100;
    builder
        .max_bytes(bytes.max(2))
        .decoded_size(HEAD_BYTES, HEAD_COPIES)
        .max_item(memory.max_item_size.as_u64().min(bytes / 2))
}

fn cached(
    settings: &CacheSettings,
    store: Arc<dyn ContextStore>,
    heads: Cache,
    clock: Arc<dyn Clock>,
) -> CachedStore {
    let memory = &settings.in_memory;
    let limits = memory.enabled.then(|| {
        let bytes = memory.max_bytes.as_u64() * (100 - HEADS_SHARE) / 100;
        HeldLimits {
            contexts: memory.max_size,
            bytes,
            context_bytes: memory.max_item_size.as_u64().min(bytes / 2),
            cold_percent: if settings.compression.enabled {
                COLD_PERCENT
            } else {
                0
            },
        }
    });
    CachedStore::new(store, heads, limits, clock)
}
