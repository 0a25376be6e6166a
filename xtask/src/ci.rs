//! `cargo xtask ci`: what CI checks, in the order in which it is cheapest to fail.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Parser;

use crate::{codegen, features, loom, sh, standalone, test, tidy};

/// Arguments of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what is quick: no services, no documentation, no foreign project
    #[arg(long)]
    fast: bool,
}

/// A step: its name, how it is run alone, and what it does.
struct Step {
    name: &'static str,
    again: &'static str,
    in_fast: bool,
    run: fn(&Args) -> Result<()>,
}

const STEPS: [Step; 10] = [
    Step {
        name: "fmt",
        again: "cargo fmt --check",
        in_fast: true,
        run: |_| sh::run(&mut cargo(&["fmt", "--check"])),
    },
    Step {
        name: "tidy",
        again: "cargo xtask tidy",
        in_fast: true,
        run: |_| tidy::run(),
    },
    Step {
        name: "clippy",
        again: "cargo clippy --workspace --all-targets --all-features -- -D warnings",
        in_fast: true,
        run: |_| {
            sh::run(&mut cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ]))
        },
    },
    Step {
        name: "features",
        again: "cargo xtask features",
        in_fast: false,
        run: |_| features::run(&parsed(&[])),
    },
    Step {
        name: "deny",
        again: "cargo deny check",
        in_fast: false,
        run: |_| deny(),
    },
    Step {
        name: "doc",
        again: "RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps",
        in_fast: false,
        run: |_| {
            let mut doc = cargo(&["doc", "--workspace", "--all-features", "--no-deps"]);
            sh::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
        },
    },
    Step {
        name: "codegen",
        again: "cargo xtask codegen --check",
        in_fast: false,
        run: |_| codegen::run(&parsed(&["--check"])),
    },
    Step {
        name: "standalone",
        again: "cargo xtask standalone",
        in_fast: false,
        run: |_| standalone::run(&parsed(&[])),
    },
    Step {
        name: "loom",
        again: "cargo xtask loom",
        in_fast: false,
        run: |_| loom::run(),
    },
    Step {
        name: "test",
        again: "cargo xtask test",
        in_fast: true,
        run: |args| test::run(&parsed(if args.fast { &["--no-services"] } else { &[] })),
    },
];

/// Runs the steps; stops at the first that fails and says how to run just that one again.
pub(crate) fn run(args: &Args) -> Result<()> {
    for step in STEPS.iter().filter(|step| step.in_fast || !args.fast) {
        eprintln!("── {} ──", step.name);
        sh::check_interrupted()?;
        (step.run)(args)
            .with_context(|| format!("{} failed; run it again with `{}`", step.name, step.again))?;
    }
    eprintln!("── all good ──");
    Ok(())
}

fn cargo(args: &[&'static str]) -> Command {
    sh::command("cargo", args.iter().copied())
}

/// Licences, advisories, duplicate and banned crates. cargo-deny takes minutes to build, so it is not installed for
/// the occasion: where it is missing, the step says so.
fn deny() -> Result<()> {
    if !sh::succeeds(&mut cargo(&["deny", "--version"])) {
        eprintln!("SKIPPED: cargo-deny is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    sh::run(&mut cargo(&["deny", "--all-features", "check"]))
}

/// Another command's arguments, as its own parser makes them.
fn parsed<A: clap::Args>(words: &[&str]) -> A {
    #[derive(Parser)]
    struct Only<A: clap::Args> {
        #[command(flatten)]
        args: A,
    }
    Only::parse_from(std::iter::once(&"xtask").chain(words)).args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_known_to_its_own_parser() {
        assert_eq!(
            format!("{:?}", parsed::<codegen::Args>(&["--check"])),
            "Args { check: true }"
        );
        assert_eq!(
            format!("{:?}", parsed::<standalone::Args>(&[])),
            "Args { leaf: None }"
        );
        assert_eq!(
            format!("{:?}", parsed::<features::Args>(&[])),
            "Args { only: None }"
        );
        assert!(format!("{:?}", parsed::<test::Args>(&["--no-services"])).contains("no_services: true"));
    }

    #[test]
    fn tests_come_last_because_they_take_longest() {
        assert_eq!(STEPS.last().map(|step| step.name), Some("test"));
        assert!(STEPS.iter().filter(|step| step.in_fast).count() >= 3);
    }
}
