//! N3: a hit of the second level against a bare GET of the same size on a multiplexed connection, in one run on a Redis of
//! its own: `cargo bench -p contextkeep-cache --features redis --bench remote`.
//!
//! Rounds alternate; the median of the ratios is what counts. Between the bare GET and the level stand the steps from one
//! to the other: both keys that a read needs, the connection that reconnects by itself, a deadline around it.
//! `… --bench remote -- one STEP SIZE TASKS GETS` does one step (0 is the bare GET) and nothing else, for profilers.
#![expect(clippy::print_stdout, reason = "a report for people is its output")]

use std::sync::Arc;
use std::time::Duration;

use contextkeep_cache::redis::{Options, RedisLevel};
use contextkeep_cache::settings::RedisSettings;
use contextkeep_cache::{
    Cache, Clock, Key, Loaded, Put, Read, SecondLevel, TokioClock, Version, Wanted, loader,
};
use contextkeep_test_support::{RedisNode, eventually_async};
use deadpool_redis::redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use deadpool_redis::redis::{Client, Cmd, cmd};

const KEYS: usize = 64;
const GETS: usize = 4_000;
const ROUNDS: usize = 31;

const STEPS: [&str; 6] = [
    "bare GET",
    "MGET of two keys",
    "… that reconnects",
    "… with a deadline",
    "RedisLevel::get",
    "Cache::get_or_load",
];

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes that nothing compresses, so that both ways carry the same (xorshift by G. Marsaglia, 2003).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    });
    words.flatten().take(size).collect()
}

/// Gets a second by so many tasks at once.
async fn rate(tasks: usize, gets: usize, get: &Get) -> f64 {
    let each = gets / tasks;
    let start = TokioClock.now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let get = Arc::clone(get);
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

/// Whatever a value is read by.
struct Ends {
    level: RedisLevel,
    cache: Cache,
    bare: MultiplexedConnection,
    managed: ConnectionManager,
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
    let config = ConnectionManagerConfig::new().set_pipeline_buffer_size(1024);
    let managed = ConnectionManager::new_with_config(client, config)
        .await
        .expect("the server runs");
    let ends = Ends {
        level,
        cache,
        bare,
        managed,
    };
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<usize>().ok());
    if let (Some("one"), Some(step), Some(size), Some(tasks), Some(gets)) = (
        words.first().map(String::as_str),
        number(1),
        number(2),
        number(3),
        number(4),
    ) {
        let names: Arc<[String]> = (0..KEYS).map(|key| format!("context-{size}-{key:08}")).collect();
        fill(&names, &noise(size), &ends).await;
        if let Some(step) = steps(&names, &ends).get(step) {
            rate(tasks, gets, step).await;
        }
        return;
    }
    for size in [256, 1 << 10, 16 << 10] {
        for tasks in [1, 32] {
            compare(size, tasks, &ends).await;
        }
    }
}

/// The names of the bare keys: a value's, and that of something as long as a position.
fn bare_get(name: &str) -> Cmd {
    let mut command = cmd("GET");
    command.arg(format!("bare-{name}"));
    command
}

fn bare_mget(name: &str) -> Cmd {
    let mut command = cmd("MGET");
    command.arg(format!("bare-{name}")).arg("bare-position");
    command
}

async fn one(link: impl ConnectionLike, command: Cmd) {
    let mut link = link;
    let got: bytes::Bytes = command.query_async(&mut link).await.expect("it is there");
    assert!(!got.is_empty());
}

async fn two(link: impl ConnectionLike, command: Cmd) {
    let mut link = link;
    let (got, _): (bytes::Bytes, bytes::Bytes) =
        command.query_async(&mut link).await.expect("they are there");
    assert!(!got.is_empty());
}

async fn fill(names: &[String], value: &[u8], ends: &Ends) {
    let mut bare = ends.bare.clone();
    for name in names {
        let put = Put::value(name.as_str(), Version::new(1), value.to_vec());
        ends.cache.put(put).await.expect("the key is short");
        let mut set = cmd("SET");
        set.arg(format!("bare-{name}")).arg(value);
        set.query_async::<()>(&mut bare).await.expect("it is taken");
    }
    let mut set = cmd("SET");
    set.arg("bare-position").arg("7".repeat(58));
    set.query_async::<()>(&mut bare.clone())
        .await
        .expect("it is taken");
}

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Get = Arc<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>;

/// One step after the other from the bare GET to the cache; each is boxed once for the sake of this list.
fn steps(names: &Arc<[String]>, ends: &Ends) -> [Get; 6] {
    let name = |names: &[String], key: usize| names.get(key).cloned().unwrap_or_default();
    let get_bare = {
        let (names, bare) = (Arc::clone(names), ends.bare.clone());
        move |key: usize| -> BoxFuture<'static, ()> {
            Box::pin(one(bare.clone(), bare_get(&name(&names, key))))
        }
    };
    let get_two = {
        let (names, bare) = (Arc::clone(names), ends.bare.clone());
        move |key: usize| -> BoxFuture<'static, ()> {
            Box::pin(two(bare.clone(), bare_mget(&name(&names, key))))
        }
    };
    let get_managed = {
        let (names, managed) = (Arc::clone(names), ends.managed.clone());
        move |key: usize| -> BoxFuture<'static, ()> {
            Box::pin(two(managed.clone(), bare_mget(&name(&names, key))))
        }
    };
    let get_timed = {
        let (names, managed) = (Arc::clone(names), ends.managed.clone());
        move |key: usize| -> BoxFuture<'static, ()> {
            let work = two(managed.clone(), bare_mget(&name(&names, key)));
            let limit = Duration::from_secs(3);
            Box::pin(async move { tokio::time::timeout(limit, work).await.expect("it is quick") })
        }
    };
    let get_level = {
        let keys: Vec<Key> = names.iter().map(|name| Key::from(name.as_str())).collect();
        let level = ends.level.clone();
        move |key: usize| -> BoxFuture<'static, ()> {
            let (level, keys) = (level.clone(), keys.get(key).cloned().into_iter().collect());
            Box::pin(async move {
                let got = level.get(keys).await.pop().and_then(Result::ok);
                assert!(got.is_some_and(|fetched| fetched.record.is_some()));
            })
        }
    };
    let never = loader::one(|_: Wanted| async { Err::<Loaded, _>("this is a miss") });
    let get_cache = {
        let (names, cache) = (Arc::clone(names), ends.cache.clone());
        move |key: usize| -> BoxFuture<'static, ()> {
            let (names, cache, never) = (Arc::clone(&names), cache.clone(), Arc::clone(&never));
            Box::pin(async move {
                let name = names.get(key).map_or("", String::as_str);
                let answer = cache.get_or_load(name, &Read::new(), &never).await;
                assert!(answer.is_ok(), "{answer:?}");
            })
        }
    };
    [
        Arc::new(get_bare),
        Arc::new(get_two),
        Arc::new(get_managed),
        Arc::new(get_timed),
        Arc::new(get_level),
        Arc::new(get_cache),
    ]
}

async fn compare(size: usize, tasks: usize, ends: &Ends) {
    let names: Arc<[String]> = (0..KEYS).map(|key| format!("context-{size}-{key:08}")).collect();
    fill(&names, &noise(size), ends).await;
    let mut rates: [Vec<f64>; 6] = Default::default();
    let steps = steps(&names, ends);
    for _ in 0..ROUNDS {
        for (rates, step) in rates.iter_mut().zip(&steps) {
            rates.push(rate(tasks, GETS, step).await);
        }
    }
    println!("{size} bytes, {tasks} tasks, median of {ROUNDS}");
    let [bare, ..] = &rates;
    for (step, rates) in STEPS.iter().zip(&rates) {
        let ratios = rates.iter().zip(bare).map(|(rate, bare)| rate / bare).collect();
        println!(
            "  {step:18} {:9.0}/s  ratio {:.2}",
            median(rates.clone()),
            median(ratios)
        );
    }
}
