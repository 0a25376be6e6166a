//! An endpoint behind guards.
//!
//! - **E1** A call takes at most `timeout`, whatever the endpoint does.
//! - **E2** After `failure_threshold` failures in a row nobody asks for `open_time`; after a `Retry-After` for as long as it
//!   says, for `open_time` at least and [`WAIT_MAX`] at most.
//! - **E3** What is tried again is paid for by a budget, and only when it may fare better.
//! - **E4** Neither the key nor a body is in any message.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use contextkeep_resilience::breaker::{Breaker, State};
use contextkeep_resilience::classify::http;
use contextkeep_resilience::settings::Profile;
use contextkeep_resilience::{
    Again, Backoff, BreakerSettings, Budget, Error, Idempotent, Jitter, Outcome, Policy, Retry, Verdict,
};

use super::{Endpoint, Trouble};

/// Share of retries among the calls, and retries besides (E3).
const RETRY_SHARE: f64 = 0.2;
const RETRY_RESERVE: u32 = 10;
/// Waits between attempts.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest that an endpoint may send everybody away for.
const WAIT_MAX: Duration = Duration::from_mins(10);

type Judge<T> = fn(Result<&T, &Trouble>) -> Outcome;

/// How an endpoint is guarded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guards {
    /// What the guards are called.
    pub(crate) name: &'static str,
    /// Longest time for a call, all attempts and the waits between them together.
    pub(crate) timeout: Duration,
    /// Longest time for one attempt.
    pub(crate) attempt_timeout: Duration,
    /// Further attempts.
    pub(crate) max_retries: u32,
    /// Failures in a row that open the breaker.
    pub(crate) failure_threshold: u16,
    /// How long it stays open.
    pub(crate) open_time: Duration,
    /// Most calls at the same time.
    pub(crate) max_concurrent: u32,
}

/// See the [module](self). Its replies are read as `T`.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    endpoint: Endpoint,
    policy: Policy<Judge<T>>,
    breaker: Breaker,
}

impl<T: Send> Guarded<T> {
    pub(crate) fn new(endpoint: Endpoint, guards: &Guards) -> anyhow::Result<Self> {
        let settings = BreakerSettings {
            enabled: true,
            failure_threshold: guards.failure_threshold,
            success_threshold: 1,
            timeout: guards.open_time,
            max_concurrent_requests: guards.max_concurrent,
        };
        let breaker = settings
            .breaker(guards.name, Profile::RestUpstream)
            .max_retry_after(WAIT_MAX)
            .build()
            .context("failure_threshold, open_time")?;
        let retry = Retry::new(guards.max_retries, &Budget::tokens(RETRY_SHARE, RETRY_RESERVE))
            .backoff(Backoff::exponential(BACKOFF_FIRST, BACKOFF_MAX).jitter(Jitter::Full))
            .max_wait(guards.timeout);
        let judge: Judge<T> = judge;
        let policy = Policy::named(guards.name)
            .classify(judge)
            .total_timeout(guards.timeout)
            .retry(retry)
            .guard(
                breaker.clone(),
                settings.bulkhead(guards.name, Profile::RestUpstream),
            )
            .attempt_timeout(guards.attempt_timeout)
            .build();
        Ok(Self {
            endpoint,
            policy,
            breaker,
        })
    }

    /// Scheme and host, for the log.
    pub(crate) fn origin(&self) -> String {
        self.endpoint.target.origin()
    }

    /// The state of the breaker.
    pub(crate) fn breaker(&self) -> State {
        self.breaker.state()
    }

    /// Posts a body, and reads the reply by `read`. A reply that cannot be read is a failure of the endpoint.
    pub(crate) async fn ask<Read>(
        &self,
        body: Bytes,
        read: impl Fn(Bytes) -> Read + Send + Sync,
    ) -> Result<T, Error<Trouble>>
    where
        Read: Future<Output = Result<T, Trouble>> + Send,
    {
        let read = &read;
        self.policy
            .run(Idempotent::Yes, |_| {
                let body = body.clone();
                async move { read(self.endpoint.post(body).await?).await }
            })
            .await
    }
}

/// What an attempt says of the endpoint. A reply that is none is a failure: whatever answers there is no model.
fn judge<T>(result: Result<&T, &Trouble>) -> Outcome {
    match result {
        Ok(_) => Outcome::SUCCESS,
        Err(Trouble::NotConnected(_)) => http::transport(false),
        Err(Trouble::Broken(_)) => http::transport(true),
        Err(Trouble::Status { status, retry_after }) => http::status(*status, *retry_after),
        Err(Trouble::Garbage(_)) => Outcome::new(Verdict::Failure, Again::No),
    }
}
