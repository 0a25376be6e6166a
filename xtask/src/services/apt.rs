//! Installing what is missing, on Debian and as root only.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use contextkeep_test_support::{process, user::User};

/// A mirror that does not answer is given up after this long.
const UPDATE_TIMEOUT: Duration = Duration::from_mins(3);
/// The packages are some tens of megabytes.
const INSTALL_TIMEOUT: Duration = Duration::from_mins(5);
/// Mirrors fail now and then.
const ATTEMPTS: usize = 3;

/// Whether we may install packages: root, with `apt-get`.
pub(super) fn is_ours() -> bool {
    User::for_servers().is_ok_and(|user| user.is_some()) && Path::new("/usr/bin/apt-get").exists()
}

/// Installs packages, bounded in time and tried three times.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {} with apt-get", packages.join(" and "));
    attempt(&["update", "-q"], UPDATE_TIMEOUT)?;
    attempt(
        &[&["install", "-q", "-y", "--no-install-recommends"], packages].concat(),
        INSTALL_TIMEOUT,
    )
}

fn attempt(args: &[&str], timeout: Duration) -> Result<()> {
    let mut last = Ok(String::new());
    for _ in 0..ATTEMPTS {
        let mut command = Command::new("apt-get");
        // RUNLEVEL=1 keeps the packages' own services from being started: the harness starts its own.
        command
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1");
        last = process::run(&mut command, timeout);
        if last.is_ok() {
            break;
        }
    }
    last.map(drop).context("apt-get failed three times")
}
