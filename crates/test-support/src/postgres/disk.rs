//! A disk that a test makes slow, without any rights over the machine: a library of ours, loaded before a server's own,
//! waits before each flush, read and write. Linux only.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::folder::Folder;
use crate::{Error, Result, process};

const SOURCE: &str = include_str!("disk/slow.c");
const COMPILE_TIMEOUT: Duration = Duration::from_mins(1);

/// How much slower a disk is than it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slowness {
    /// Before each flush (`fsync`, `fdatasync`), so before each commit. At most an hour counts.
    pub flush: Duration,
    /// Before each read or write of the data files and the log. At most an hour counts.
    pub transfer: Duration,
}

/// The disk of one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Disk {
    library: PathBuf,
    /// What the library reads, see there.
    control: PathBuf,
}

impl Disk {
    /// Of the server of this name.
    pub(super) fn new(library: &Path, name: &str) -> Result<Self> {
        let disk = Self {
            library: library.to_owned(),
            control: library.with_file_name(name),
        };
        disk.slow(Slowness::default())?;
        Ok(disk)
    }

    /// What the server's environment has to have.
    pub(super) fn environment(&self) -> Vec<(String, PathBuf)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.clone()),
            ("SLOW_DISK".to_owned(), self.control.clone()),
        ]
    }

    /// Counts from the next call on.
    pub(super) fn slow(&self, by: Slowness) -> Result<()> {
        const HOUR: Duration = Duration::from_hours(1);
        let micros = |time: Duration| u32::try_from(time.min(HOUR).as_micros()).unwrap_or(u32::MAX);
        let bytes = [micros(by.flush), micros(by.transfer)].map(u32::to_ne_bytes);
        // In place: servers have it mapped, and would be killed for a look at what was cut off.
        let mut control = OpenOptions::new();
        let written = control
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.control);
        written
            .and_then(|mut control| control.write_all(&bytes.concat()))
            .map_err(Error::at("write", &self.control))
    }
}

/// Compiles the library with the C compiler that Rust links with.
pub(super) fn library(folder: &Folder) -> Result<PathBuf> {
    let room = folder.root().join("disk");
    fs::create_dir_all(&room).map_err(Error::at("create", &room))?;
    fs::set_permissions(&room, Permissions::from_mode(0o755)).map_err(Error::at("open up", &room))?;
    let (source, library) = (room.join("slow.c"), room.join("slow.so"));
    fs::write(&source, SOURCE).map_err(Error::at("write", &source))?;
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl");
    process::run(&mut compiler, COMPILE_TIMEOUT)?;
    Ok(library)
}
