//! The `contextkeep` binary.

fn main() {}
