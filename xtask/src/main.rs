#![doc = include_str!("../README.md")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its terminal"
)]

mod chaos;
mod ci;
mod codegen;
mod features;
mod loom;
mod services;
mod sh;
mod standalone;
mod test;
mod tidy;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Automation for this workspace.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = false)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or start the services, run every test against them, tear them down
    Test(test::Args),
    /// Start the services, leave them running and print what to export
    Up(up::UpArgs),
    /// End what `up`, or a killed `test`, left running
    Down,
    /// Say which services are up and whether they answer
    Status,
    /// Check the rules that no compiler knows
    Tidy,
    /// Write docs/reference again
    Codegen(codegen::Args),
    /// Prove that the leaf crates build alone in somebody else's project
    Standalone(standalone::Args),
    /// Lint each leaf crate without features, and with each of them alone
    Features(features::Args),
    /// Run the hand-written synchronisers under every interleaving
    Loom,
    /// Break things under load and check that no guarantee breaks with them
    Chaos(chaos::Args),
    /// Everything CI checks, in its order
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let task = Cli::parse().command;
    let done = sh::catch_signals().and_then(|()| match task {
        Task::Test(args) => test::run(&args),
        Task::Up(args) => up::up(&args),
        Task::Down => up::down(),
        Task::Status => up::status(),
        Task::Tidy => tidy::run(),
        Task::Codegen(args) => codegen::run(&args),
        Task::Standalone(args) => standalone::run(&args),
        Task::Features(args) => features::run(&args),
        Task::Loom => loom::run(),
        Task::Chaos(args) => chaos::run(&args),
        Task::Ci(args) => ci::run(&args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if sh::interrupted() { 130 } else { 1 })
        }
    }
}
