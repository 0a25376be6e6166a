//! A cache in front of a slow function: `cargo run -p contextkeep-cache --example read_through`.
#![cfg_attr(not(test), expect(clippy::print_stdout, reason = "it shows what happens"))]

use std::time::Duration;

use contextkeep_cache::{Answer, Cache, Loaded, Put, Read, Version, Wanted, loader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(|answer| println!("{:?} from {}", answer.value(), answer.origin().as_str())).await
}

/// The tests run this as well.
pub(crate) async fn run(mut show: impl FnMut(&Answer)) -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::builder("squares").build()?;
    let slow = loader::one(|wanted: Wanted| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let number: u64 = wanted.key.parse()?;
        let square = (number * number).to_string();
        Ok::<_, std::num::ParseIntError>(Loaded::value(Version::new(1), square))
    });
    show(&cache.get_or_load("12", &Read::new(), &slow).await?);
    show(&cache.get_or_load("12", &Read::new(), &slow).await?);

    // Something changed: the new version is served, and an older one never again.
    cache.put(Put::value("12", Version::new(2), "a gross")).await?;
    cache.put(Put::value("12", Version::new(1), "late news")).await?;
    show(&cache.get_or_load("12", &Read::new(), &slow).await?);
    Ok(())
}
