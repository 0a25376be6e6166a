//! The guards as layers around any `tower` service. Run with
//! `cargo run -p contextkeep-resilience --features tokio,tower --example tower_stack`.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contextkeep_resilience::classify::http;
use contextkeep_resilience::tower::{Always, BreakerLayer, LiftLayer, RetryLayer, TimeoutLayer};
use contextkeep_resilience::{Breaker, Budget, Outcome, Profile, Retry};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

/// A status code, or a transport that broke.
fn judge(result: Result<&u16, &io::Error>) -> Outcome {
    match result {
        Ok(status) => http::status(*status, None),
        Err(_) => http::transport(true),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let calls = Arc::new(AtomicU32::new(0));
    let upstream = service_fn(move |path: &'static str| {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match (path, number % 3) {
                ("/missing", _) => Ok(404),
                (_, 0) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                _ => Ok(200),
            }
        }
    });

    let breaker: Breaker = Profile::RestUpstream.breaker("upstream").build()?;
    let budget = Budget::tokens(Profile::RestUpstream.budget_share(), 10);
    let mut service = ServiceBuilder::new()
        .layer(TimeoutLayer::total("upstream", Duration::from_secs(10)))
        .layer(RetryLayer::new(Retry::new(2, &budget), judge, Always))
        .layer(BreakerLayer::new(breaker.clone(), judge))
        .layer(TimeoutLayer::attempt(
            "upstream",
            Profile::RestUpstream.attempt_timeout(),
        ))
        .layer(LiftLayer)
        .service(upstream);

    for path in ["/a", "/b", "/missing", "/c", "/d"] {
        match service.ready().await?.call(path).await {
            Ok(status) => println!("{path}: {status}"),
            Err(error) => println!("{path}: {error}"),
        }
    }
    println!("{:?}", breaker.snapshot().totals);
    Ok(())
}
