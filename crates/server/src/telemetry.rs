//! What the process says of itself. The log: structured, on standard error, never with ids, bodies or secrets.

mod allowance;
pub mod metrics;
pub mod slow;
pub mod traces;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, LogSettings};

/// Installs the log for the whole process.
///
/// # Errors
/// The filter does not parse, or a log is installed already.
pub fn install(settings: &LogSettings) -> anyhow::Result<()> {
    let filter: EnvFilter = settings.filter.parse().context("telemetry.log.filter")?;
    let terminal = std::io::stderr().is_terminal();
    let log = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told on standard error, which panics when that is what is gone.
        .log_internal_errors(false)
        .with_ansi(terminal);
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let installed = if json {
        log.json().flatten_event(true).try_init()
    } else {
        log.try_init()
    };
    installed.map_err(|error| anyhow::anyhow!("installing the log: {error}"))
}
