//! Answers of last resort, which say that they are.

use std::time::Duration;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The dependency, just now.
    Fresh,
    /// An earlier answer of the dependency's.
    Stale {
        /// How much earlier.
        age: Duration,
    },
    /// Made up for the occasion.
    Default,
}

/// A value and where it came from, so that whoever passes it on can say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served<T> {
    /// The answer.
    pub value: T,
    /// Its origin.
    pub source: Source,
}

impl<T> Served<T> {
    /// From the dependency.
    pub const fn fresh(value: T) -> Self {
        Self {
            value,
            source: Source::Fresh,
        }
    }

    /// From an earlier answer.
    pub const fn stale(value: T, age: Duration) -> Self {
        Self {
            value,
            source: Source::Stale { age },
        }
    }

    /// From nowhere.
    pub const fn default_value(value: T) -> Self {
        Self {
            value,
            source: Source::Default,
        }
    }

    /// Whether the dependency answered.
    pub fn is_fresh(&self) -> bool {
        self.source == Source::Fresh
    }
}

/// The bounds of a fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// A stale answer older than this is not served.
    pub max_age: Duration,
    /// How long finding an answer may take. It is tried once.
    pub timeout: Duration,
}

impl Fallback {
    /// Stale answers up to `max_age`, found within 100 ms.
    pub const fn max_age(max_age: Duration) -> Self {
        Self {
            max_age,
            timeout: Duration::from_millis(100),
        }
    }

    /// Whether this answer is within the bounds.
    pub fn allows<T>(&self, served: &Served<T>) -> bool {
        !matches!(served.source, Source::Stale { age } if age > self.max_age)
    }
}
