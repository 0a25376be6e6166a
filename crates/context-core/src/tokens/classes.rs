//! What the patterns of the encodings ask of a character, as bits of one byte.
//!
//! ASCII is a table made by the compiler. The rest comes, on the first character that needs it, from the very tables
//! that `bpe-openai`'s regular expressions are compiled from (`regex-syntax`), so that a new edition of Unicode changes
//! both at once: two levels of 256 characters, about 40 KiB.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// `\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}`: what begins a word of `o200k_base`.
pub(super) const UPPER: u8 = 1;
/// `\p{Ll}\p{Lm}\p{Lo}\p{M}`: what ends one.
pub(super) const LOWER: u8 = 1 << 1;
/// `\p{L}`.
pub(super) const LETTER: u8 = 1 << 2;
/// `\p{N}`.
pub(super) const NUMBER: u8 = 1 << 3;
/// `\s`.
pub(super) const SPACE: u8 = 1 << 4;
/// `[\r\n]`, besides [`SPACE`].
pub(super) const NEWLINE: u8 = 1 << 5;
/// `[^\s\p{L}\p{N}]`; combining marks are this besides [`UPPER`] and [`LOWER`].
pub(super) const OTHER: u8 = 1 << 6;

/// The class of the end of a text: no bit.
pub(super) const END: u8 = 0;

const ASCII: [u8; 128] = {
    let mut classes = [OTHER; 128];
    let mut at = 0_u8;
    while at < 128 {
        classes[at as usize] = match at {
            b'A'..=b'Z' => UPPER | LETTER,
            b'a'..=b'z' => LOWER | LETTER,
            b'0'..=b'9' => NUMBER,
            b'\r' | b'\n' => SPACE | NEWLINE,
            b'\t' | 0x0b | 0x0c | b' ' => SPACE,
            _ => OTHER,
        };
        at += 1;
    }
    classes
};

/// The class of the character at a byte of a text and its length in bytes; [`END`] and 0 past the last.
/// `at` is a character's first byte.
#[inline]
pub(super) fn class_at(text: &str, at: usize) -> (u8, usize) {
    match text.as_bytes().get(at) {
        None => (END, 0),
        Some(&byte) => match ASCII.get(usize::from(byte)) {
            Some(&class) => (class, 1),
            None => wide_class_at(text, at),
        },
    }
}

/// The end of the longest run of characters that have any bit of `classes`, from `at` on.
#[inline]
pub(super) fn run(text: &str, mut at: usize, classes: u8) -> usize {
    loop {
        let (class, len) = class_at(text, at);
        if class & classes == 0 {
            return at;
        }
        at += len;
    }
}

#[inline(never)]
fn wide_class_at(text: &str, at: usize) -> (u8, usize) {
    text.get(at..)
        .and_then(|rest| rest.chars().next())
        .map_or((END, 0), |char| (WIDE.class(char), char.len_utf8()))
}

static WIDE: LazyLock<Wide> = LazyLock::new(Wide::new);

const BLOCK: usize = 256;
const CHARS: usize = char::MAX as usize + 1;

/// Equal blocks are kept once.
struct Wide {
    /// Of each 256 characters, where in `classes` their block begins, in blocks.
    blocks: Vec<u16>,
    classes: Vec<u8>,
}

impl Wide {
    fn new() -> Self {
        let flat = flat();
        let mut known = HashMap::new();
        let mut wide = Self {
            blocks: Vec::with_capacity(CHARS / BLOCK),
            classes: Vec::new(),
        };
        for block in flat.chunks(BLOCK) {
            let next = u16::try_from(known.len()).expect("invariant: 4352 blocks at most");
            let number = *known.entry(block).or_insert_with(|| {
                wide.classes.extend_from_slice(block);
                next
            });
            wide.blocks.push(number);
        }
        wide.classes.shrink_to_fit();
        wide
    }

    #[inline]
    fn class(&self, char: char) -> u8 {
        let code = char as usize;
        self.classes[usize::from(self.blocks[code / BLOCK]) * BLOCK + code % BLOCK]
    }
}

/// A byte for every code point.
fn flat() -> Vec<u8> {
    let mut classes = vec![0; CHARS];
    for (pattern, bits) in [
        (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", UPPER),
        (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", LOWER),
        (r"\p{L}", LETTER),
        (r"\p{N}", NUMBER),
        (r"\s", SPACE),
        (r"[\r\n]", NEWLINE),
        (r"[^\s\p{L}\p{N}]", OTHER),
    ] {
        let hir = regex_syntax::parse(pattern).expect("invariant: a class that is a literal parses");
        if let HirKind::Class(Class::Unicode(class)) = hir.kind() {
            for range in class.ranges() {
                for class in &mut classes[range.start() as usize..=range.end() as usize] {
                    *class |= bits;
                }
            }
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_agree_with_the_language_about_every_character() {
        let mut buffer = [0; 4];
        for char in '\0'..=char::MAX {
            let (class, len) = class_at(char.encode_utf8(&mut buffer), 0);
            assert_eq!(len, char.len_utf8());
            assert_eq!(WIDE.class(char), class, "{char:?}");
            assert_eq!(class & SPACE != 0, char.is_whitespace(), "{char:?}");
            assert_eq!(class & NEWLINE != 0, matches!(char, '\r' | '\n'), "{char:?}");
            // Letters are UPPER, LOWER or both, never neither; marks are both and no letters.
            let word = class & (UPPER | LOWER) != 0;
            assert_eq!(
                word,
                class & LETTER != 0 || class & (UPPER | LOWER | OTHER) == UPPER | LOWER | OTHER,
                "{char:?}"
            );
            // Every character is exactly one of these.
            assert_eq!(
                (class & (LETTER | NUMBER | SPACE | OTHER)).count_ones(),
                1,
                "{char:?}"
            );
        }
        assert!(WIDE.classes.len() + 2 * WIDE.blocks.len() < 64 << 10);
    }
}
