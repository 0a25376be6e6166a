//! Key paths: `context_manager.read_replicas.0.dsn`.

use std::fmt;

/// Where a value sits in the settings: segments from the root, list indices as numbers.
///
/// Written with dots; a segment that holds a dot itself is quoted: `upstreams."a.example".url`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// The path of the whole settings value.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The path of `segment` under this one. The segment is taken as it is, dots included.
    #[must_use]
    pub fn child(&self, segment: impl Into<String>) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment.into());
        Self(segments)
    }

    /// This path with `rest` behind it.
    #[must_use]
    pub fn join(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// The path one segment up; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }

    /// The segments, outermost first.
    pub fn segments(&self) -> &[String] {
        &self.0
    }

    /// Whether this path is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        self.0.starts_with(&ancestor.0)
    }
}

impl From<&str> for KeyPath {
    fn from(text: &str) -> Self {
        let mut segments = Vec::new();
        let mut segment = String::new();
        let mut quoted = false;
        for character in text.chars() {
            match character {
                '"' => quoted = !quoted,
                '.' if !quoted => segments.push(std::mem::take(&mut segment)),
                other => segment.push(other),
            }
        }
        if !text.is_empty() {
            segments.push(segment);
        }
        Self(segments)
    }
}

impl From<String> for KeyPath {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&Self> for KeyPath {
    fn from(path: &Self) -> Self {
        path.clone()
    }
}

impl FromIterator<String> for KeyPath {
    fn from_iter<I: IntoIterator<Item = String>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(".")?;
            }
            if segment.contains('.') {
                write!(f, "\"{segment}\"")?;
            } else {
                f.write_str(segment)?;
            }
        }
        Ok(())
    }
}
