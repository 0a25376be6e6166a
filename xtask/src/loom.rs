//! `cargo xtask loom`: the hand-written synchronisers under every interleaving that the models' bounds allow.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::sh;

/// Models with a planted fault pass by noticing it. Without them a model that explores nothing would pass as well.
const NOTICES: [&str; 2] = ["the_model_notices_", "the_model_finds_"];
const PLANTED: usize = 2;
/// Each has models, [`PLANTED`] of them with a fault.
const PACKAGES: [&str; 2] = ["contextkeep-resilience", "contextkeep-cache"];

/// Builds and runs the models, in a target folder of their own: the flag would throw the other build away.
pub(crate) fn run() -> Result<()> {
    PACKAGES.into_iter().try_for_each(models_of)
}

fn models_of(package: &str) -> Result<()> {
    let folder = sh::target_folder()?.join("loom");
    let mut test = sh::command(
        "cargo",
        ["test", "--release", "--package", package, "--lib", "models"],
    );
    test.env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", folder)
        // Half of the time would go into linking what runs for half a minute.
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    let mut passed = BTreeSet::new();
    let status = sh::tee(&mut test, |line| {
        passed.extend(passed_test(line).map(str::to_owned));
    })?;
    if !status.success() {
        bail!("the models of {package} failed: {status}");
    }
    all_noticed(&passed).context("the models ran, but cannot be trusted")
}

fn passed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... ok")
}

fn all_noticed(passed: &BTreeSet<String>) -> Result<()> {
    let noticed = passed
        .iter()
        .filter(|name| NOTICES.iter().any(|notices| name.contains(notices)))
        .count();
    if noticed < PLANTED {
        bail!("{noticed} of {PLANTED} planted faults were seen to be noticed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passed_tests_count() {
        assert_eq!(
            passed_test("test breaker::models::one_probe ... ok"),
            Some("breaker::models::one_probe")
        );
        assert_eq!(passed_test("test breaker::models::one_probe ... FAILED"), None);
        assert_eq!(passed_test("test result: ok. 11 passed"), None);
    }

    #[test]
    fn a_run_without_both_planted_faults_fails() {
        let run = |names: &[&str]| all_noticed(&names.iter().map(|name| (*name).to_owned()).collect());
        assert!(run(&["a::the_model_notices_x", "a::the_model_notices_y"]).is_ok());
        assert!(run(&["a::the_model_notices_x", "a::one_probe"]).is_err());
        assert!(run(&[]).is_err());
    }
}
