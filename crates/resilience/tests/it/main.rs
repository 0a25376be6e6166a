//! The public face of the crate, from outside.
#![cfg(not(loom))]

#[cfg(test)]
#[cfg(feature = "tokio")]
mod allocations;
#[cfg(test)]
mod breaker_edges;
#[cfg(test)]
mod breaker_model;
#[cfg(test)]
#[cfg(all(feature = "tokio", feature = "tower"))]
mod cancellation;
#[cfg(test)]
mod defects;
#[cfg(test)]
#[cfg(feature = "tokio")]
mod live;
#[cfg(test)]
#[cfg(feature = "tokio")]
mod metastability;
#[cfg(test)]
#[cfg(feature = "tokio")]
mod policy;
#[cfg(test)]
#[cfg(feature = "tokio")]
mod simulation;
#[cfg(test)]
#[cfg(all(feature = "tokio", feature = "tower"))]
mod tower_contract;
#[cfg(test)]
#[cfg(all(feature = "tokio", feature = "tower"))]
mod tower_readiness;
