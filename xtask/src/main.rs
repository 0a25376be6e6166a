//! Automation for this workspace: `cargo xtask help`.

fn main() {}
