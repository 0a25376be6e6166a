//! What a face has made of a window, kept with it, so that whoever asks alike gets the same bytes.

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;

use super::Format;
use crate::session::MadeToken;

/// The bytes of one window in each format, made by whoever asks first. Not part of what the window says: windows are equal
/// without it, and a copy begins without.
#[derive(Default)]
pub struct Written {
    bodies: [OnceLock<Bytes>; Format::ALL.len()],
    token: MadeToken,
}

impl Written {
    /// The bytes that were made before, else those that `write` makes now. A face has to write the same for the same
    /// window and format; there is one that does.
    pub fn get_or_write(&self, format: Format, write: impl FnOnce() -> Vec<u8>) -> Bytes {
        let place = Format::ALL.iter().position(|known| *known == format);
        match place.and_then(|place| self.bodies.get(place)) {
            Some(cell) => cell.get_or_init(|| write().into()).clone(),
            None => write().into(),
        }
    }

    /// What clients are told that have seen nothing but this window.
    pub fn token(&self) -> &MadeToken {
        &self.token
    }
}

impl Clone for Written {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = self.bodies.iter().filter(|cell| cell.get().is_some());
        write!(f, "Written({})", made.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_written_once() {
        let written = Written::default();
        for (number, format) in Format::ALL.into_iter().enumerate() {
            let number = u8::try_from(number).unwrap();
            let first = written.get_or_write(format, || vec![number]);
            let again = written.get_or_write(format, || unreachable!("it was written"));
            assert!(first.as_ptr() == again.as_ptr() && first == [number][..]);
        }
        assert_eq!(
            format!("{written:?} {:?}", written.clone()),
            "Written(4) Written(0)"
        );
    }
}
