//! Deterministic simulation: several nodes of the real engine on a virtual clock, over a model of the second level and
//! of a source with lagging replicas, while messages and answers are lost, late, doubled and out of order, nodes crash,
//! and the second level fails over, is flushed, evicts and can't be reached. Every read is checked against G4 to G7,
//! every fill against G6, and in the end all nodes have to agree with the source.
//!
//! `CACHE_SEEDS` says how many seeds to run (default: few, so that a debug build is quick), `CACHE_SEED` runs one:
//! `CACHE_SEEDS=10000 cargo test --release -p contextkeep-cache --lib simulation`.

mod check;
mod drive;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::drive::drive;
use self::world::World;
use crate::engine::Mutant;
use crate::model::Faults;

const BOUND: Duration = Duration::from_millis(300);

/// What is planted.
#[derive(Clone, Copy, Debug, Default)]
struct Plant {
    mutant: Option<Mutant>,
    faults: Faults,
}

/// What a run did, so that it can be seen that it did something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    reads: u64,
    hits: u64,
    from_l2: u64,
    changes: u64,
    troubles: u64,
}

/// One run. The first violation, or what was done.
fn run(seed: u64, plant: Plant) -> Result<Counts, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let world = runtime.block_on(async {
        let world = Arc::new(World::new(seed, plant));
        drive(&world).await;
        world
    });
    drop(runtime);
    let outcome = world.verdict();
    outcome.map_err(|violation| {
        format!(
            "seed {seed}: {violation}\nreplay: CACHE_SEED={seed} cargo test -p contextkeep-cache --lib simulation"
        )
    })
}

/// Runs seeds on all cores until one fails.
fn run_many(seeds: impl Iterator<Item = u64> + Send, plant: Plant) -> Result<Counts, String> {
    let seeds = Mutex::new(seeds);
    let failure = Mutex::new(None);
    let sum = [const { AtomicU64::new(0) }; 5];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let Some(seed) = seeds.lock().unwrap().next() else {
                        return;
                    };
                    match run(seed, plant) {
                        Ok(counts) => {
                            let each = [
                                counts.reads,
                                counts.hits,
                                counts.from_l2,
                                counts.changes,
                                counts.troubles,
                            ];
                            for (sum, one) in sum.iter().zip(each) {
                                sum.fetch_add(one, Ordering::Relaxed);
                            }
                        }
                        Err(violation) => {
                            failure.lock().unwrap().get_or_insert(violation);
                        }
                    }
                }
            });
        }
    });
    let [reads, hits, from_l2, changes, troubles] = sum.map(AtomicU64::into_inner);
    failure.into_inner().unwrap().map_or(
        Ok(Counts {
            reads,
            hits,
            from_l2,
            changes,
            troubles,
        }),
        Err,
    )
}

/// A number from the environment, through the one thing that tells a test of it at run time.
fn number(name: &str) -> Option<u64> {
    let listed = std::process::Command::new("printenv").arg(name).output().ok()?;
    String::from_utf8(listed.stdout).ok()?.trim().parse().ok()
}

#[test]
fn no_seed_breaks_a_guarantee() {
    let counts = match number("CACHE_SEED") {
        Some(seed) => run(seed, Plant::default()),
        None => run_many(0..number("CACHE_SEEDS").unwrap_or(40), Plant::default()),
    };
    let counts = counts.unwrap_or_else(|violation| panic!("{violation}"));
    println!("{counts:?}");
    // It was not a walk in the park.
    assert!(
        counts.reads > 50 && counts.hits > 10 && counts.from_l2 > 5,
        "{counts:?}"
    );
    assert!(counts.changes > 10 && counts.troubles > 1, "{counts:?}");
}

#[test]
fn a_seed_is_replayed_exactly() {
    for seed in 0..5 {
        assert_eq!(run(seed, Plant::default()), run(seed, Plant::default()));
    }
}

fn is_found(plant: Plant, by: &str) {
    let found = run_many(0..3000, plant).expect_err("the planted fault was not found");
    assert!(found.contains(by), "found by another check: {found}");
}

#[test]
fn a_blind_set_is_found() {
    let faults = Faults {
        blind_set: true,
        ..Faults::default()
    };
    is_found(Plant { mutant: None, faults }, "G");
}

#[test]
fn a_fill_without_a_lease_is_found() {
    let faults = Faults {
        fill_without_lease: true,
        ..Faults::default()
    };
    is_found(Plant { mutant: None, faults }, "G6");
}

fn mutant(mutant: Mutant) -> Plant {
    Plant {
        mutant: Some(mutant),
        faults: Faults::default(),
    }
}

#[test]
fn a_blind_write_to_the_first_level_is_found() {
    is_found(mutant(Mutant::BlindSet), "G");
}

#[test]
fn a_missing_floor_is_found() {
    is_found(mutant(Mutant::MissingFloor), "G");
}

#[test]
fn a_lost_gap_is_found() {
    is_found(mutant(Mutant::LostGap), "G5");
}

#[test]
fn an_endless_horizon_is_found() {
    is_found(mutant(Mutant::EndlessHorizon), "G5");
}

#[test]
fn tags_captured_after_the_load_are_found() {
    is_found(mutant(Mutant::LateTags), "tag");
}
