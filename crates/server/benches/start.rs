//! Cold start and idle memory of the binary (N10): `cargo bench -p contextkeep-server --bench start`.
//!
//! Starts it twenty times, each on a fresh data folder and a free port, and prints medians.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// Starts.
const STARTS: usize = 20;

struct Sample {
    start: Duration,
    idle_kib: u32,
    first_append: Duration,
    used_kib: u32,
}

fn main() {
    let samples: Vec<Sample> = (0..STARTS).map(|_| sample()).collect();
    let start = median(samples.iter().map(|sample| sample.start));
    let append = median(samples.iter().map(|sample| sample.first_append));
    println!("start to first answer    {start:>10.1?}   (N10: 150 ms)");
    if let Some(idle) = Some(median(samples.iter().map(|sample| sample.idle_kib))).filter(|kib| *kib > 0) {
        let used = median(samples.iter().map(|sample| sample.used_kib));
        println!("resident after start     {:>7.1} MB   (N10: 40 MB)", mb(idle));
        println!("first append             {append:>10.1?}   loads the tokenizer's vocabulary");
        println!("resident after it        {:>7.1} MB", mb(used));
    }
}

fn mb(kib: u32) -> f64 {
    f64::from(kib) * 1024.0 / 1e6
}

fn median<T: Ord>(samples: impl Iterator<Item = T>) -> T {
    let mut samples: Vec<T> = samples.collect();
    samples.sort();
    samples.swap_remove(samples.len() / 2)
}

fn sample() -> Sample {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let begun = Instant::now();
    let mut server = spawn(folder.path());
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let address = address(&mut log);
    request(&address, "GET /healthz HTTP/1.1\r\n", "");
    let start = begun.elapsed();
    let idle_kib = resident_kib(&server);
    request(
        &address,
        "POST /v1/contexts HTTP/1.1\r\n",
        r#"{"id":"c","agent_id":"a"}"#,
    );
    let begun = Instant::now();
    let item = r#"{"items":[{"role":"user","content":"hello"}]}"#;
    request(&address, "POST /v1/contexts/c/items HTTP/1.1\r\n", item);
    let first_append = begun.elapsed();
    let used_kib = resident_kib(&server);
    server.kill().unwrap();
    server.wait().unwrap();
    Sample {
        start,
        idle_kib,
        first_append,
        used_kib,
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_contextkeep"))
        .env_clear()
        .current_dir(folder)
        .args(["--data", "data", "serve", "--bind", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn address(log: &mut impl std::io::BufRead) -> String {
    log.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .find(|line| line["message"] == "listening")
        .and_then(|line| line["address"].as_str().map(str::to_owned))
        .unwrap()
}

fn request(address: &str, line: &str, body: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{line}host: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
}

/// What the system says; 0 where it does not say.
fn resident_kib(server: &Child) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0)
}
