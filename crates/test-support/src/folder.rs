//! The temporary folder that a set of servers lives in, and how all of it goes away again.
//!
//! Layout: `live` (a marker, there while servers may run), `data/<name>/` (each server works in its own),
//! `run/<name>.pid`, `log/<name>.log` and `s/` (sockets; the path stays short because a socket's may have no more
//! than about 100 bytes).
//!
//! 1. Whoever knows the folder can end everything in it: [`teardown`] reads `run/`, where each process id stands
//!    with the start time of its process, so a recycled id is never signalled.
//! 2. An owned folder goes away with its owner: by `Drop`, and when the owner is killed by a watchdog, a shell that
//!    reads from a pipe only the owner holds, and so wakes when the owner is gone, however it went.
//! 3. Logs outlive a failure: a panicking owner, or one that called [`Folder::keep_logs`], leaves `log/`.

mod watchdog;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::watchdog::Watchdog;
use crate::process::{self, Identity, Pid, Signal};
use crate::user::User;
use crate::wait::{self, Look};
use crate::{Error, Result, env};

/// How long servers get to end before they are killed.
const GRACE: Duration = Duration::from_secs(5);
/// Room that the memory file system must have before servers are put there.
const MEMORY_NEEDED: u64 = 4 << 30;
/// Longest folder path that leaves room for `/s/.s.PGSQL.65535` in a socket address.
const LONGEST_ROOT: usize = 80;

/// Who ends the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The process that started them: on drop, on panic, and by the watchdog when it is killed.
    Owner,
    /// Nobody, until [`teardown`] is called with the folder's path.
    Detached,
}

/// A folder with servers in it.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    user: Option<User>,
    lifetime: Lifetime,
    keep_logs: AtomicBool,
    watchdog: Option<Watchdog>,
}

impl Folder {
    /// Creates the folder, belonging to the account the servers will run under.
    ///
    /// It is in memory (`/dev/shm`) where that has 4 GiB to spare and `$TMPDIR` does not ask for another place: a
    /// busy disk makes the start of a cluster several times slower.
    ///
    /// # Errors
    ///
    /// When the temporary folder can't be written, or root has no account to run servers under.
    pub fn create(lifetime: Lifetime) -> Result<Self> {
        Self::create_below(in_memory(), lifetime)
    }

    /// The same, never in memory: for servers whose commits have to reach a disk.
    ///
    /// # Errors
    ///
    /// As of [`create`](Self::create).
    pub fn create_on_disk(lifetime: Lifetime) -> Result<Self> {
        Self::create_below(None, lifetime)
    }

    fn create_below(place: Option<&Path>, lifetime: Lifetime) -> Result<Self> {
        let user = User::for_servers()?;
        let root = temporary_root(place)?;
        let mut folder = Self {
            root,
            user,
            lifetime,
            keep_logs: AtomicBool::new(false),
            watchdog: None,
        };
        for part in ["", "data", "run", "log", "s"] {
            let path = folder.root.join(part);
            fs::create_dir_all(&path).map_err(Error::at("create", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(Error::at("open up", &path))?;
            folder.give(&path)?;
        }
        fs::write(folder.root.join("live"), "").map_err(Error::at("mark", &folder.root))?;
        if lifetime == Lifetime::Owner {
            folder.watchdog = Some(Watchdog::start(&folder.root)?);
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the logs are.
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The account that the servers run under, if it is not ours.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Makes the logs stay when the folder goes.
    pub fn keep_logs(&self) {
        self.keep_logs.store(true, Ordering::Relaxed);
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.root.join("s")
    }

    /// Makes a file or folder belong to the servers' account.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        self.user.as_ref().map_or(Ok(()), |user| user.own(path))
    }

    /// A command that runs under the servers' account.
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
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Detached {
            return;
        }
        let keep = self.keep_logs.load(Ordering::Relaxed) || std::thread::panicking();
        let result = teardown(&self.root, keep);
        let told = match result {
            Err(error) => writeln!(
                std::io::stderr(),
                "could not tear down {}: {error}",
                self.root.display()
            ),
            Ok(()) if keep => writeln!(std::io::stderr(), "server logs kept in {}", self.logs().display()),
            Ok(()) => Ok(()),
        };
        // Nobody is left to tell when standard error is closed.
        told.unwrap_or_default();
    }
}

/// Ends every server in the folder and removes it; with `keep_logs` all but the logs.
///
/// Works from any process with the right to signal them, on frozen servers too, and a second time without harm.
/// Servers that ignore the request for five seconds are killed.
///
/// # Errors
///
/// When a file can't be removed or a process survives even that.
pub fn teardown(root: &Path, keep_logs: bool) -> Result<()> {
    let servers = running(root);
    for pid in &servers {
        process::signal(*pid, Signal::QUIT);
        // A frozen server takes its signals once it is thawed.
        process::signal_all(&process::descendants(*pid), Signal::CONT);
        process::signal(*pid, Signal::CONT);
    }
    let gone = |pids: &[Pid]| pids.iter().all(|pid| !process::is_alive(*pid));
    let ended = wait::until("servers to end", GRACE, || Ok(Look::when(gone(&servers))));
    if ended.is_err() {
        for pid in &servers {
            kill_family(*pid);
        }
        wait::until("servers to be killed", GRACE, || Ok(Look::when(gone(&servers))))?;
    }
    remove(&root.join("live"))?;
    if keep_logs {
        return ["data", "run", "s", "watchdog.sh"]
            .iter()
            .try_for_each(|part| remove(&root.join(part)));
    }
    remove(root)
}

/// Kills a server with its children in one go: it is stopped first, so that it can't start new ones meanwhile.
pub(crate) fn kill_family(pid: Pid) {
    process::signal(pid, Signal::STOP);
    let family = process::descendants(pid);
    process::signal(pid, Signal::KILL);
    process::signal_all(&family, Signal::KILL);
}

/// Removes the note of an earlier process, and returns where the next one's belongs.
pub(crate) fn forget(root: &Path, name: &str) -> Result<PathBuf> {
    let file = root.join("run").join(format!("{name}.pid"));
    remove(&file).map(|()| file)
}

/// Notes which process the server of this name is.
pub(crate) fn record(root: &Path, name: &str, pid: Pid) -> Result<()> {
    let file = root.join("run").join(format!("{name}.pid"));
    // A process that is gone already leaves nothing to find, and its starter sees that it has ended.
    let identity = Identity::of(pid)
        .map(|identity| format!("{identity}\n"))
        .unwrap_or_default();
    fs::write(&file, identity).map_err(Error::at("write", &file))
}

/// The server recorded under this name, if it is running and really ours.
pub(crate) fn recorded(root: &Path, name: &str) -> Option<Pid> {
    let text = fs::read_to_string(root.join("run").join(format!("{name}.pid"))).ok()?;
    let identity = Identity::parse(&text)?;
    identity.is_alive().then_some(identity.pid)
}

fn running(root: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir(root.join("run")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            recorded(root, name.strip_suffix(".pid")?)
        })
        .collect()
}

/// Removes a file or folder, there or not. A server that is just ending may still write: it is tried again.
fn remove(path: &Path) -> Result<()> {
    wait::until(&format!("{} to be removed", path.display()), GRACE, || {
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        Ok(match removed {
            Ok(()) => Look::Done(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.exists() => Look::Done(()),
            Err(error) => Look::NotYet(error.to_string()),
        })
    })
}

/// Memory that can be written to like a disk, if there is enough of it.
fn in_memory() -> Option<&'static Path> {
    let place = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(place).ok()?;
    let enough = room.f_bavail.saturating_mul(room.f_frsize) >= MEMORY_NEEDED;
    (enough && env::get("TMPDIR").is_none()).then_some(place)
}

fn temporary_root(place: Option<&Path>) -> Result<PathBuf> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ckt-").rand_bytes(8);
    let make = |made: std::io::Result<tempfile::TempDir>| {
        let folder = made
            .map_err(|e| Error::io("create a temporary folder", e))?
            .keep();
        folder.canonicalize().map_err(Error::at("resolve", &folder))
    };
    if let Some(place) = place
        && let Ok(root) = make(builder.tempdir_in(place))
    {
        return Ok(root);
    }
    let root = make(builder.tempdir())?;
    if root.as_os_str().len() <= LONGEST_ROOT {
        return Ok(root);
    }
    remove(&root)?;
    make(builder.tempdir_in("/tmp"))
}

#[cfg(test)]
mod tests;
