//! Tokenizers that an operator has named: each a `tokenizer.json` in the format of Hugging Face's library.
//!
//! Names are kept for the life of the process, so that a [`Tokenizer`](super::Tokenizer) stays a small value that can be
//! copied: those of the configuration, and those that contexts in the store bear which no configuration has any more.
//!
//! - **T1** A name means one file as long as the process lives.
//! - **T2** What is named and not there counts nothing that is stored: appends are refused, and windows of what was counted
//!   before are answered as ever.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::Tokenizer;
use crate::error::{Error, Invalid, Result};

/// Most names, and the longest one in bytes.
const NAMES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 64;
/// Largest file, in bytes.
#[cfg(feature = "tokenizer-json")]
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A place in the list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Named(u8);

/// Counts the tokens of a text.
type Count = dyn Fn(&str) -> usize + Send + Sync;

#[derive(Clone)]
struct Entry {
    name: &'static str,
    count: Option<Arc<Count>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

static NAMES: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

impl Named {
    /// Its place, from 0.
    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// What [`Named::number`] said.
    pub(crate) fn numbered(number: u8) -> Option<Self> {
        entry(Self(number)).map(|_| Self(number))
    }

    pub(super) fn name(self) -> &'static str {
        entry(self).map_or("unknown", |entry| entry.name)
    }

    pub(super) fn is_there(self) -> bool {
        entry(self).is_some_and(|entry| entry.count.is_some())
    }

    /// `None` if there is nothing to count with.
    pub(super) fn count(self, text: &str) -> Option<usize> {
        let count = entry(self)?.count?;
        Some(count(text))
    }

    /// One that can be counted with.
    pub(super) fn usable(name: &str) -> Option<Self> {
        let found = find(&NAMES.read().unwrap_or_else(PoisonError::into_inner), name);
        found.filter(|named| named.is_there())
    }

    /// One of this name, whether it can be counted with or not; `None` if it can't be a name, or there are too many.
    #[cfg(any(feature = "cache", feature = "embedded", feature = "postgres"))]
    pub(super) fn stored(name: &str) -> Option<Self> {
        if let Some(named) = find(&NAMES.read().unwrap_or_else(PoisonError::into_inner), name) {
            return Some(named);
        }
        check(name).ok()?;
        insert(name, None)
    }
}

fn entry(named: Named) -> Option<Entry> {
    let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
    names.get(usize::from(named.0)).cloned()
}

fn find(names: &[Entry], name: &str) -> Option<Named> {
    let place = names.iter().position(|entry| entry.name == name)?;
    u8::try_from(place).ok().map(Named)
}

fn insert(name: &str, count: Option<Arc<Count>>) -> Option<Named> {
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(named) = find(&names, name) {
        // T1
        if let Some(entry) = names.get_mut(usize::from(named.0))
            && entry.count.is_none()
        {
            entry.count = count;
        }
        return Some(named);
    }
    if names.len() >= NAMES_MAX {
        return None;
    }
    let place = u8::try_from(names.len()).ok()?;
    // For the life of the process; there are few.
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.push(Entry { name, count });
    Some(Named(place))
}

/// Whether a tokenizer may have this name: letters, digits, `_`, `-`, `.`, and none of ours.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
        return Err(format!(
            "{name:?} is not made of 1 to {NAME_BYTES_MAX} letters, digits, _, - and ."
        ));
    }
    if Tokenizer::ALL.iter().any(|known| known.as_str() == name) {
        return Err(format!("{name:?} is the name of a tokenizer that is built in"));
    }
    Ok(())
}

/// Reads the file and gives it this name.
///
/// # Errors
/// What is wrong with the name or the file.
pub(super) fn load(name: &str, file: &Path) -> Result<Named> {
    let invalid = |problem: String| Error::from(Invalid::new(name.to_owned(), problem));
    check(name).map_err(invalid)?;
    if Named::usable(name).is_some() {
        return Err(invalid("is given twice".to_owned()));
    }
    let count = read(file).map_err(|problem| invalid(format!("{}: {problem}", file.display())))?;
    insert(name, Some(count)).ok_or_else(|| invalid(format!("there are more than {NAMES_MAX} names")))
}

#[cfg(not(feature = "tokenizer-json"))]
fn read(_: &Path) -> Result<Arc<Count>, String> {
    Err("this build has no tokenizers of its operator's (feature tokenizer-json)".to_owned())
}

#[cfg(feature = "tokenizer-json")]
fn read(file: &Path) -> Result<Arc<Count>, String> {
    let size = std::fs::metadata(file)
        .map_err(|error| format!("cannot be read: {error}"))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(format!("has {size} bytes; at most {FILE_BYTES_MAX} are read"));
    }
    let bytes = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let count = super::json::Json::parse(&bytes)?;
    Ok(Arc::new(move |text: &str| count.count(text)))
}
