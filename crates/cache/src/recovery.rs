//! Changes that the second level has not taken yet. The last version of each key is enough, because what is brought
//! there later is a marker: by then somebody else may have a newer value.

use std::collections::{BTreeSet, HashMap};

use crate::entry::Body;
use crate::remote::Change;
use crate::version::Key;

#[derive(Debug)]
pub(crate) struct Recovery {
    changes: HashMap<Key, Change>,
    tags: BTreeSet<Key>,
    most: usize,
}

impl Recovery {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            changes: HashMap::new(),
            tags: BTreeSet::new(),
            most,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len() + self.tags.len()
    }

    /// Keeps a change; false if there is no room for another key.
    #[must_use]
    pub(crate) fn defer(&mut self, change: &Change) -> bool {
        if !self.changes.contains_key(&change.key) && self.len() >= self.most {
            return false;
        }
        let marker = Change {
            body: Body::Unknown,
            tags: Vec::new(),
            ..change.clone()
        };
        let held = self
            .changes
            .entry(change.key.clone())
            .or_insert_with(|| marker.clone());
        if marker.version > held.version {
            *held = marker;
        }
        true
    }

    /// Keeps a tag that is to be raised.
    #[must_use]
    pub(crate) fn defer_tag(&mut self, tag: &Key) -> bool {
        let room = self.len() < self.most || self.tags.contains(tag);
        if room {
            self.tags.insert(tag.clone());
        }
        room
    }

    /// Some of what waits, to be tried. It stays until [`done`](Self::done).
    pub(crate) fn some(&self, most: usize) -> (Vec<Change>, Vec<Key>) {
        let mut changes: Vec<_> = self.changes.values().cloned().collect();
        // The order of a hash map must not decide which go first, or a simulation could not be replayed.
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes.truncate(most);
        (changes, self.tags.iter().take(most).cloned().collect())
    }

    /// These went through.
    pub(crate) fn done(&mut self, changes: &[Change], tags: &[Key]) {
        for change in changes {
            let newer = |held: &Change| held.version > change.version;
            if !self.changes.get(&change.key).is_some_and(newer) {
                self.changes.remove(&change.key);
            }
        }
        for tag in tags {
            self.tags.remove(tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{Mark, Version};

    fn change(key: &str, version: u64) -> Change {
        Change {
            key: key.into(),
            version: Version::new(version),
            mark: Mark::ZERO,
            body: Body::Value("x".into()),
            tags: Vec::new(),
        }
    }

    #[test]
    fn the_last_version_of_a_key_waits_and_only_as_a_marker() {
        let mut recovery = Recovery::new(2);
        assert!(recovery.defer(&change("a", 2)) && recovery.defer(&change("a", 1)));
        let (changes, _) = recovery.some(10);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].version.get(), &changes[0].body), (2, &Body::Unknown));
        assert!(recovery.defer(&change("a", 3)));
        recovery.done(&changes, &[]);
        assert_eq!(recovery.len(), 1, "a newer version came meanwhile");
    }

    #[test]
    fn there_is_a_limit() {
        let mut recovery = Recovery::new(1);
        assert!(recovery.defer(&change("a", 1)));
        assert!(!recovery.defer(&change("b", 1)) && !recovery.defer_tag(&Key::from("t")));
        assert!(recovery.defer(&change("a", 2)));
    }
}
