//! The binary in a process of its own, and clients that cost next to nothing.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A server that ends with this.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
}

impl Process {
    /// `contextkeep serve` with these settings.
    pub(crate) fn serve(folder: &Path, settings: &serde_json::Value) -> Self {
        Self::of(Self::command(folder, settings))
    }

    /// The command of [`Process::serve`].
    pub(crate) fn command(folder: &Path, settings: &serde_json::Value) -> Command {
        let config = folder.join("contextkeep.yaml");
        std::fs::write(&config, settings.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_contextkeep"));
        command
            .env_clear()
            .current_dir(folder)
            .args(["--data", "data", "--config"])
            .arg(&config)
            .args(["serve", "--bind", "127.0.0.1:0"]);
        command
    }

    /// A command whose log says where it listens.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let address = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
            .find(|line| line["message"] == "listening")
            .and_then(|line| line["address"].as_str().map(str::to_owned))
            .unwrap();
        Self { child, address }
    }
}

impl Process {
    /// Its number in the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request for what is at this path.
pub(crate) fn get(address: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes()
}

/// A request with a body of JSON.
pub(crate) fn post(address: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A client that costs next to nothing: it writes bytes that are there and looks for the end of an answer.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            answer: Vec::with_capacity(4096),
        }
    }

    /// Sends a request and reads its answer, which has to be a good one.
    pub(crate) async fn send(&mut self, request: &[u8]) -> &str {
        self.stream.write_all(request).await.unwrap();
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.unwrap();
            assert!(read > 0, "the server hung up");
            let text = std::str::from_utf8(&self.answer).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                break;
            }
        }
        let text = std::str::from_utf8(&self.answer).unwrap();
        assert!(text.starts_with("HTTP/1.1 2"), "{text}");
        text
    }
}
