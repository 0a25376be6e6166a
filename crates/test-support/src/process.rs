//! Child processes: run one to its end, start one that stays, find and signal what belongs to it.
//!
//! Everything started here is in a process group of its own, so a Ctrl-C at the terminal reaches only the
//! harness, which then decides what is ended and in which order.

mod table;

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

pub use rustix::process::{Pid, Signal};

use self::table::parse_stat;
pub use self::table::{children, descendants};
use crate::wait::{self, Look};
use crate::{Error, Result};

/// How much of a log an error carries.
const TAIL_LINES: usize = 30;

/// The command line as a person would type it, for messages.
pub fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command to its end, at most for `timeout`, and returns what it printed on standard output.
///
/// # Errors
///
/// [`Error::Exited`] with the end of its output when it fails; when time runs out its process group is killed.
pub fn run(command: &mut Command, timeout: Duration) -> Result<String> {
    let line = display(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|e| Error::io(format!("run `{line}`"), e))?;
    let pid = Pid::from_child(&child);
    // Both pipes are drained while it runs: a full one would stop it.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let ended = wait::until(&format!("`{line}` to end"), timeout, || {
        let status = child
            .try_wait()
            .map_err(|e| Error::io(format!("wait for `{line}`"), e))?;
        Ok(status.map_or_else(Look::not_yet, Look::Done))
    });
    if ended.is_err() {
        signal_group(pid, Signal::KILL);
        child
            .wait()
            .map_err(|e| Error::io(format!("wait for `{line}`"), e))?;
    }
    let status = ended?;
    let (stdout, stderr) = (
        stdout.join().unwrap_or_default(),
        stderr.join().unwrap_or_default(),
    );
    if status.success() {
        return Ok(stdout);
    }
    Err(Error::Exited {
        command: line,
        status: status.to_string(),
        output: tail(&format!("{stdout}{stderr}")),
    })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is all there is to report.
            pipe.read_to_end(&mut bytes).unwrap_or_default();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A process that was started and stays.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its process id, which is also its group's.
    pub pid: Pid,
    command: String,
    log: PathBuf,
    exit: Arc<OnceLock<ExitStatus>>,
}

impl Started {
    /// Fails with the command line and the end of the log once the process has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] once it has ended.
    pub fn still_runs(&self) -> Result<()> {
        let Some(status) = self.exit.get() else {
            return Ok(());
        };
        let output = tail(&fs::read_to_string(&self.log).unwrap_or_default());
        Err(Error::Exited {
            command: self.command.clone(),
            status: status.to_string(),
            output,
        })
    }
}

/// Starts a process with its output appended to `log`.
///
/// A thread of ours waits for it, so that it never stays behind as a zombie; the thread ends with the process.
pub(crate) fn spawn(command: &mut Command, log: &Path) -> Result<Started> {
    let line = display(command);
    let open = || {
        File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::at("open", log))
    };
    command
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|e| Error::io(format!("start `{line}`"), e))?;
    let pid = Pid::from_child(&child);
    let exit = Arc::new(OnceLock::new());
    let slot = Arc::clone(&exit);
    thread::spawn(move || child.wait().is_ok_and(|status| slot.set(status).is_ok()));
    Ok(Started {
        pid,
        command: line,
        log: log.to_owned(),
        exit,
    })
}

/// Sends a signal to one process; a process that is gone is not an error.
pub fn signal(pid: Pid, signal: Signal) {
    // The only failures are "gone" and "not ours", and callers look at the effect anyway.
    rustix::process::kill_process(pid, signal).unwrap_or_default();
}

/// Sends a signal to each of some processes.
pub(crate) fn signal_all(pids: &[Pid], which: Signal) {
    for pid in pids {
        signal(*pid, which);
    }
}

/// Sends a signal to a process group; one that is gone is not an error.
pub fn signal_group(pid: Pid, signal: Signal) {
    rustix::process::kill_process_group(pid, signal).unwrap_or_default();
}

/// Whether the process is there and is not a zombie.
///
/// A process whose first thread has ended while others still run is a zombie to look at, and still holds its ports:
/// it counts as alive.
pub fn is_alive(pid: Pid) -> bool {
    match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(stat) => {
            parse_stat(&stat).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X') || stat.threads > 1)
        }
        Err(_) if Path::new("/proc/self").exists() => false,
        Err(_) => rustix::process::test_kill_process(pid).is_ok(),
    }
}

/// A process id with the moment its process was started: together they never come back, while the number alone
/// is given out again. This is how we know that a number read from a file still means the server we started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The process id.
    pub pid: Pid,
    /// In clock ticks since the machine started; 0 where the system does not tell (no `/proc`).
    started: u64,
}

impl Identity {
    /// Of this process.
    pub fn own() -> Option<Self> {
        Self::of(rustix::process::getpid())
    }

    /// Of a process that is there now.
    pub fn of(pid: Pid) -> Option<Self> {
        match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
            Ok(stat) => Some(Self {
                pid,
                started: parse_stat(&stat)?.started,
            }),
            Err(_) if Path::new("/proc/self").exists() => None,
            Err(_) => Some(Self { pid, started: 0 }),
        }
    }

    /// As [`fmt::Display`] wrote it.
    pub fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self {
            pid: Pid::from_raw(pid.parse().ok()?)?,
            started: started.parse().ok()?,
        })
    }

    /// Whether that very process is still there and is not a zombie.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self) && is_alive(self.pid)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid.as_raw_nonzero(), self.started)
    }
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(TAIL_LINES)..)
        .unwrap_or_default()
        .join("\n")
}

#[cfg(test)]
mod tests;
