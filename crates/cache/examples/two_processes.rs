//! Processes kept coherent through Redis. Run it twice, in two terminals, with a Redis on the default port:
//! `cargo run -p contextkeep-cache --features redis --example two_processes -- alice`
//!
//! Each one reads the same key ten times a second and changes it now and then; both soon agree. Further arguments are
//! the address of Redis and the number of reads.
#![cfg_attr(not(test), expect(clippy::print_stdout, reason = "it shows what happens"))]

use std::sync::Arc;
use std::time::Duration;

use contextkeep_cache::redis::{Options, RedisLevel};
use contextkeep_cache::settings::RedisSettings;
use contextkeep_cache::{Cache, Loaded, Put, Read, Version, Wanted, loader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(std::env::args().skip(1)).await
}

/// The tests run this as well, in two processes.
pub(crate) async fn run(mut words: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let me = words.next().unwrap_or_else(|| "somebody".to_owned());
    let settings = RedisSettings {
        endpoints: vec![words.next().unwrap_or_else(|| "127.0.0.1:6379".to_owned())],
        ..RedisSettings::default()
    };
    let rounds: u32 = words.next().map_or(Ok(300), |word| word.parse())?;
    let redis = Arc::new(RedisLevel::connect(&settings, Options::named("example"))?);
    let cache = Cache::builder("example")
        .second_level(Arc::<RedisLevel>::clone(&redis))
        .backplane(redis)
        .build()?;
    let nothing_yet =
        loader::one(|_: Wanted| async { Ok::<_, std::convert::Infallible>(Loaded::absent(Version::ZERO)) });
    for round in 1..=rounds {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // A fresh reading of the clock: this process may have been suspended just now.
        let read = Read::new().at(cache.now());
        let answer = cache.get_or_load("greeting", &read, &nothing_yet).await?;
        println!(
            "read {} {:?} from {}",
            answer.version(),
            answer.value(),
            answer.origin().as_str()
        );
        if round % 10 == 0 {
            // A database would draw the version under the row's lock. Here the process's number keeps two apart that
            // change the same version; the higher one wins everywhere.
            let next =
                (answer.version().get() / 100_000 + 1) * 100_000 + u64::from(std::process::id() % 100_000);
            let put = Put::value(
                "greeting",
                Version::new(next),
                format!("{me} was here, round {round}"),
            );
            let receipt = cache.put(put).await?;
            println!("wrote {next} {receipt:?}");
        }
    }
    Ok(())
}
