//! One server process and what a test may do to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::folder::{self, Folder};
use crate::process::{self, Pid, Signal, Started};
use crate::user::User;
use crate::wait::{self, Look};
use crate::{Error, Result};

/// How long a server gets to stop by itself, and to vanish once killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How a server is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// In order: sessions are ended, data is flushed.
    Graceful,
    /// At once, as in a crash of the program but not of the machine.
    Immediate,
}

/// A server as data: how to start it and where its process id is recorded.
///
/// It holds no process, so it can be written to a file and used from another process; each operation looks the
/// process up anew. All operations are bounded in time and may be called in any order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Daemon {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// What its environment has beside the usual.
    pub(crate) env: Vec<(String, PathBuf)>,
    pub(crate) user: Option<User>,
    /// Asks for an orderly stop. Raw numbers are written to the file, so the choice is kept as a word.
    pub(crate) graceful: Graceful,
}

/// Which signal means an orderly stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Graceful {
    /// Postgres: fast shutdown.
    Int,
    /// Redis: shutdown.
    Term,
}

impl Daemon {
    pub(crate) fn new(folder: &Folder, name: &str, program: PathBuf, graceful: Graceful) -> Result<Self> {
        let daemon = Self {
            name: name.to_owned(),
            root: folder.root().to_owned(),
            program,
            args: Vec::new(),
            env: Vec::new(),
            user: folder.user().cloned(),
            graceful,
        };
        let data = daemon.data();
        fs::create_dir(&data).map_err(Error::at("create", &data))?;
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(Error::at("protect", &data))?;
        folder.give(&data)?;
        Ok(daemon)
    }

    /// Its name, unique within its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with its data, which it also works in.
    pub fn data(&self) -> PathBuf {
        self.root.join("data").join(&self.name)
    }

    /// The file with its output.
    pub fn log(&self) -> PathBuf {
        self.root.join("log").join(format!("{}.log", self.name))
    }

    /// Its process, if it runs (frozen or not).
    pub fn pid(&self) -> Option<Pid> {
        folder::recorded(&self.root, &self.name)
    }

    /// Whether it runs (frozen or not).
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Starts it; the caller knows the protocol and waits until it answers.
    pub(crate) fn start(&self) -> Result<Started> {
        if let Some(pid) = self.pid() {
            return Err(Error::State(format!(
                "{} already runs as process {}",
                self.name,
                pid.as_raw_nonzero()
            )));
        }
        // By way of a shell that records itself before it becomes the server: should we be killed right now, whoever
        // cleans up finds it. The record is written again below, for systems where the shell can't.
        let record = folder::forget(&self.root, &self.name)?;
        let mut command = self.command(Path::new("/bin/sh"));
        command
            .args(["-c", include_str!("daemon/start.sh"), "start"])
            .arg(record);
        command
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.data());
        let started = process::spawn(&mut command, &self.log())?;
        folder::record(&self.root, &self.name, started.pid)?;
        Ok(started)
    }

    /// A command that runs under the server's account.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = &self.user {
            user.apply(&mut command);
        }
        command
            .current_dir(&self.root)
            .env("LC_ALL", "C")
            .env("HOME", &self.root);
        command
    }

    /// Stops it and waits until it has ended; one that is not running is left alone.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not end within 20 s (a frozen one does not: thaw or kill it).
    pub fn stop(&self, how: Stop) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let signal = match (how, self.graceful) {
            (Stop::Graceful, Graceful::Int) => Signal::INT,
            (Stop::Graceful, Graceful::Term) => Signal::TERM,
            (Stop::Immediate, _) => Signal::QUIT,
        };
        process::signal(pid, signal);
        self.wait_gone(&[pid])
    }

    /// Kills it and its children (SIGKILL) and waits until all are gone; frozen or not.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when a process survives for 20 s.
    pub fn kill(&self) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        process::signal(pid, Signal::STOP);
        let mut family = process::descendants(pid);
        folder::kill_family(pid);
        family.push(pid);
        self.wait_gone(&family)
    }

    /// Freezes it and its children (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        let pid = self.running_pid()?;
        process::signal(pid, Signal::STOP);
        // The parent is stopped: it starts no more children while this goes through them.
        process::signal_all(&process::descendants(pid), Signal::STOP);
        Ok(())
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        let pid = self.running_pid()?;
        process::signal_all(&process::descendants(pid), Signal::CONT);
        process::signal(pid, Signal::CONT);
        Ok(())
    }

    /// Asks it to read its configuration again.
    pub(crate) fn reload(&self) {
        if let Some(pid) = self.pid() {
            process::signal(pid, Signal::HUP);
        }
    }

    fn running_pid(&self) -> Result<Pid> {
        self.pid()
            .ok_or_else(|| Error::State(format!("{} is not running", self.name)))
    }

    fn wait_gone(&self, pids: &[Pid]) -> Result<()> {
        wait::until(&format!("{} to end", self.name), STOP_TIMEOUT, || {
            Ok(Look::when(!pids.iter().any(|pid| process::is_alive(*pid))))
        })
    }
}
