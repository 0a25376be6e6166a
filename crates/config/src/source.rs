//! Where a value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::KeyPath;

/// The origin of a value or of a problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Source {
    /// Nothing set it: the default of the settings struct.
    Default,
    /// A configuration file.
    File {
        /// The path as it was given to the loader.
        path: PathBuf,
        /// The line, from 1; `None` when the problem is the file itself.
        line: Option<u32>,
    },
    /// An environment variable.
    Environment {
        /// The variable's name, prefix included.
        variable: String,
    },
    /// A command-line flag.
    Flag {
        /// The flag as the user writes it, for instance `--bind`.
        flag: String,
    },
}

impl Source {
    pub(crate) fn file(path: &Path, line: u32) -> Self {
        Self::File {
            path: path.to_path_buf(),
            line: Some(line),
        }
    }

    pub(crate) fn whole_file(path: &Path) -> Self {
        Self::File {
            path: path.to_path_buf(),
            line: None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// The source of every value that some layer set. What is absent has its default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(BTreeMap<KeyPath, Set>);

#[derive(Clone, Debug)]
struct Set {
    source: Source,
    /// Neither a section nor a list: whatever the settings make of it came from there.
    scalar: bool,
}

impl Sources {
    pub(crate) fn insert(&mut self, path: KeyPath, source: Source, scalar: bool) {
        self.0.insert(path, Set { source, scalar });
    }

    /// The source of `path`. A key that a section leaves out has its default, wherever the section is.
    pub(crate) fn of(&self, path: &KeyPath) -> Source {
        let mut at = Some(path.clone());
        while let Some(ancestor) = at {
            if let Some(set) = self.0.get(&ancestor) {
                let tells = set.scalar || ancestor == *path;
                return if tells {
                    set.source.clone()
                } else {
                    Source::Default
                };
            }
            at = ancestor.parent();
        }
        Source::Default
    }
}
