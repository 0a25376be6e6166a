//! Two processes of this program, each running the example.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contextkeep_test_support::process::{Pid, Signal};
use contextkeep_test_support::{RedisNode, eventually};

const LONG: Duration = Duration::from_mins(1);
/// Begins the argument that tells a process started by the other test what to be; a filter that fits no test.
const WORDS: &str = "two_processes=";

fn words() -> Option<String> {
    std::env::args().find_map(|word| word.strip_prefix(WORDS).map(str::to_owned))
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_process_reads_and_writes() {
    let node;
    let words = if let Some(words) = words() {
        words
    } else {
        node = RedisNode::start_alone().unwrap();
        format!("alone {} 20", node.url())
    };
    let done = super::two_processes::run(words.split(' ').map(str::to_owned)).await;
    assert!(done.is_ok(), "{done:?}");
}

/// A process of `two_processes` and what it has said so far.
struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(name: &str, server: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "examples::processes::a_process_reads_and_writes",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .arg(format!("{WORDS}{name} {server} 110"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (out, heard) = (child.stdout.take().unwrap(), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        Self { child, said }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// What it read, in order.
    fn reads(&self) -> Vec<u64> {
        self.said()
            .iter()
            .filter_map(|line| version(line, "read "))
            .collect()
    }

    fn heard_of(&self, name: &str) -> bool {
        self.said()
            .iter()
            .any(|line| line.starts_with("read ") && line.contains(name))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        contextkeep_test_support::process::signal(pid, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn version(line: &str, after: &str) -> Option<u64> {
    line.strip_prefix(after)?.split(' ').next()?.parse().ok()
}

#[test]
#[ignore = "needs server binaries"]
fn two_processes_are_kept_coherent() {
    let node = RedisNode::start_alone().unwrap();
    let (mut alice, mut bob) = (
        Process::start("alice", &node.url()),
        Process::start("bob", &node.url()),
    );
    eventually("each to read what the other wrote", LONG, || {
        (alice.heard_of("bob was here") && bob.heard_of("alice was here")).then_some(())
    });
    // F17: one is suspended, and does not hear of what the other one writes.
    bob.signal(Signal::STOP);
    let before = alice.said().len();
    let written = eventually("the other one to write", LONG, || {
        let said = alice.said();
        let at = said
            .iter()
            .skip(before)
            .position(|line| line.ends_with("Acknowledged"))?;
        let written = version(said.get(before + at)?, "wrote ")?;
        // Four reads later, each 100 ms after the one before, it is longer ago than the bound.
        let later = said
            .iter()
            .skip(before + at + 1)
            .filter(|line| line.starts_with("read "));
        (later.count() >= 4).then_some(written)
    });
    let read_before = bob.reads().len();
    bob.signal(Signal::CONT);
    // Its first word may be of a read that began before it was suspended.
    let then = eventually("the suspended one to read again", LONG, || {
        let reads = bob.reads();
        (reads.len() > read_before + 5).then_some(reads)
    });
    let late = then
        .iter()
        .skip(read_before + 1)
        .find(|version| **version < written);
    assert_eq!(late, None, "older than {written}: {:#?}", bob.said());
    for process in [&mut alice, &mut bob] {
        assert!(process.child.wait().unwrap().success());
        let reads = process.reads();
        assert!(reads.is_sorted(), "it went back: {reads:?}");
        assert!(reads.len() > 30);
    }
}
