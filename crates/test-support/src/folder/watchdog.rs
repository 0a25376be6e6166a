//! What cleans up after an owner that was killed.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::{Error, Result};

/// The shell that tears the folder down when its owner is gone.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
    /// Ours to hold: when it closes, the watchdog wakes.
    pub(super) pipe: Option<ChildStdin>,
}

impl Watchdog {
    pub(super) fn start(root: &Path) -> Result<Self> {
        let script = root.join("watchdog.sh");
        fs::write(&script, include_str!("watchdog.sh")).map_err(Error::at("write", &script))?;
        let mut command = Command::new("/bin/sh");
        command.arg(&script).arg(root);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Not in our group: a Ctrl-C must not end it before it has done its work. Not in our folder: it may go.
        let spawned = command.process_group(0).current_dir("/").spawn();
        let mut child = spawned.map_err(|e| Error::io("start the watchdog", e))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // It wakes, finds no marker and ends. (Field order is no help: the child has to be waited for after.)
        drop(self.pipe.take());
        if let Err(error) = self.child.wait() {
            writeln!(std::io::stderr(), "could not wait for the watchdog: {error}").unwrap_or_default();
        }
    }
}
