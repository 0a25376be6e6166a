//! Messages as lines, bounded.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end.
    Whole(Bytes),
    /// A line over the limit; its bytes are gone.
    TooLong,
}

/// Splits a stream into lines of at most `bytes_max` bytes. Holds at most one line and one read.
#[derive(Debug)]
pub(super) struct Lines {
    bytes_max: usize,
    /// Bytes at the front that hold no line end.
    searched: usize,
    /// Inside a line that was refused.
    skipping: bool,
}

impl Lines {
    pub(super) fn up_to(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            searched: 0,
            skipping: false,
        }
    }
}

impl Decoder for Lines {
    type Item = Line;
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<Line>> {
        loop {
            let fresh = source.get(self.searched..).unwrap_or_default();
            let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
                if self.skipping {
                    source.clear();
                }
                self.searched = source.len();
                if source.len() <= self.bytes_max {
                    return Ok(None);
                }
                source.clear();
                self.searched = 0;
                self.skipping = true;
                return Ok(Some(Line::TooLong));
            };
            let mut line = source.split_to(self.searched + end + 1);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            line.truncate(line.len() - 1);
            if line.len() > self.bytes_max {
                return Ok(Some(Line::TooLong));
            }
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if !line.is_empty() {
                return Ok(Some(Line::Whole(line.freeze())));
            }
        }
    }

    /// The last line needs no end.
    fn decode_eof(&mut self, source: &mut BytesMut) -> io::Result<Option<Line>> {
        if let Some(line) = self.decode(source)? {
            return Ok(Some(line));
        }
        self.searched = 0;
        let rest = source.split().freeze();
        Ok((!rest.is_empty()).then_some(Line::Whole(rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the text in pieces of this size.
    fn read_in_pieces(text: &[u8], piece: usize, bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::up_to(bytes_max);
        let mut source = BytesMut::new();
        let mut read = Vec::new();
        for chunk in text.chunks(piece) {
            source.extend_from_slice(chunk);
            while let Some(line) = lines.decode(&mut source).unwrap() {
                read.push(line);
            }
            assert!(source.len() <= bytes_max, "more than one line is held");
        }
        while let Some(line) = lines.decode_eof(&mut source).unwrap() {
            read.push(line);
        }
        read
    }

    fn read(text: &[u8], bytes_max: usize) -> Vec<Line> {
        let all_at_once = read_in_pieces(text, text.len(), bytes_max);
        for piece in 1..text.len() {
            assert_eq!(
                read_in_pieces(text, piece, bytes_max),
                all_at_once,
                "in pieces of {piece}"
            );
        }
        all_at_once
    }

    fn whole(text: &'static str) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(
            read(b"ab\n\r\ncd\r\n\nef", 4),
            [whole("ab"), whole("cd"), whole("ef")]
        );
    }

    #[test]
    fn a_line_over_the_limit_is_reported_once_and_the_next_one_is_read() {
        assert_eq!(read(b"abcdefghij\nab\n", 4), [Line::TooLong, whole("ab")]);
        assert_eq!(
            read(b"abcd\nabcde\nabcd", 4),
            [whole("abcd"), Line::TooLong, whole("abcd")]
        );
    }
}
