//! The `contextkeep` binary: a command line in front of [`contextkeep_server`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    contextkeep_server::cli::run()
}
