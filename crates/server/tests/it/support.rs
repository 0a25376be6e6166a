//! The real binary, started on a free port with a folder of its own, and what tests need around it.

pub(crate) mod http;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use http::Client;

/// Two API keys of two tenants, as a configuration file says them.
pub(crate) const TWO_TENANTS: &str = r"
auth:
  keys:
    - { name: acme, tenant: acme, secret: acme-secret-0123456789 }
    - { name: other, tenant: other, secret: other-secret-0123456789 }
";
/// The secret of the tenant `acme`.
pub(crate) const ACME: &str = "acme-secret-0123456789";
/// The secret of the tenant `other`.
pub(crate) const OTHER: &str = "other-secret-0123456789";

/// Pause between two looks of [`eventually`].
const LOOK: Duration = Duration::from_millis(10);
/// Looks before [`eventually`] gives up: about a minute, because builds may run beside the tests.
const LOOKS: u32 = 6000;

/// Looks until there is something to see.
///
/// # Panics
/// If there is nothing after about a minute.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::park_timeout(LOOK);
    }
    panic!("{what}: did not happen within a minute");
}

/// A temporary folder.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("contextkeep-it-")
        .tempdir()
        .unwrap()
}

/// A command of the binary that sees no configuration of the machine that runs the tests.
pub(crate) fn contextkeep(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_contextkeep"));
    command
        .env_clear()
        .current_dir(folder)
        .arg("--data")
        .arg(folder.join("data"))
        .stdin(Stdio::null());
    command
}

/// Runs a command of the binary to its end, with `input` on its standard input.
pub(crate) fn run(folder: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = contextkeep(folder)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that fails early closes its end; what is left of the input is then nobody's.
    let feeder = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

/// Runs a command that must succeed and answers its standard output.
pub(crate) fn run_ok(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args, b"");
    assert!(
        output.status.success(),
        "{args:?} failed: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Bytes as text for messages.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every error code of the generated reference.
pub(crate) fn reference_codes() -> &'static BTreeSet<String> {
    static CODES: OnceLock<BTreeSet<String>> = OnceLock::new();
    CODES.get_or_init(|| {
        let page = run_ok(folder().path(), &["docs", "errors"]);
        let cells = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let codes: BTreeSet<String> = cells
            .filter_map(|cell| cell.split_once('`').map(|(code, _)| code.to_owned()))
            .collect();
        assert!(codes.contains("invalid"), "the reference lists no codes:\n{page}");
        codes
    })
}

/// How a server is to be started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    config: String,
    env: Vec<(String, String)>,
}

impl Start {
    /// With this text as its configuration file (YAML).
    pub(crate) fn with(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            env: Vec::new(),
        }
    }

    /// With a variable of the environment besides.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Spawns `contextkeep serve` on a free port.
    pub(crate) fn spawn(&self, folder: &Path) -> Child {
        let file = folder.join("test.yaml");
        std::fs::write(&file, &self.config).unwrap();
        contextkeep(folder)
            .arg("--config")
            .arg(&file)
            .args(["serve", "--bind", "127.0.0.1:0"])
            .envs(self.env.iter().cloned())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Starts a server that must come up.
    pub(crate) fn up(self, folder: Folder) -> Server {
        let (process, address) = Process::start(&self, folder.path());
        Server {
            start: self,
            folder,
            process,
            address,
        }
    }

    /// Starts a server that must not come up: its exit status and what it said.
    pub(crate) fn refused(&self, folder: &Path) -> (ExitStatus, String) {
        let mut child = self.spawn(folder);
        let stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
        let status = eventually("the server gives up", || child.try_wait().unwrap());
        (status, log.join().unwrap())
    }
}

/// Where a server works: a folder that goes with it, or one that stays.
#[derive(Debug)]
pub(crate) enum Folder {
    /// Removed when the server is dropped.
    Own(TempDir),
    /// Somebody else's.
    Shared(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Shared(path) => path,
        }
    }
}

/// A running process; killed when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    fn start(start: &Start, folder: &Path) -> (Self, SocketAddr) {
        let mut child = start.spawn(folder);
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, listening) = mpsc::channel();
        let kept = log.clone();
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody waits for the address only if the test has failed already.
                if let Some(address) = listening_on(&line)
                    && sender.send(address).is_err()
                {
                    return;
                }
                let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let process = Self {
            child,
            log,
            reader: Some(reader),
        };
        let address = process.await_address(&listening);
        (process, address)
    }

    fn await_address(&self, listening: &Receiver<SocketAddr>) -> SocketAddr {
        listening
            .recv_timeout(Duration::from_mins(1))
            .unwrap_or_else(|error| panic!("the server does not listen ({error}):\n{}", self.log()))
    }

    fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end; answers the status and the whole log.
    fn wait(mut self) -> (ExitStatus, String) {
        let status = eventually("the server ends", || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status, self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The address in the line of the log that says where the server listens.
pub(crate) fn listening_on(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line["message"] == "listening" {
        line["address"].as_str()?.parse().ok()
    } else {
        None
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    start: Start,
    folder: Folder,
    process: Process,
    address: SocketAddr,
}

impl Server {
    /// With the defaults and a folder of its own.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// With a configuration file and a folder of its own.
    pub(crate) fn with(config: &str) -> Self {
        Start::with(config).up(Folder::Own(folder()))
    }

    /// With the defaults in a folder that stays.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Start::default().up(Folder::Shared(folder.to_owned()))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder that its data folder is in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client without a credential.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client with a credential.
    pub(crate) fn client_with(&self, secret: &str) -> Client {
        Client::new(self.address).with_secret(secret)
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Asserts that it still serves.
    pub(crate) fn assert_serves(&self) {
        let health = self.client().get("/healthz");
        assert_eq!(health.status, 200, "{}", self.log());
        let ready = self.client().get("/readyz");
        assert_eq!(ready.status, 200, "{}\n{}", ready.text(), self.log());
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process.child)
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        rustix::process::kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Asks it to read its configuration again.
    pub(crate) fn hang_up(&self) {
        rustix::process::kill_process(self.pid(), Signal::HUP).unwrap();
    }

    /// Waits for its end; answers the status and the log.
    pub(crate) fn wait(self) -> (ExitStatus, String) {
        self.process.wait()
    }

    /// Stops it the polite way; it must end well.
    pub(crate) fn stop(self) {
        self.terminate();
        let (status, log) = self.wait();
        assert!(status.success(), "{status}:\n{log}");
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(self) -> Stopped {
        drop(self.process);
        Stopped {
            start: self.start,
            folder: self.folder,
        }
    }

    /// Stops it the polite way and starts it again in the same folder.
    pub(crate) fn restart(self) -> Self {
        self.terminate();
        let (status, log) = self.process.wait();
        assert!(status.success(), "{status}:\n{log}");
        self.start.up(self.folder)
    }
}

/// What is left of a server that was killed.
#[derive(Debug)]
pub(crate) struct Stopped {
    start: Start,
    folder: Folder,
}

impl Stopped {
    /// Starts it again in the same folder.
    pub(crate) fn up(self) -> Server {
        self.start.up(self.folder)
    }
}
