//! N2: a hit against a raw `quick_cache` get of an `Arc`, in one run: `cargo bench -p contextkeep-cache --bench hit`.
//!
//! Rounds of the two alternate; the median of the ratios is what counts. Fails when a hit allocates.
//!
//! `… --bench hit -- instructions` counts instructions instead, by valgrind, which other work on the machine does not
//! disturb. It fails when a hit takes more than [`MOST_INSTRUCTIONS`], and when there is no valgrind: a check that was not
//! made has not passed.
#![expect(clippy::print_stdout, reason = "a report for people is its output")]

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use bytes::Bytes;
use contextkeep_cache::{Cache, Clock, Put, Read, TokioClock, Version};
use quick_cache::sync::Cache as Raw;

const KEYS: usize = 1000;
const GETS: usize = 200_000;
const ROUNDS: usize = 41;

/// Instructions that a hit may take for each hundred of a raw get. Compilers differ, so there is some room above what was
/// measured; see `docs/BENCHMARKS.md`.
const MOST_INSTRUCTIONS: u64 = 140;

/// Nanoseconds of a run.
fn time(run: impl FnOnce()) -> f64 {
    let start = TokioClock.now();
    run();
    TokioClock.now().since(start).as_secs_f64() * 1e9
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Both with the same keys and values.
struct Both {
    keys: Vec<String>,
    raw: Raw<String, Arc<Bytes>>,
    cache: Cache,
    read: Read,
}

impl Both {
    async fn filled() -> Self {
        let keys: Vec<String> = (0..KEYS).map(|key| format!("context-{key:08}")).collect();
        let value = Bytes::from(vec![7_u8; 256]);
        let raw: Raw<String, Arc<Bytes>> = Raw::new(10_000);
        let cache = Cache::builder("bench").build().expect("it is a good description");
        for key in &keys {
            raw.insert(key.clone(), Arc::new(value.clone()));
            cache
                .put(Put::value(key.as_str(), Version::new(1), value.clone()))
                .await
                .expect("no level is down");
        }
        let read = Read::new().floor(Version::new(1));
        Self {
            keys,
            raw,
            cache,
            read,
        }
    }

    fn theirs(&self, gets: usize) {
        for key in self.keys.iter().cycle().take(gets) {
            black_box(self.raw.get(black_box(key.as_str())));
        }
    }

    fn ours(&self, gets: usize) {
        for key in self.keys.iter().cycle().take(gets) {
            black_box(self.cache.get(black_box(key.as_str()), &self.read));
        }
    }
}

/// Nanoseconds, in alternating rounds.
fn times(both: &Both) -> ExitCode {
    both.theirs(GETS);
    both.ours(GETS);
    let (mut theirs, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (time(|| both.theirs(GETS)), time(|| both.ours(GETS)));
        theirs.push(a);
        ours.push(b);
        ratios.push(a / b);
    }
    let each = |times| median(times) / f64::from(u32::try_from(GETS).unwrap_or(u32::MAX));
    println!("raw quick_cache get of an Arc  {:6.1} ns", each(theirs));
    println!("hit, floor checked             {:6.1} ns", each(ours));
    println!("ratio (median of {ROUNDS})          {:6.2}", median(ratios));
    let allocations = allocation_counter::measure(|| both.ours(GETS)).count_total;
    println!("allocations in {GETS} hits   {allocations:6}");
    if allocations == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Instructions of this program, run for so many gets of one of the two.
fn collected(whose: &str, gets: usize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["one", whose, &gets.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind counted nothing: {said}"))
}

/// Instructions a get, what is around it taken off.
fn instructions(whose: &str) -> Result<u64, String> {
    const FEW: usize = 10_000;
    const MANY: usize = 60_000;
    let more = collected(whose, MANY)?.saturating_sub(collected(whose, FEW)?);
    Ok(more / (MANY - FEW) as u64)
}

fn gate() -> Result<ExitCode, String> {
    let (theirs, ours) = (instructions("theirs")?, instructions("ours")?);
    let ratio = ours * 100 / theirs.max(1);
    println!("raw quick_cache get of an Arc  {theirs:6} instructions");
    println!("hit, floor checked             {ours:6} instructions");
    println!("for each hundred of theirs     {ratio:6}, at most {MOST_INSTRUCTIONS}");
    Ok(if ratio <= MOST_INSTRUCTIONS {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["instructions"] => gate().unwrap_or_else(|why| {
            println!("{why}");
            ExitCode::FAILURE
        }),
        ["one", whose, gets] => {
            let both = Both::filled().await;
            let gets = gets.parse().expect("a number");
            match whose {
                "theirs" => both.theirs(gets),
                _ => both.ours(gets),
            }
            ExitCode::SUCCESS
        }
        _ => times(&Both::filled().await),
    }
}
