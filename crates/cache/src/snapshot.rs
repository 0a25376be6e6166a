//! A snapshot of the first level, for a process that starts again: which keys were worth holding, to be
//! [warmed](crate::Cache::warm).
//!
//! Keys only. A value from a file could be served only after its version was compared with the second level or the
//! source (G4, G5, G6), and asking for the version costs the same round trip as asking for the value; what is left would
//! be data on a disk that nobody watches. So a restored key goes the way of any other miss, and no guarantee depends on
//! what the file says.
//!
//! The format, numbers little-endian: `CKkeys`, the format's version (2 bytes), the count of keys (4), for each key its
//! length (2) and its text, then the FNV-1a hash (8) of all before it.

use std::fmt;
use std::io::{self, Read, Write};

use crate::cache::Cache;
use crate::error::MAX_KEY;
use crate::version::Key;

const MAGIC: [u8; 6] = *b"CKkeys";
const FORMAT: u16 = 1;

/// What a snapshot had.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Restored {
    /// The keys, those that were read most first. Empty when there is a warning.
    pub keys: Vec<Key>,
    /// Why nothing was restored. Something to log: a start without a snapshot is a start like any other.
    pub warning: Option<Warning>,
}

/// Why nothing was restored.
#[derive(Debug)]
#[non_exhaustive]
pub enum Warning {
    /// It could not be read.
    Unreadable(io::Error),
    /// It is no snapshot, is cut short, or was damaged.
    Corrupt,
    /// Another release wrote it.
    Format(u16),
    /// It has more keys than were asked for.
    TooLarge(u32),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "the snapshot can't be read: {error}"),
            Self::Corrupt => f.write_str("the snapshot is damaged"),
            Self::Format(format) => write!(f, "the snapshot has format {format} instead of {FORMAT}"),
            Self::TooLarge(keys) => write!(f, "the snapshot has {keys} keys, more than may be restored"),
        }
    }
}

/// Writes the keys that are read most, up to `most`; returns how many. Blocks as the writer does.
///
/// Into a file of its own that then takes the old one's name, so that a crash leaves one or the other.
///
/// # Errors
///
/// The writer's.
pub fn write(cache: &Cache, to: impl Write, most: usize) -> io::Result<usize> {
    let keys = cache.popular(most.min(u32::MAX as usize));
    let mut to = Hashing::new(to);
    to.put(&MAGIC)?;
    to.put(&FORMAT.to_le_bytes())?;
    to.put(&u32::try_from(keys.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    for key in &keys {
        to.put(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes())?;
        to.put(key.as_bytes())?;
    }
    let hash = to.hash.to_le_bytes();
    to.put(&hash)?;
    to.inner.flush()?;
    Ok(keys.len())
}

/// Reads what [`write()`] wrote, if it has up to `most` keys. Blocks as the reader does, and takes memory for no more than
/// what was there.
pub fn read(from: impl Read, most: usize) -> Restored {
    match keys(from, most) {
        Ok(keys) => Restored { keys, warning: None },
        Err(warning) => Restored {
            keys: Vec::new(),
            warning: Some(warning),
        },
    }
}

fn keys(from: impl Read, most: usize) -> Result<Vec<Key>, Warning> {
    let mut from = Hashing::new(from);
    if from.take::<6>()? != MAGIC {
        return Err(Warning::Corrupt);
    }
    let format = u16::from_le_bytes(from.take()?);
    if format != FORMAT {
        return Err(Warning::Format(format));
    }
    let count = u32::from_le_bytes(from.take()?);
    if usize::try_from(count).is_ok_and(|count| count > most) {
        return Err(Warning::TooLarge(count));
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let length = usize::from(u16::from_le_bytes(from.take()?));
        if length > MAX_KEY {
            return Err(Warning::Corrupt);
        }
        let mut key = vec![0; length];
        from.fill(&mut key)?;
        keys.push(Key::from(String::from_utf8(key).map_err(|_| Warning::Corrupt)?));
    }
    let hash = from.hash;
    if u64::from_le_bytes(from.take()?) != hash {
        return Err(Warning::Corrupt);
    }
    Ok(keys)
}

/// Hashes what goes through it: FNV-1a, which notices any one changed byte.
struct Hashing<T> {
    inner: T,
    hash: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: 0xCBF2_9CE4_8422_2325,
        }
    }

    fn hash(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash(bytes);
        self.inner.write_all(bytes)
    }
}

impl<R: Read> Hashing<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Warning> {
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Warning::Corrupt,
            _ => Warning::Unreadable(error),
        })?;
        self.hash(bytes);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Warning> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}
