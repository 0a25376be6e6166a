//! Where commands write: results to standard output, everything else to standard error.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes a result.
pub(super) fn print(bytes: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(bytes)
}

/// Writes a result as one line of JSON, indented on a terminal.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = if io::stdout().is_terminal() {
        serde_json::to_vec_pretty(value)?
    } else {
        serde_json::to_vec(value)?
    };
    text.push(b'\n');
    Ok(print(&text)?)
}

/// Writes to the person at the terminal.
pub(super) fn complain(text: &str) {
    // Nobody is left to tell if standard error is closed.
    drop(writeln!(io::stderr().lock(), "{}", text.trim_end()));
}

/// Whether the reader of our output went away, as `head` does.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}

/// A bar on standard error, if that is a terminal. `total` of 0 means that nobody knows.
pub(super) fn progress(total: u64, unit: &'static str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let template = match (total, unit) {
        (0, _) => "{spinner} {pos} {msg} {elapsed}",
        (_, "bytes") => "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
        _ => "{bar:40} {pos}/{len} {eta} {msg}",
    };
    let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
