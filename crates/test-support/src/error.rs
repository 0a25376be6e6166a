//! What can go wrong while a server is found, started, broken or mended.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The harness' result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the harness could not do what a test asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, socket or process operation of ours failed.
    #[error("could not {action}")]
    Io {
        /// What was tried, as an infinitive with its object.
        action: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program is not installed, or is too old.
    #[error("{program} not found: {hint}")]
    NotFound {
        /// The program that was looked for.
        program: String,
        /// Where it was looked for and how to install it.
        hint: String,
    },
    /// A program ended when it should not have, or ended with a failure.
    #[error("`{command}` ended with {status}\n{output}")]
    Exited {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A condition did not come true in time.
    #[error("gave up after {after:?} waiting for {what}{}", last.as_deref().map(|last| format!("; last seen: {last}")).unwrap_or_default())]
    TimedOut {
        /// The condition.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// What was seen last, where that says more.
        last: Option<String>,
    },
    /// A server answered, and the answer is an error.
    #[error("{server} refused: {message}")]
    Refused {
        /// Who answered.
        server: &'static str,
        /// Its error code (SQLSTATE for Postgres, the first word for Redis).
        code: String,
        /// Its own words.
        message: String,
    },
    /// A server answered something the protocol does not allow, or this client does not know.
    #[error("{server} broke the protocol: {message}")]
    Protocol {
        /// Who answered.
        server: &'static str,
        /// What was odd.
        message: String,
    },
    /// The request makes no sense in the present state (an unknown member, no services recorded).
    #[error("{0}")]
    State(String),
}

impl Error {
    /// An operating system error with the action that met it.
    pub fn io(action: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            action: action.into(),
            source,
        }
    }

    /// The same error for an action on a path, as `map_err` wants it.
    pub(crate) fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path: PathBuf = path.to_owned();
        move |source| Self::io(format!("{verb} {}", path.display()), source)
    }

    /// Whether a server's own words say that its port was already taken.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Exited { output, .. } if output.to_ascii_lowercase().contains("address already in use"))
    }
}
