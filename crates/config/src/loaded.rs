//! Loaded settings, where each came from, and how to show them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use crate::secret::REDACTED;
use crate::source::Sources;
use crate::{KeyPath, Source};

#[cfg(test)]
mod tests;

/// Settings with the source of every key. Holds no secret besides those in [`value`](Self::value).
#[derive(Clone)]
pub struct Loaded<T> {
    /// The settings.
    pub value: T,
    sources: Sources,
    secrets: BTreeSet<KeyPath>,
}

/// One key in effect.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub path: KeyPath,
    /// Its value; `<redacted>` for a secret.
    pub value: Json,
    /// Where the value came from.
    pub source: Source,
}

impl<T> Loaded<T> {
    pub(crate) fn new(value: T, sources: Sources, secrets: BTreeSet<KeyPath>) -> Self {
        Self {
            value,
            sources,
            secrets,
        }
    }

    /// Where the value of a key came from; [`Source::Default`] when nothing set it.
    pub fn source_of(&self, path: impl Into<KeyPath>) -> Source {
        self.sources.of(&path.into())
    }
}

impl<T: Serialize> Loaded<T> {
    /// Every key in effect, defaults included, in the order of the paths. Secrets are redacted; one that
    /// is not set has no entry.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        // Settings that do not serialise show what is known without them.
        let value = serde_json::to_value(&self.value).unwrap_or_default();
        self.collect(value, &KeyPath::root(), &mut entries);
        // A secret that serialises all the same is not shown; a section of nothing but secrets is no value.
        let is_hidden = |entry: &Entry| self.secrets.iter().any(|secret| secret.starts_with(&entry.path));
        entries.retain(|entry| !is_hidden(entry));
        entries.extend(
            self.secrets
                .iter()
                .map(|path| self.entry(path.clone(), Json::from(REDACTED))),
        );
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries
    }

    fn collect(&self, value: Json, path: &KeyPath, entries: &mut Vec<Entry>) {
        match value {
            Json::Object(map) if !map.is_empty() => {
                map.into_iter()
                    .for_each(|(key, value)| self.collect(value, &path.child(key), entries));
            }
            Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
                let items = items.into_iter().enumerate();
                items.for_each(|(index, item)| self.collect(item, &path.child(index.to_string()), entries));
            }
            leaf => entries.push(self.entry(path.clone(), leaf)),
        }
    }

    fn entry(&self, path: KeyPath, value: Json) -> Entry {
        let source = self.sources.of(&path);
        Entry { path, value, source }
    }

    /// The settings in effect, one key a line with its source, secrets redacted.
    ///
    /// ```text
    /// database.pool_size = 50         # app.yaml:3
    /// database.dsn       = "<redacted>" # APP_DATABASE__DSN
    /// ```
    pub fn show(&self) -> String {
        let lines: Vec<_> = self
            .entries()
            .into_iter()
            .map(|entry| (entry.path.to_string(), entry.value.to_string(), entry.source))
            .collect();
        let widest =
            |width: fn(&(String, String, Source)) -> usize| lines.iter().map(width).max().unwrap_or(0);
        let paths = widest(|(path, ..)| path.chars().count());
        // One long list does not push every source off the screen.
        let values = widest(|(_, value, _)| value.chars().count()).min(40);
        let line = |(path, value, source): &(String, String, Source)| {
            format!("{path:paths$} = {value:values$} # {source}\n")
        };
        lines.iter().map(line).collect()
    }
}

impl<T> fmt::Debug for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}
