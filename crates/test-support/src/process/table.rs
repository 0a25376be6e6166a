//! Who is whose child: read from `/proc`, or from `ps` where there is none.

use std::fs;
use std::process::Command;

use super::Pid;

/// The processes whose parent is `pid`.
pub fn children(pid: Pid) -> Vec<Pid> {
    table()
        .into_iter()
        .filter(|(_, parent)| *parent == pid.as_raw_nonzero().get())
        .map(|(child, _)| child)
        .collect()
}

/// `pid`'s children, their children and so on, parents before children.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let table = table();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|pid| pid.as_raw_nonzero().get()) {
        found.extend(
            table
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Every process with its parent: from `/proc`, or from `ps` where there is none.
fn table() -> Vec<(Pid, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return table_from_ps();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let pid = Pid::from_raw(name.parse().ok()?)?;
            Some((
                pid,
                parse_stat(&fs::read_to_string(format!("/proc/{name}/stat")).ok()?)?.parent,
            ))
        })
        .collect()
}

fn table_from_ps() -> Vec<(Pid, i32)> {
    let Ok(output) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| {
            let (pid, parent) = line.trim().split_once(char::is_whitespace)?;
            Some((Pid::from_raw(pid.parse().ok()?)?, parent.trim().parse().ok()?))
        })
        .collect()
}

pub(super) struct Stat {
    pub(super) state: char,
    pub(super) parent: i32,
    pub(super) threads: u32,
    pub(super) started: u64,
}

/// What we need of `/proc/<pid>/stat`. The name before it may hold anything, blanks and brackets too.
pub(super) fn parse_stat(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // The 20th and 22nd field of proc(5), where the state is the third and the parent the fourth.
    let threads = fields.nth(15)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        threads,
        started,
    })
}
