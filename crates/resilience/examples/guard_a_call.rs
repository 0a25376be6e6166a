//! A dependency that dies and comes back, behind a policy. Run with
//! `cargo run -p contextkeep-resilience --features tokio --example guard_a_call`.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::cell::Cell;
use std::error::Error as StdError;
use std::time::Duration;

use contextkeep_resilience::breaker::HalfOpen;
use contextkeep_resilience::{
    Backoff, Breaker, Budget, Bulkhead, Fallback, Idempotent, Policy, Retry, Served,
};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let breaker = Breaker::builder("inventory")
        .consecutive(3)
        .open(Backoff::constant(60 * MS))
        .half_open(HalfOpen::probes(2, 1, 100 * MS))
        .build()?;
    breaker
        .on_transition(|event| {
            println!(
                "   {} -> {} ({:?})",
                event.from.as_str(),
                event.to.as_str(),
                event.cause
            );
        })
        .forever();

    let budget = Budget::tokens(0.1, 10);
    let policy = Policy::named("inventory")
        .fallback(Fallback::max_age(Duration::from_mins(5)))
        .total_timeout(200 * MS)
        .retry(Retry::new(1, &budget).backoff(Backoff::constant(5 * MS)))
        .guard(breaker, Some(Bulkhead::new("inventory", 16, 32)))
        .queue_wait(20 * MS)
        .attempt_timeout(30 * MS)
        .build();

    let well = Cell::new(true);
    let stock = || async {
        if well.get() {
            return Ok(42);
        }
        sleep(Duration::from_hours(1)).await; // it hangs; the attempt timeout ends it
        Err(std::io::Error::other("unreachable"))
    };
    for round in 0..10 {
        well.set(!(2..6).contains(&round));
        let remembered = |_: &_| async { Some(Served::stale(41, Duration::from_secs(30))) };
        let served = policy
            .run_or(Idempotent::Yes, |_attempt| stock(), remembered)
            .await?;
        println!("{round}: {} {:?}", served.value, served.source);
        sleep(20 * MS).await;
    }
    Ok(())
}
