//! The official clients against our server. They are installed, pinned, into a folder under `target`.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Server;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn cache(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("mcp-clients")
        .join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Two tests share each installation; one of them makes it. A lock on a file, because each may run in a process of
/// its own; the system lets go of it when that process ends.
fn installing(folder: &Path) -> File {
    let lock = File::create(folder.join("installing.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// Runs a command to its end; its output is part of the failure.
fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The Python client, installed if it is not there yet.
fn python() -> Command {
    let folder = cache("python");
    let _guard = installing(&folder);
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    }
    // Also after an installation that was broken off: it does nothing if all is there.
    let requirements = scripts().join("requirements.txt");
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(requirements));
    let mut command = Command::new(python);
    command.arg(scripts().join("python_client.py"));
    command
}

/// The TypeScript client, installed as its lock file says.
fn typescript() -> Command {
    let folder = cache("typescript");
    let _guard = installing(&folder);
    let wanted = std::fs::read(scripts().join("typescript/package-lock.json")).unwrap();
    let installed = folder.join("installed-package-lock.json");
    for file in ["package.json", "package-lock.json", "client.mjs"] {
        std::fs::copy(scripts().join("typescript").join(file), folder.join(file)).unwrap();
    }
    // `npm ci` empties the folder first, under the feet of a client that runs from it: only when it must.
    if std::fs::read(&installed).ok().as_ref() != Some(&wanted) {
        run(Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder));
        std::fs::write(&installed, &wanted).unwrap();
    }
    let mut command = Command::new("node");
    command.arg(folder.join("client.mjs"));
    command
}

/// Lets a client talk to a server over HTTP. The server runs on this thread, the client on another.
async fn over_http(client: fn() -> Command) {
    let server = Server::start().await;
    let url = server.url.clone();
    tokio::task::spawn_blocking(move || run(client().args(["http", &url])))
        .await
        .unwrap();
}

/// Lets a client start the binary and talk to it over stdio.
fn over_stdio(mut client: Command) {
    let data = tempfile::tempdir().unwrap();
    let server: [&OsStr; 4] = [
        OsStr::new(env!("CARGO_BIN_EXE_contextkeep")),
        OsStr::new("--data"),
        data.path().as_os_str(),
        OsStr::new("mcp"),
    ];
    run(client.arg("stdio").args(server));
}

#[tokio::test]
#[ignore = "needs the official MCP clients"]
async fn the_python_client_works_over_http() {
    over_http(python).await;
}

#[tokio::test]
#[ignore = "needs the official MCP clients"]
async fn the_typescript_client_works_over_http() {
    over_http(typescript).await;
}

#[test]
#[ignore = "needs the official MCP clients"]
fn the_python_client_works_over_stdio() {
    over_stdio(python());
}

#[test]
#[ignore = "needs the official MCP clients"]
fn the_typescript_client_works_over_stdio() {
    over_stdio(typescript());
}
