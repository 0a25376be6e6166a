//! What happens in a run.

use std::sync::Arc;
use std::time::Duration;

use super::check::Asked;
use super::world::{Commit, Port, Session, Wires, World, now, pick, value_now};
use super::{BOUND, world};
use crate::answer::{Answer, Read};
use crate::cache::Cache;
use crate::error::Error;
use crate::loader::Loader;
use crate::policy::Policy;
use crate::version::{Key, Version};
use crate::{Put, clock::Nanos};

const NODES: usize = 3;
const CLIENTS: usize = 4;
const KEYS: usize = 5;
const TAGS: [&str; 2] = ["red", "blue"];
const ACTIVE: Duration = Duration::from_millis(2500);

fn key(number: usize) -> Key {
    Key::from(format!("k{number}"))
}

/// Every other key has a tag.
fn tag(key: &Key) -> Option<Key> {
    match key.as_str() {
        "k0" | "k1" => Some(Key::from(TAGS[0])),
        "k2" => Some(Key::from(TAGS[1])),
        _ => None,
    }
}

/// A node of the real engine.
pub(super) fn node(world: &Arc<World>, index: usize) -> Cache {
    let port = Arc::new(Port {
        world: Arc::clone(world),
        node: index,
    });
    let policy = Policy {
        remote_timeout: Duration::from_millis(100),
        lease_wait: Duration::from_millis(150),
        ttl: Duration::from_millis(1500),
        negative_ttl: Duration::from_millis(700),
        load_timeout: Duration::from_secs(20),
        marker_ttl: Duration::from_secs(20),
        hard_timeout: Duration::from_secs(15),
        ..Policy::default()
    };
    let entries = 3 + (world.seed % 3) * 2;
    let mut builder = Cache::builder(format!("node {index}"))
        .max_entries(entries)
        .max_bytes(1 << 20)
        .max_item(1 << 10)
        .partitions(world::PARTITIONS)
        .bound(BOUND)
        .policy(policy)
        .seed(world.seed ^ (index as u64))
        .second_level(Arc::<Port>::clone(&port))
        .backplane(port);
    builder.mutant = world.plant.mutant;
    builder.build().unwrap()
}

type Nodes = Arc<std::sync::Mutex<Vec<Cache>>>;

pub(super) async fn drive(world: &Arc<World>) {
    for _ in 0..NODES {
        world.state().wires.push(Wires::default());
    }
    let nodes: Nodes = Arc::new(std::sync::Mutex::new(
        (0..NODES).map(|index| node(world, index)).collect(),
    ));
    let end = now().after(ACTIVE);
    let mut tasks = Vec::new();
    for _ in 0..CLIENTS {
        tasks.push(tokio::spawn(client(Arc::clone(world), Arc::clone(&nodes), end)));
    }
    tasks.push(tokio::spawn(trouble(Arc::clone(world), Arc::clone(&nodes), end)));
    for task in tasks {
        if let Err(error) = task.await {
            world.violated(format!("a task of the simulation failed: {error}"));
        }
    }
    if !world.failed() {
        settle(world, &nodes).await;
    }
}

/// A client goes from node to node, with its token or without.
async fn client(world: Arc<World>, nodes: Nodes, end: Nanos) {
    let loader = world.loader();
    let mut session = Session::new();
    while now() < end && !world.failed() {
        tokio::time::sleep(world.up_to(60)).await;
        let node = nodes.lock().unwrap()[pick(&world.random, NODES)].clone();
        let key = key(pick(&world.random, KEYS));
        match world.random.bits() % 20 {
            0..=2 => write(&world, &node, &key, &mut session).await,
            3 => {
                let tag = TAGS[pick(&world.random, TAGS.len())];
                drop(node.invalidate_tag(tag).await);
            }
            4 => {
                let keys: Vec<Key> = (0..KEYS).map(self::key).collect();
                read_many(&world, &node, &keys, &loader).await;
            }
            _ => read(&world, &node, &key, &mut session, &loader).await,
        }
    }
}

async fn write(world: &Arc<World>, node: &Cache, key: &Key, session: &mut Session) {
    let commit = world.commit(key, world.chance(0.2));
    session.insert(key.clone(), commit.version);
    // Committed and told are two things; others may come between, or it may never be told by this one.
    let late = if world.chance(0.2) { 200 } else { 3 };
    let never = world.chance(0.05);
    tokio::time::sleep(world.up_to(late)).await;
    let put = match world.random.bits() % 3 {
        _ if commit.deleted => Put::tombstone(key.as_str(), commit.version),
        0 => Put::invalidation(key.as_str(), commit.version),
        _ => {
            // The tags' generations are captured when the change is told, so that is when the value is made.
            let put = Put::value(key.as_str(), commit.version, value_now(&commit));
            put.tags(tag(key))
        }
    };
    let put = put.mark(commit.mark);
    if never {
        outbox(world, node);
    } else if let Err(error) = node.put(put).await {
        world.violated(format!("a change failed: {error}"));
    }
}

/// What a tailer of the source's outbox does for those who died before they told: it repeats recent changes.
fn outbox(world: &Arc<World>, node: &Cache) {
    let recent: Vec<_> = {
        let state = world.state();
        let from = state.commits.len().saturating_sub(12);
        state.commits.get(from..).unwrap_or_default().to_vec()
    };
    let (node, delay) = (node.clone(), world.up_to(300));
    drop(tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let puts = recent
            .into_iter()
            .map(|commit| Put::invalidation(commit.key.as_str(), commit.version).mark(commit.mark));
        drop(node.put_many(puts.collect()).await);
    }));
}

fn asked(world: &World, key: &Key, session: &Session) -> (Asked, Read) {
    let floor = if world.chance(0.5) {
        session.get(key).copied().unwrap_or_default()
    } else {
        Version::ZERO
    };
    let stale = world.chance(0.1).then_some(Duration::from_secs(2));
    let asked = Asked {
        key: key.clone(),
        began: now(),
        floor,
        stale,
        tag: tag(key),
    };
    let mut read = Read::new().floor(floor).tags(tag(key));
    if let Some(stale) = stale {
        read = read.stale_on_error(stale);
    }
    (asked, read)
}

async fn read(world: &Arc<World>, node: &Cache, key: &Key, session: &mut Session, loader: &Arc<dyn Loader>) {
    let (asked, read) = asked(world, key, session);
    match node.get_or_load(key, &read, loader).await {
        Ok(answer) => {
            world.check(&asked, &answer);
            let seen = session.entry(key.clone()).or_default();
            *seen = (*seen).max(answer.version());
        }
        Err(error) => failed(world, &asked, &error),
    }
}

/// G9: with the source up, every read succeeds.
fn failed(world: &World, asked: &Asked, error: &Error) {
    if !matches!(error, Error::Load(_)) {
        world.violated(format!("G9: {asked:?}: {error}"));
    }
}

async fn read_many(world: &Arc<World>, node: &Cache, keys: &[Key], loader: &Arc<dyn Loader>) {
    // No tag: an entry that is loaded without its tag would be another entry.
    let untagged: Vec<&Key> = keys.iter().filter(|key| tag(key).is_none()).collect();
    let began = now();
    let names: Vec<&str> = untagged.iter().map(|key| key.as_str()).collect();
    let answers = node.get_many(&names, &Read::new(), loader).await;
    for (key, answer) in untagged.into_iter().zip(answers) {
        let asked = Asked {
            key: key.clone(),
            began,
            floor: Version::ZERO,
            stale: None,
            tag: None,
        };
        match answer {
            Ok(answer) => world.check(&asked, &answer),
            Err(error) => failed(world, &asked, &error),
        }
    }
}

/// Everything that goes wrong outside.
async fn trouble(world: Arc<World>, nodes: Nodes, end: Nanos) {
    let mut failed_over = now();
    while now() < end && !world.failed() {
        tokio::time::sleep(Duration::from_millis(20) + world.up_to(40)).await;
        let mut state = world.state();
        let snapshot = (now(), state.model.clone());
        state.replica.push(snapshot);
        if state.replica.len() > 4 {
            state.replica.remove(0);
        }
        drop(state);
        if !world.chance(0.12) {
            continue;
        }
        world.state().counts.troubles += 1;
        let index = pick(&world.random, NODES);
        match world.random.bits() % 8 {
            0 => world.state().wires[index].cut = true,
            1 | 2 => world.state().wires.iter_mut().for_each(|wires| wires.cut = false),
            3 => {
                // The node crashes and comes back empty; what it had under way goes on as a ghost.
                world.state().wires[index] = Wires::default();
                let fresh = node(&world, index);
                nodes.lock().unwrap()[index] = fresh;
            }
            4 => {
                let mut state = world.state();
                state.model.flush();
                state.replica.clear();
                state.ledger.lose(Nanos::ZERO);
                drop(state);
                recover_changes(&world, &nodes);
            }
            5 if now().since(failed_over) > Duration::from_millis(100) => {
                failed_over = now();
                let mut state = world.state();
                let Some((since, model)) = state.replica.first().cloned() else {
                    continue;
                };
                state.model = model;
                state.replica.clear();
                state.ledger.lose(since);
                drop(state);
                recover_changes(&world, &nodes);
            }
            6 => {
                let key = key(pick(&world.random, KEYS));
                world.state().model.evict(&key);
            }
            _ => {
                let fails = world.chance(0.3);
                world.state().source_fails = fails;
            }
        }
    }
}

/// After a loss somebody repeats the recent changes.
fn recover_changes(world: &Arc<World>, nodes: &Nodes) {
    let node = nodes.lock().unwrap()[pick(&world.random, NODES)].clone();
    outbox(world, &node);
}

/// An absence need not have the version of the delete, where the source forgets its deletes.
fn agrees(answer: &Answer, commit: &Commit) -> bool {
    let absent = commit.deleted && answer.value().is_none();
    absent || answer.version() == commit.version
}

/// Everything heals; then all nodes have to agree with the source.
async fn settle(world: &Arc<World>, nodes: &Nodes) {
    {
        let mut state = world.state();
        state.wires.iter_mut().for_each(|wires| wires.cut = false);
        state.source_fails = false;
        state.loss = 0.0;
        state.calm = true;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all: Vec<Cache> = nodes.lock().unwrap().clone();
    for number in 0..KEYS {
        let key = key(number);
        if let Some(commit) = world.latest(&key) {
            let put = Put::invalidation(key.as_str(), commit.version).mark(commit.mark);
            drop(all[0].put(put).await);
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let loader = world.loader();
    for number in 0..KEYS {
        let key = key(number);
        let Some(commit) = world.latest(&key) else {
            continue;
        };
        for node in &all {
            let asked = Asked {
                key: key.clone(),
                began: now(),
                floor: Version::ZERO,
                stale: None,
                tag: tag(&key),
            };
            match node
                .get_or_load(&key, &Read::new().tags(tag(&key)), &loader)
                .await
            {
                Ok(answer) if agrees(&answer, &commit) => world.check(&asked, &answer),
                other => {
                    world.violated(format!(
                        "in the end {} has {other:?} of {key}, not {commit:?}",
                        node.name()
                    ));
                }
            }
        }
    }
    for node in &all {
        let stats = node.stats();
        if stats.deferred != 0 || stats.trusted_partitions != usize::from(world::PARTITIONS) {
            world.violated(format!("{} has not healed: {stats:?}", node.name()));
        }
    }
}
