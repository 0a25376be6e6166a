//! `cargo xtask test`: the services, every test against them, and one line that says how many passed.
//!
//! 1. A crate that has service-backed tests (`#[ignore = "needs services"]`) and ran none of them fails the run.
//! 2. A test that can't run here (its servers' binaries are missing while the services come from elsewhere) is
//!    named as skipped, with what to install.
//! 3. The services are torn down whatever happens; after a failure their logs stay.

mod results;
mod suites;

use anyhow::{Context, Result, bail};
use contextkeep_test_support::Lifetime;
use contextkeep_test_support::services::Mode;

use self::results::Results;
use self::suites::{Needs, Suite};
use crate::services::{self, Choice, Running};
use crate::sh;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the services come from
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    services: Choice,
    /// Run only what needs no service; the others stay visibly ignored
    #[arg(long, conflicts_with = "services")]
    no_services: bool,
    /// Passed on to nextest (or `cargo test`); with a filter the check that every suite ran is off
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs the tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    let suites = suites::find(&sh::root())?;
    let running = if args.no_services {
        None
    } else {
        Some(Running::start(args.services, Lifetime::Owner)?)
    };
    sh::check_interrupted()?;
    let outcome = run_all(args, &suites, running.as_ref());
    if let (Err(_), Some(running)) = (&outcome, &running) {
        running.keep_logs();
    }
    outcome
}

fn run_all(args: &Args, suites: &[Suite], running: Option<&Running>) -> Result<()> {
    let skipped = running.map(|running| unable(running, suites)).unwrap_or_default();
    let mut results = if has_nextest() {
        by_nextest(args, running, &skipped)?
    } else {
        eprintln!("nextest is not installed: using cargo test");
        by_cargo_test(args, running, &skipped)?
    };
    if args.filter.is_empty() {
        let mut doc = sh::command(
            "cargo",
            ["test", "--doc", "--workspace", "--all-features", "--no-fail-fast"],
        );
        results.add(captured(&mut doc, running)?);
    }
    let missing = match running {
        Some(_) if args.filter.is_empty() => suites::that_ran_nothing(suites, &results.names, &skipped),
        _ => Vec::new(),
    };
    for name in &results.flaky {
        eprintln!("FLAKY: {name} failed and passed when it was tried again; that is a defect of its own");
    }
    println!(
        "{} passed ({} of them flaky), {} failed",
        results.passed,
        results.flaky.len(),
        results.failed
    );
    if !missing.is_empty() {
        bail!(
            "service-backed tests that did not run: none of {}",
            missing.join(", none of ")
        );
    }
    if results.failed > 0 {
        bail!("{} tests failed", results.failed);
    }
    if results.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// The tests that start servers of their own, when nothing here could start any.
fn unable(running: &Running, suites: &[Suite]) -> Vec<String> {
    if running.services.mode == Mode::Local {
        return Vec::new();
    }
    let Err(why) = services::binaries() else {
        return Vec::new();
    };
    let names: Vec<_> = suites
        .iter()
        .filter(|suite| suite.needs == Needs::Binaries)
        .flat_map(|suite| suite.names.clone())
        .collect();
    eprintln!(
        "SKIPPED: {} tests that stop, freeze and cut off servers of their own: {why}",
        names.len()
    );
    names
}

fn has_nextest() -> bool {
    sh::succeeds(&mut sh::command("cargo", ["nextest", "--version"]))
}

fn by_nextest(args: &Args, running: Option<&Running>, skipped: &[String]) -> Result<Results> {
    let report = sh::root().join("target/nextest/default/junit.xml");
    if report.exists() {
        // An old report must not be taken for this run's.
        std::fs::remove_file(&report).context("could not remove the last report")?;
    }
    let which = if running.is_some() { "all" } else { "default" };
    let mut command = sh::command(
        "cargo",
        [
            "nextest",
            "run",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
            "--run-ignored",
            which,
        ],
    );
    command.args(&args.filter);
    if !skipped.is_empty() {
        command
            .arg("--")
            .args(skipped.iter().flat_map(|name| ["--skip", name]));
    }
    command.envs(running.map(Running::env));
    let status = sh::status(&mut command)?;
    let report = std::fs::read_to_string(&report).context("the tests did not run")?;
    Ok(results::of_junit(&report).or_failure(status.success()))
}

/// `--tests` is every unit and integration test, but no bench, which knows nothing of our flags.
fn by_cargo_test(args: &Args, running: Option<&Running>, skipped: &[String]) -> Result<Results> {
    let mut command = sh::command(
        "cargo",
        [
            "test",
            "--workspace",
            "--all-features",
            "--tests",
            "--no-fail-fast",
        ],
    );
    command.args(&args.filter).arg("--");
    if running.is_some() {
        command.arg("--include-ignored");
    }
    command.args(skipped.iter().flat_map(|name| ["--skip", name]));
    captured(&mut command, running)
}

fn captured(command: &mut std::process::Command, running: Option<&Running>) -> Result<Results> {
    command.envs(running.map(Running::env));
    let mut results = Results::default();
    let status = sh::tee(command, |line| results.see(line))?;
    Ok(results.or_failure(status.success()))
}
