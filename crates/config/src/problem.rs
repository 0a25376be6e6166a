//! What is wrong with a configuration, as data and as text.

use std::fmt;

use crate::source::Sources;
use crate::{KeyPath, Source};

/// What sort of thing is wrong. Stable, for programs; people read [`Problem::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file is missing, not a file, not readable, too large, not UTF-8, or of an unknown kind.
    Unreadable,
    /// The file is not well-formed.
    Syntax,
    /// The key is set twice in one layer.
    DuplicateKey,
    /// No setting has this key.
    UnknownKey,
    /// A value of another type than the key takes.
    WrongType,
    /// The type is right, the text is not: a duration, a size, a choice.
    BadValue,
    /// A number, text or list outside its bounds.
    OutOfRange,
    /// A required key is not set.
    Missing,
    /// Two settings of the layers can't both hold: a section here, a value there.
    Conflict,
    /// A secret could not be resolved.
    Secret,
    /// The settings contradict each other, according to the caller's `validate`.
    Contradiction,
}

/// One thing that is wrong, with the place to change and, where one is known, what to write there.
///
/// Shown as `source: key.path: message; hint`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What sort of thing is wrong.
    pub kind: ProblemKind,
    /// The key; the root when the problem is a whole file.
    pub path: KeyPath,
    /// The file and line, the variable or the flag that holds it.
    pub source: Source,
    /// What is wrong. Never holds the value of a secret.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, path: KeyPath, source: Source, message: impl Into<String>) -> Self {
        Self {
            kind,
            path,
            source,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source != Source::Default {
            write!(f, "{}: ", self.source)?;
        }
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Every problem of one load, in the order of files, variables and flags. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct Errors(Vec<Problem>);

impl Errors {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (rank(&a.source), &a.path).cmp(&(rank(&b.source), &b.path)));
        problems.dedup();
        Self(problems)
    }

    /// The problems as data.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    fn lines(&self) -> String {
        self.0
            .iter()
            .map(Problem::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl IntoIterator for Errors {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Files first, what nobody set last: its problem usually follows from another one.
fn rank(source: &Source) -> (u8, &Source) {
    let order = match source {
        Source::File { .. } => 0,
        Source::Environment { .. } => 1,
        Source::Flag { .. } => 2,
        Source::Default => 3,
    };
    (order, source)
}

/// A contradiction found by a settings type's own `validate`.
///
/// Crates that do not know this one return pairs of path and message, or triples with a hint;
/// both convert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    path: KeyPath,
    message: String,
    hint: Option<String>,
    involved: Vec<KeyPath>,
}

impl Finding {
    /// A contradiction at `path`.
    pub fn new(path: impl Into<KeyPath>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            hint: None,
            involved: Vec::new(),
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names another key that takes part. The report says where that one comes from, and leaves the
    /// finding out when that key has a problem of its own.
    #[must_use]
    pub fn involving(mut self, path: impl Into<KeyPath>) -> Self {
        self.involved.push(path.into());
        self
    }

    fn under(mut self, prefix: &KeyPath) -> Self {
        self.path = prefix.join(&self.path);
        for path in &mut self.involved {
            *path = prefix.join(path);
        }
        self
    }

    pub(crate) fn touches(&self, path: &KeyPath) -> bool {
        std::iter::once(&self.path)
            .chain(&self.involved)
            .any(|own| own.starts_with(path) || path.starts_with(own))
    }

    pub(crate) fn into_problem(self, sources: &Sources) -> Problem {
        let involved = self.involved.iter().map(|other| match sources.of(other) {
            Source::Default => format!(" ({other} has its default)"),
            source => format!(" ({other} comes from {source})"),
        });
        let message: String = std::iter::once(self.message).chain(involved).collect();
        let source = sources.of(&self.path);
        Problem::new(ProblemKind::Contradiction, self.path, source, message).maybe_hint(self.hint)
    }
}

impl<P: Into<KeyPath>, M: Into<String>> From<(P, M)> for Finding {
    fn from((path, message): (P, M)) -> Self {
        Self::new(path, message)
    }
}

impl<P: Into<KeyPath>, M: Into<String>, H: Into<String>> From<(P, M, H)> for Finding {
    fn from((path, message, hint): (P, M, H)) -> Self {
        Self::new(path, message).hint(hint)
    }
}

/// Collects the findings of a `validate`.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds one finding; its path starts at the root of the settings.
    pub fn push(&mut self, finding: impl Into<Finding>) {
        self.0.push(finding.into());
    }

    /// Adds the findings of a section, whose paths start at `prefix`.
    pub fn extend_under<F: Into<Finding>>(
        &mut self,
        prefix: impl Into<KeyPath>,
        findings: impl IntoIterator<Item = F>,
    ) {
        let prefix = prefix.into();
        self.0
            .extend(findings.into_iter().map(|finding| finding.into().under(&prefix)));
    }

    pub(crate) fn into_inner(self) -> Vec<Finding> {
        self.0
    }
}
