#![doc = include_str!("../README.md")]

#[cfg(not(loom))]
mod answer;
#[cfg(not(loom))]
mod builder;
#[cfg(not(loom))]
mod cache;
pub mod clock;
#[cfg(not(loom))]
mod coherence;
#[cfg(test)]
#[cfg(not(loom))]
mod contract;
#[cfg(not(loom))]
mod engine;
#[cfg(not(loom))]
mod entry;
#[cfg(not(loom))]
mod error;
mod flight;
#[cfg(not(loom))]
mod health;
#[cfg(not(loom))]
pub mod loader;
#[cfg(not(loom))]
mod memory;
#[cfg(test)]
#[cfg(not(loom))]
mod model;
#[cfg(not(loom))]
pub mod observe;
mod partition;
#[cfg(not(loom))]
mod policy;
mod random;
#[cfg(not(loom))]
mod recovery;
#[cfg(all(feature = "redis", not(loom)))]
pub mod redis;
#[cfg(not(loom))]
pub mod remote;
#[cfg(feature = "serde")]
pub mod settings;
#[cfg(test)]
#[cfg(not(loom))]
mod simulation;
#[cfg(not(loom))]
pub mod snapshot;
mod sync;
#[cfg(not(loom))]
mod tag;
#[cfg(not(loom))]
mod typed;
mod version;

pub use self::version::{Key, Mark, Version};
#[cfg(not(loom))]
pub use self::{
    answer::{Answer, Kept, Origin, Read, Recalled},
    builder::Builder,
    cache::{Cache, Stats},
    clock::{Clock, Nanos, TokioClock},
    engine::{Put, Receipt, RemoteErrorKind, Warmed, Warming},
    entry::Body,
    error::{BuildError, Error, LoadError, Problem, RemoteError},
    health::RemoteReach,
    loader::{Loaded, Loader, Source, Wanted},
    observe::{Event, Observer},
    partition::{PartitionId, partition_of},
    policy::{Adaptive, Policy},
    remote::{Backplane, SecondLevel},
    typed::{Codec, Found, Typed},
};
