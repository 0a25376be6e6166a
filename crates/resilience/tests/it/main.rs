//! The public face of the crate, from outside.
#![cfg(not(loom))]

mod breaker_model;
mod defects;
