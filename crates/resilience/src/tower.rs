//! The guards as `tower` layers.
//!
//! All of them speak [`Error`](crate::Error), so a stack does not nest errors; [`LiftLayer`], innermost,
//! brings the service's own error into it. Outermost first, the order that works is
//!
//! ```text
//! FallbackLayer, TimeoutLayer::total, RetryLayer, HedgeLayer, BreakerLayer, BulkheadLayer,
//! TimeoutLayer::attempt, LiftLayer, the service
//! ```
//!
//! with the bulkhead inside the breaker here: a layer cannot look at the breaker, wait, and ask again as
//! [`Guard`](crate::Guard) and `Policy` do. Give the bulkhead a short queue, or none.
//!
//! The contract, held by each layer and probed by the tests:
//!
//! - **T1** `poll_ready` reserves nothing of ours and is idempotent; refusals come from `call`'s future
//! - **T2** the instance that was polled ready is the one that is called
//! - **T3** clones, and services made by the same layer, share state
//! - **T4** futures are named, not boxed, and need nothing to be `'static`
//! - **T5** an open breaker is ready, and its call is refused at once: a caller that could not even ask would
//!   wait without limit, and an error from `poll_ready` would end a `Buffer` for good. Under a balancer that
//!   skips what is not ready, say [`BreakerLayer::unready_while_open`] instead: then `poll_ready` is pending
//!   and the task is woken when a call would be let through

mod breaker;
#[cfg(feature = "tokio")]
mod bulkhead;
#[cfg(feature = "tokio")]
mod fallback;
#[cfg(feature = "tokio")]
mod hedge;
mod lift;
#[cfg(feature = "tokio")]
mod readiness;
#[cfg(feature = "tokio")]
mod retry;
#[cfg(feature = "tokio")]
mod timeout;

pub use self::breaker::{BreakerFuture, BreakerLayer, BreakerService};
#[cfg(feature = "tokio")]
pub use self::bulkhead::{BulkheadFuture, BulkheadLayer, BulkheadService};
#[cfg(feature = "tokio")]
pub use self::fallback::{FallbackFuture, FallbackLayer, FallbackService};
#[cfg(feature = "tokio")]
pub use self::hedge::{HedgeFuture, HedgeLayer, HedgeService};
pub use self::lift::{LiftFuture, LiftLayer, LiftService};
#[cfg(feature = "tokio")]
pub use self::retry::{Always, Repeatable, RetryFuture, RetryLayer, RetryService};
#[cfg(feature = "tokio")]
pub use self::timeout::{TimeoutFuture, TimeoutLayer, TimeoutService};
