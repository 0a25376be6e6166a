//! Why a read or a change did not come to anything.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Key, Version};

/// What a loader failed with; shared by everybody who waited for it.
pub type LoadError = Arc<dyn StdError + Send + Sync>;

/// Why a read or a change did not come to anything.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The loader failed.
    Load(LoadError),
    /// The loader answered nothing for the key, or its task ended early: it panicked, or the runtime shut down.
    Abandoned,
    /// No answer within the caller's wait. The load goes on and is cached when it succeeds.
    TimedOut(Duration),
    /// The source answered with an older version than the read, or a change known here, demands, even after it was
    /// asked for its newest.
    BelowFloor {
        /// The least version that would do.
        floor: Version,
        /// What the source had.
        found: Version,
    },
    /// As many loads are under way as may be.
    Overloaded,
    /// The key is longer than may be.
    KeyTooLong(usize),
    /// The bytes are not what the codec wrote.
    Decode(LoadError),
    /// The value can't be encoded.
    Encode(LoadError),
    /// The second level could not do it.
    Remote(RemoteError),
}

impl Error {
    /// Whether the same call may succeed a little later.
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::KeyTooLong(_) | Self::Decode(_) | Self::Encode(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => write!(f, "the loader failed: {error}"),
            Self::Abandoned => f.write_str("the load ended without an answer"),
            Self::TimedOut(after) => write!(f, "no answer within {after:?}"),
            Self::BelowFloor { floor, found } => {
                write!(
                    f,
                    "the source has version {found}, below the {floor} it must have"
                )
            }
            Self::Overloaded => f.write_str("too many loads are under way"),
            Self::KeyTooLong(length) => write!(f, "a key of {length} bytes is too long"),
            Self::Decode(error) => write!(f, "the cached bytes can't be decoded: {error}"),
            Self::Encode(error) => write!(f, "the value can't be encoded: {error}"),
            Self::Remote(error) => write!(f, "the second level failed: {error}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Load(error) | Self::Decode(error) | Self::Encode(error) => Some(&**error),
            Self::Remote(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a second level or a backplane could not do what it was asked. Whatever it is, a read goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteError {
    /// It did not answer in time; whether it did what it was asked is unknown.
    TimedOut,
    /// It can't be reached, or refuses.
    Unavailable(String),
    /// What it holds can't be understood.
    Corrupt(String),
    /// The value is over its limit, in bytes.
    TooLarge(usize),
}

impl RemoteError {
    /// Whether it speaks of the second level as a whole and not of what was asked for.
    pub(crate) const fn is_down(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Unavailable(_))
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
            Self::Corrupt(what) => write!(f, "corrupt: {what}"),
            Self::TooLarge(bytes) => write!(f, "{bytes} bytes are over its limit"),
        }
    }
}

impl StdError for RemoteError {}

/// Everything that is wrong with a cache's description, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError(pub(crate) Vec<Problem>);

impl BuildError {
    /// The problems; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

/// One thing that is wrong with a cache's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What was set.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for Problem { what, why } in &self.0 {
            let separator = if first { "" } else { "; " };
            write!(f, "{separator}{what} {why}")?;
            first = false;
        }
        Ok(())
    }
}

impl StdError for BuildError {}

/// Longest key, in bytes.
pub(crate) const MAX_KEY: usize = 4096;

pub(crate) fn checked(key: &str) -> Result<Key, Error> {
    if key.len() > MAX_KEY {
        return Err(Error::KeyTooLong(key.len()));
    }
    Ok(Key::from(key))
}
