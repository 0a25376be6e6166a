//! N3: a hit of the second level against a bare GET of the same size on a multiplexed connection, in one run on a Redis of
//! its own: `cargo bench -p contextkeep-cache --features redis --bench remote`.
//!
//! Rounds of the three alternate; the median of the ratios is what counts.
#![expect(clippy::print_stdout, reason = "a report for people is its output")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use contextkeep_cache::redis::{Options, RedisLevel};
use contextkeep_cache::settings::RedisSettings;
use contextkeep_cache::{
    Cache, Clock, Key, Loaded, Put, Read, SecondLevel, TokioClock, Version, Wanted, loader,
};
use contextkeep_test_support::{RedisNode, eventually_async};
use deadpool_redis::redis::{Client, cmd};

const KEYS: usize = 64;
const GETS: usize = 4_000;
const ROUNDS: usize = 31;

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Gets a second by so many tasks at once.
async fn rate<F>(tasks: usize, get: impl Fn(usize) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let each = GETS / tasks;
    let start = TokioClock.now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let get = get.clone();
        running.spawn(async move {
            for number in 0..each {
                get((task * each + number) % KEYS).await;
            }
        });
    }
    running.join_all().await;
    let gets = u32::try_from(each * tasks).unwrap_or(u32::MAX);
    f64::from(gets) / TokioClock.now().since(start).as_secs_f64()
}

#[tokio::main]
async fn main() {
    let node = RedisNode::start_alone().expect("Redis is installed");
    let settings = RedisSettings {
        endpoints: vec![node.url()],
        ..RedisSettings::default()
    };
    let level = RedisLevel::connect(&settings, Options::named("bench")).expect("they are good settings");
    let cache = Cache::builder("bench")
        .without_memory()
        .second_level(Arc::new(level.clone()))
        .backplane(Arc::new(level.clone()))
        .build()
        .expect("it is a good description");
    eventually_async(
        "all partitions to be trusted",
        Duration::from_secs(30),
        async || (cache.stats().trusted_partitions == 256).then_some(()),
    )
    .await;
    let client = Client::open(node.url()).expect("it is a good address");
    let bare = client
        .get_multiplexed_async_connection()
        .await
        .expect("the server runs");
    for size in [256, 1 << 10, 16 << 10] {
        for tasks in [1, 32] {
            compare(size, tasks, &level, &cache, &bare).await;
        }
    }
}

async fn fill(
    names: &[String],
    value: &[u8],
    cache: &Cache,
    bare: &deadpool_redis::redis::aio::MultiplexedConnection,
) {
    for name in names {
        let put = Put::value(name.as_str(), Version::new(1), value.to_vec());
        cache.put(put).await.expect("the key is short");
        let mut bare = bare.clone();
        let mut set = cmd("SET");
        set.arg(format!("bare-{name}")).arg(value);
        set.query_async::<()>(&mut bare).await.expect("it is taken");
    }
}

async fn compare(
    size: usize,
    tasks: usize,
    level: &RedisLevel,
    cache: &Cache,
    bare: &deadpool_redis::redis::aio::MultiplexedConnection,
) {
    let value = vec![7_u8; size];
    let names: Arc<[String]> = (0..KEYS).map(|key| format!("context-{size}-{key:08}")).collect();
    fill(&names, &value, cache, bare).await;
    let never = loader::one(|_: Wanted| async { Err::<Loaded, _>("this is a miss") });
    let get_bare = {
        let (names, bare) = (Arc::clone(&names), bare.clone());
        move |key: usize| {
            let (mut bare, mut get) = (bare.clone(), cmd("GET"));
            get.arg(names.get(key).map(|name| format!("bare-{name}")));
            async move {
                let got: bytes::Bytes = get.query_async(&mut bare).await.expect("it is there");
                assert!(!got.is_empty());
            }
        }
    };
    let get_level = {
        let keys: Vec<Key> = names.iter().map(|name| Key::from(name.as_str())).collect();
        let level = level.clone();
        move |key: usize| {
            let (level, keys) = (level.clone(), keys.get(key).cloned().into_iter().collect());
            async move {
                let got = level.get(keys).await.pop().and_then(Result::ok);
                assert!(got.is_some_and(|fetched| fetched.record.is_some()));
            }
        }
    };
    let get_cache = {
        let (names, cache, never) = (Arc::clone(&names), cache.clone(), Arc::clone(&never));
        move |key: usize| {
            let (names, cache, never) = (Arc::clone(&names), cache.clone(), Arc::clone(&never));
            async move {
                let name = names.get(key).map_or("", String::as_str);
                let answer = cache.get_or_load(name, &Read::new(), &never).await;
                assert!(answer.is_ok(), "{answer:?}");
            }
        }
    };
    let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    let (mut level_ratios, mut cache_ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = rate(tasks, get_bare.clone()).await;
        let level = rate(tasks, get_level.clone()).await;
        let cache = rate(tasks, get_cache.clone()).await;
        level_ratios.push(level / bare);
        cache_ratios.push(cache / bare);
        a.push(bare);
        b.push(level);
        c.push(cache);
    }
    println!("{size} bytes, {tasks} tasks, median of {ROUNDS}");
    println!("  bare GET             {:9.0}/s", median(a));
    println!(
        "  RedisLevel::get      {:9.0}/s  ratio {:.2}",
        median(b),
        median(level_ratios)
    );
    println!(
        "  Cache::get_or_load   {:9.0}/s  ratio {:.2}",
        median(c),
        median(cache_ratios)
    );
}
