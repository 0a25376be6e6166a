#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod breaker;
pub mod classify;
pub mod clock;
mod error;
mod outcome;
pub mod random;
mod ring;
mod sync;

pub use self::backoff::{Backoff, Jitter};
pub use self::breaker::{Breaker, Permit};
pub use self::classify::{AnyError, Classify};
pub use self::clock::{Clock, ManualClock, Nanos, SystemClock};
pub use self::error::{Error, Rejected, Why};
pub use self::outcome::{Again, Idempotent, Outcome, Verdict};
pub use self::random::{Random, SplitMix};
