#![doc = include_str!("../README.md")]

#[cfg(feature = "serde")]
pub mod settings;
