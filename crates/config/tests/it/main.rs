//! The public interface, as a program uses it.

mod public;
#[cfg(feature = "yaml")]
mod seed;
