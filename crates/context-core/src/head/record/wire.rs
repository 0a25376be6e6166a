//! Numbers, times and texts of a record, as bytes and back.

use crate::Timestamp;

/// What is wrong with bytes that can't be read.
pub(super) type Read<T> = Result<T, &'static str>;

const CUT_SHORT: &str = "is cut short";

/// Appends a number in LEB128.
pub(super) fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

/// Appends a text after its length.
pub(super) fn put_text(to: &mut Vec<u8>, text: &[u8]) {
    put(to, text.len() as u64);
    to.extend_from_slice(text);
}

/// Appends a time.
pub(super) fn put_time(to: &mut Vec<u8>, time: Timestamp) {
    to.extend_from_slice(&time.as_micros().to_le_bytes());
}

/// What is left to read.
pub(super) struct Reader<'bytes>(pub(super) &'bytes [u8]);

impl<'bytes> Reader<'bytes> {
    #[inline]
    pub(super) fn byte(&mut self) -> Read<u8> {
        let (byte, rest) = self.0.split_first().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(*byte)
    }

    #[inline]
    pub(super) fn number(&mut self) -> Read<u64> {
        match self.byte()? {
            byte @ ..0x80 => Ok(byte.into()),
            low => self.long(low),
        }
    }

    /// A number of several bytes, of which the first was read.
    fn long(&mut self, low: u8) -> Read<u64> {
        let mut number = u64::from(low & 0x7F);
        for place in 1..10 {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7F);
            if place == 9 && part > 1 {
                break;
            }
            number |= part << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("has a number of more than 64 bits")
    }

    #[inline]
    pub(super) fn time(&mut self) -> Read<Timestamp> {
        let (micros, rest) = self.0.split_first_chunk().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(Timestamp::from_micros(i64::from_le_bytes(*micros)))
    }

    #[inline]
    pub(super) fn text(&mut self) -> Read<&'bytes str> {
        let length = usize::try_from(self.number()?).map_err(|_| CUT_SHORT)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| "has a text that is not UTF-8")
    }
}

/// Where texts stand.
#[derive(Clone, Copy)]
pub(super) struct Texts<'bytes> {
    pub(super) document: &'bytes str,
    /// The texts that are escaped in the document.
    pub(super) escaped: &'bytes str,
}

impl<'bytes> Texts<'bytes> {
    /// The text whose place is read next: after how many bytes it starts, twice, one more if that is among the escaped; and
    /// how long it is.
    #[inline]
    pub(super) fn next(self, from: &mut Reader<'_>) -> Read<&'bytes str> {
        let (start, length) = (from.number()?, from.number()?);
        let source = if start.is_multiple_of(2) {
            self.document
        } else {
            self.escaped
        };
        // Whoever adds the two up would have to think of numbers that are too large.
        let (start, length) = (usize::try_from(start / 2).ok(), usize::try_from(length).ok());
        let text = start
            .zip(length)
            .and_then(|(start, length)| source.get(start..)?.get(..length));
        text.ok_or("has a text outside of its document")
    }

    #[inline]
    pub(super) fn next_if(self, is_there: bool, from: &mut Reader<'_>) -> Read<Option<&'bytes str>> {
        is_there.then(|| self.next(from)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back(number in any::<u64>(), shift in 0_u32..64, after in any::<u8>()) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            let length = (70 - number.leading_zeros() as usize).max(7) / 7;
            prop_assert_eq!(bytes.len(), length);
            for end in 0..length {
                prop_assert!(Reader(&bytes[..end]).number().is_err());
            }
            bytes.push(after);
            let mut from = Reader(&bytes);
            prop_assert_eq!(from.number(), Ok(number));
            prop_assert_eq!(from.0, &[after]);
        }

        #[test]
        fn any_bytes_are_a_number_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut from = Reader(&bytes);
            if from.number().is_ok() {
                let length = bytes.len() - from.0.len();
                prop_assert!((1..=10).contains(&length));
            }
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        let nine = [0xFF; 9];
        let with = |last: &[u8]| Reader(&[&nine[..], last].concat()).number();
        assert_eq!(with(&[0x01]), Ok(u64::MAX));
        assert_eq!(with(&[0x00]), Ok(u64::MAX >> 1));
        for last in [&[0x02][..], &[0x7F], &[0x80, 0x00], &[0x81, 0x00], &[0xFF, 0xFF]] {
            assert!(with(last).is_err(), "{last:x?}");
        }
    }
}
