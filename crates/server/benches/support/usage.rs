//! Processor time of processes: what rates hide on a machine that others use as well.

use std::time::Duration;

use contextkeep_test_support::process::{Pid, descendants};

/// Clock ticks a second in `/proc`; the same on every Linux.
const TICKS: u64 = 100;

/// Processor time of a process and its descendants since they began, those that have ended included.
pub(crate) fn of_tree(pid: u32) -> Duration {
    let root = Pid::from_raw(pid.cast_signed()).unwrap();
    let all = descendants(root).into_iter().chain([root]);
    all.map(|pid| time(pid.as_raw_nonzero().get(), 4)).sum()
}

/// Processor time of a process since it began.
pub(crate) fn of(pid: u32) -> Duration {
    time(pid.cast_signed(), 2)
}

/// The first so many of: its own in user space and in the kernel, that of its children that have ended likewise.
fn time(pid: i32, fields: usize) -> Duration {
    // It may have ended since it was listed.
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Duration::ZERO;
    };
    // The name, in parentheses, may hold spaces; utime, stime, cutime and cstime are the 14th to 17th field.
    let rest = stat.rsplit_once(") ").unwrap().1;
    let ticks = rest.split(' ').skip(11).take(fields);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * (1000 / TICKS))
}
