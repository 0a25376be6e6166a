//! Instructions of a request outside of the kernel, by valgrind, which other work on the machine does not disturb.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::path::Path;
use std::process::Command;

use super::client::Process;

/// Instructions that a server takes from its start to its end.
pub(crate) fn collected(folder: &Path, server: &Command, work: impl FnOnce(&str)) -> u64 {
    let log = folder.join("valgrind.log");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--log-file={}", log.display()))
        .arg(server.get_program())
        .args(server.get_args())
        .current_dir(server.get_current_dir().unwrap_or(folder));
    let process = Process::of(command);
    work(&process.address);
    process.stop();
    let log = std::fs::read_to_string(log).unwrap();
    let count = log
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("no count: {log}"))
}

/// What one request takes: the difference of two runs of so many, which start and end alike.
pub(crate) fn each((few, many): (u64, u64), run: &mut impl FnMut(u64) -> u64) -> u64 {
    run(many).saturating_sub(run(few)) / (many - few)
}
