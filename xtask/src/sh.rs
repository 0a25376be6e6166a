//! Running commands: each is shown before it runs, and a signal ends it before it ends us.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use contextkeep_test_support::process::{self, Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The command that runs now, which a signal has to reach.
static CURRENT: Mutex<Option<Pid>> = Mutex::new(None);

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A command that runs at the workspace's root.
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// Lets Ctrl-C and its kin end the command that runs, so that this process can still tear its services down.
pub(crate) fn catch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("could not listen for signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            INTERRUPTED.store(true, Ordering::Release);
            let current = *CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(pid) = current else { continue };
            // Cargo does not pass the signal on to the test that it runs.
            for pid in process::descendants(pid).into_iter().chain([pid]) {
                process::signal(pid, Signal::TERM);
            }
        }
    });
    Ok(())
}

/// Whether a signal asked us to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Acquire)
}

/// Fails once a signal has asked us to end.
pub(crate) fn check_interrupted() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Shows and runs a command; fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", process::display(command));
    }
    Ok(())
}

/// Shows and runs a command.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    show(command);
    let child = start(command)?;
    finish(command, child)
}

/// Shows and runs a command, and hands each line of its standard output to `see` after passing it on.
pub(crate) fn tee(command: &mut Command, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
    show(command);
    command.stdout(Stdio::piped());
    let mut child = start(command)?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("could not read a command's output")?;
            println!("{line}");
            see(&line);
        }
    }
    finish(command, child)
}

/// The standard output of a quick command, not shown.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = process::display(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not run `{line}`"))?;
    if !output.status.success() {
        bail!(
            "`{line}` failed: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something that is not text"))
}

/// What cargo knows of the workspace's own packages.
pub(crate) fn metadata() -> Result<serde_json::Value> {
    let metadata = output(&mut command(
        "cargo",
        ["metadata", "--format-version", "1", "--no-deps"],
    ))?;
    serde_json::from_str(&metadata).context("cargo metadata is not JSON")
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = metadata()?;
    let folder = metadata
        .get("target_directory")
        .and_then(serde_json::Value::as_str);
    folder
        .map(PathBuf::from)
        .context("cargo metadata names no target folder")
}

/// Whether a quick command succeeds: how we know that a tool is there and works.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn show(command: &Command) {
    let env: String = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={} ", key.to_string_lossy(), value?.to_string_lossy())))
        .collect();
    eprintln!("$ {env}{}", process::display(command));
    // What was printed before has to come before the command's own output.
    std::io::stdout().flush().unwrap_or_default();
}

fn start(command: &mut Command) -> Result<Child> {
    check_interrupted()?;
    let child = command.stdin(Stdio::null()).spawn();
    let child = child.with_context(|| format!("could not run `{}`", process::display(command)))?;
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Pid::from_child(&child));
    Ok(child)
}

fn finish(command: &Command, mut child: Child) -> Result<ExitStatus> {
    let status = child
        .wait()
        .with_context(|| format!("could not wait for `{}`", process::display(command)));
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    check_interrupted()?;
    status
}
