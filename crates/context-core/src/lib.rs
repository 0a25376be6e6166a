#![doc = include_str!("../README.md")]

mod background;
pub mod clock;
pub mod context;
pub mod error;
mod factory;
mod head;
mod id;
pub mod item;
pub mod json;
mod manager;
#[cfg(feature = "cache")]
pub mod optimized;
#[cfg(feature = "cache")]
pub mod rollout;
pub mod search;
pub mod semantic;
pub mod session;
pub mod settings;
mod standard;
pub mod store;
mod summarising;
pub mod summary;
mod tokens;
pub mod truncate;
pub mod window;

#[cfg(all(feature = "embedded", feature = "postgres"))]
pub mod adopt;
#[cfg(feature = "cache")]
pub mod cached;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "postgres")]
pub mod postgres;

#[cfg(any(test, feature = "test-util"))]
pub mod contract;
#[cfg(any(test, feature = "test-util"))]
pub mod fake;

pub use background::{BackgroundCounts, BackgroundSummaries};
pub use clock::{Clock, SystemClock, Timestamp};
pub use context::{Context, ContextPatch, ForkedFrom, JsonObject, NewContext};
pub use error::{Error, Invalid, Result};
pub use factory::{Choice, ContextManagerFactory};
pub use head::Head;
pub use id::{ClientId, ContextId, ContextKey, ID_BYTES_MAX, IdempotencyKey, TenantId};
pub use item::{Item, NewItem, Role};
pub use manager::{Answer, AppendRequest, ContextManager, Origin, TruncateRequest, Truncation};
#[cfg(feature = "cache")]
pub use optimized::OptimizedContextManager;
#[cfg(feature = "cache")]
pub use rollout::{Rollout, RolloutContextManager};
pub use semantic::Semantic;
pub use standard::StandardContextManager;
pub use store::ContextStore;
pub use tokens::{Named, TOKENS_PER_ITEM, TOKENS_PER_MEDIA, Tokenizer};
pub use window::{Window, WindowRequest};

/// The place of an item in its context: 1, 2, 3 … in append order, never used twice.
pub type Seq = u64;

/// The version of a context: one more with each committed change, its deletion included.
pub type Version = u64;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("invariant: writing to a String does not fail");
            text
        })
}
