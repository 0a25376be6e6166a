//! Processes kept coherent through Redis. Run it twice, in two terminals, with a Redis on the default port:
//! `cargo run -p contextkeep-cache --features redis --example two_processes -- alice`
//!
//! Each one reads the same key ten times a second and changes it now and then; both soon agree.
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::sync::Arc;
use std::time::Duration;

use contextkeep_cache::redis::{Options, RedisLevel};
use contextkeep_cache::settings::RedisSettings;
use contextkeep_cache::{Cache, Loaded, Put, Read, Version, Wanted, loader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let me = std::env::args().nth(1).unwrap_or_else(|| "somebody".to_owned());
    let settings = RedisSettings {
        endpoints: vec!["127.0.0.1:6379".to_owned()],
        ..RedisSettings::default()
    };
    let redis = Arc::new(RedisLevel::connect(&settings, Options::named("example"))?);
    let cache = Cache::builder("example")
        .second_level(Arc::<RedisLevel>::clone(&redis))
        .backplane(redis)
        .build()?;
    let nothing_yet =
        loader::one(|_: Wanted| async { Ok::<_, std::convert::Infallible>(Loaded::absent(Version::ZERO)) });
    for round in 0..300_u32 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = cache.get_or_load("greeting", &Read::new(), &nothing_yet).await?;
        println!(
            "{:?} {:?} from {}",
            answer.version(),
            answer.value(),
            answer.origin().as_str()
        );
        if round % 20 == 19 {
            // A database would keep the version under the row's lock. Two who take the same one: the first wins.
            let next = Version::new(answer.version().get() + 1);
            let text = format!("{me} was here, round {round}");
            println!("{:?}", cache.put(Put::value("greeting", next, text)).await?);
        }
    }
    Ok(())
}
