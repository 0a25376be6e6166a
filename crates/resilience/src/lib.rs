#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod bulkhead;
pub mod classify;
pub mod clock;
pub mod deadline;
mod error;
pub mod fallback;
pub mod gate;
pub mod hedge;
pub mod limiter;
mod name;
mod outcome;
#[cfg(feature = "tokio")]
pub mod policy;
pub mod random;
pub mod registry;
pub mod replicas;
pub mod retry;
mod ring;
pub mod settings;
mod sync;
pub mod throttle;
#[cfg(feature = "tokio")]
mod timer;
#[cfg(feature = "tower")]
pub mod tower;

pub use self::backoff::{Backoff, Jitter};
pub use self::breaker::{Breaker, Permit};
pub use self::budget::{Budget, Extra};
pub use self::bulkhead::Bulkhead;
pub use self::classify::{AnyError, Classify};
#[cfg(feature = "tokio")]
pub use self::clock::TokioClock;
pub use self::clock::{Clock, ManualClock, Nanos, SystemClock};
pub use self::deadline::Deadline;
pub use self::error::{Error, Rejected, Why};
pub use self::fallback::{Fallback, Served, Source};
pub use self::gate::{Gate, Guard, Pass};
pub use self::hedge::Hedge;
pub use self::limiter::{Limiter, Limits};
pub use self::name::Name;
pub use self::outcome::{Again, Idempotent, Outcome, Verdict};
#[cfg(feature = "tokio")]
pub use self::policy::{Attempt, Policy};
pub use self::random::{Random, SplitMix};
pub use self::registry::Registry;
pub use self::replicas::{Endpoint, Replicas};
pub use self::retry::Retry;
pub use self::settings::{BreakerSettings, Profile, SettingsError};
pub use self::throttle::Throttle;
