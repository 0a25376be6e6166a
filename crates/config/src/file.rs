//! Reading a file with a bound, and saying what is wrong with it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Why a file could not be read.
pub(crate) struct Unreadable {
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
}

impl Unreadable {
    fn new(message: impl Into<String>, hint: &'static str) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint),
        }
    }
}

/// The text of a file of at most `limit` bytes; `Ok(None)` when nothing is there.
///
/// One byte more than the limit is read at most, so a file that grows or never ends costs no memory.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<String>, Unreadable> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    if file.metadata().map_err(|error| failed(&error))?.is_dir() {
        return Err(Unreadable::new("is a directory", "name the file in it"));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Unreadable::new(
            format!("is larger than {limit} bytes"),
            "is it the right file?",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Unreadable::new(format!("is not UTF-8 from byte {valid} on"), "save it as UTF-8")
    })?;
    Ok(Some(match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => rest.to_owned(),
        None => text,
    }))
}

fn failed(error: &std::io::Error) -> Unreadable {
    match error.kind() {
        ErrorKind::PermissionDenied => Unreadable::new(
            "can't be read: permission denied",
            "let the user that runs this program read it",
        ),
        _ => Unreadable {
            message: format!("can't be read: {error}"),
            hint: None,
        },
    }
}
