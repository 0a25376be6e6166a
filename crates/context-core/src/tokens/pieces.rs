//! The two encodings' split of a text into pieces, which are then encoded each by itself.
//!
//! The encodings publish the split as a regular expression. This is the same by hand: each function is one or several
//! of its alternatives, tried in its order, with what backtracking would do worked out beforehand. Every character is
//! looked at a bounded number of times, so that the whole is linear in any text. That the split is the expression's is
//! a property in `tests.rs`, not an argument.
//!
//! Source of the expressions: `tiktoken_ext/openai_public.py` of `OpenAI`'s tiktoken.

use super::classes::{LETTER, LOWER, NEWLINE, NUMBER, OTHER, SPACE, UPPER, class_at, run};

/// Whose pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    O200k,
    Cl100k,
}

impl Pattern {
    /// The end of the piece that begins at `at`, in bytes. `at` is inside the text, at a character's first byte; the
    /// answer is greater.
    #[inline]
    pub(super) fn piece_end(self, text: &str, at: usize) -> usize {
        match self {
            Self::O200k => o200k_word(text, at).unwrap_or_else(|| rest(text, at, b"\r\n/")),
            Self::Cl100k => cl100k_word(text, at).unwrap_or_else(|| rest(text, at, b"\r\n")),
        }
    }
}

/// Either of
///
/// ```text
/// [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
/// [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
/// ```
///
/// The first goes before the second with and without the character before the word, hence the order here. Marks are
/// the one kind of character that can be either the character before a word or its beginning.
#[inline]
fn o200k_word(text: &str, at: usize) -> Option<usize> {
    let (class, len) = class_at(text, at);
    let after = if class & (NEWLINE | LETTER | NUMBER) == 0 {
        cased_word(text, at + len)
    } else {
        Word::None
    };
    let end = if let Word::Lower(end) = after {
        end
    } else {
        let here = if class & (UPPER | LOWER) == 0 {
            Word::None
        } else {
            cased_word(text, at)
        };
        match (here, after) {
            // What begins here and might have been passed over is a mark, and that makes it a `Lower`.
            (Word::Lower(end) | Word::Upper(end), _) | (_, Word::Upper(end)) => end,
            _ => return None,
        }
    };
    Some(end + contraction_len(text, end))
}

/// What the middle of the two alternatives makes of the text from a place on.
#[derive(Clone, Copy)]
enum Word {
    /// `[UPPER]*[LOWER]+`, to here.
    Lower(usize),
    /// Not that, but `[UPPER]+[LOWER]*`, to here.
    Upper(usize),
    None,
}

#[inline]
fn cased_word(text: &str, start: usize) -> Word {
    let mut at = start;
    // Where the last character that is both ends: as far as `[UPPER]*` can be taken back for a `[LOWER]+` to follow.
    let mut both_end = None;
    loop {
        let (class, len) = class_at(text, at);
        if class & UPPER == 0 {
            if class & LOWER != 0 {
                return Word::Lower(run(text, at + len, LOWER));
            }
            break;
        }
        at += len;
        if class & LOWER != 0 {
            both_end = Some(at);
        }
    }
    match both_end {
        Some(end) => Word::Lower(end),
        None if at > start => Word::Upper(at),
        None => Word::None,
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+`
#[inline]
fn cl100k_word(text: &str, at: usize) -> Option<usize> {
    let contraction = contraction_len(text, at);
    if contraction > 0 {
        return Some(at + contraction);
    }
    let (class, len) = class_at(text, at);
    if class & (NEWLINE | NUMBER) != 0 {
        return None;
    }
    let end = run(text, at + len, LETTER);
    (class & LETTER != 0 || end > at + len).then_some(end)
}

/// Bytes of a contraction at `at`, 0 if there is none. Without regard to case, as Unicode folds it: the long s is an s.
#[inline]
fn contraction_len(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let [b'\'', first, rest @ ..] = rest else {
        return 0;
    };
    match (
        first.to_ascii_lowercase(),
        rest.first().map(u8::to_ascii_lowercase),
    ) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) | (0xc5, Some(0xbf)) => 3,
        _ => 0,
    }
}

/// What both expressions end with; the second alternative differs in what may follow:
///
/// ```text
/// \p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
/// ```
#[inline]
fn rest(text: &str, at: usize, trailers: &[u8]) -> usize {
    let (class, len) = class_at(text, at);
    if class & NUMBER != 0 {
        let mut end = at + len;
        for _ in 1..3 {
            let (class, len) = class_at(text, end);
            if class & NUMBER == 0 {
                break;
            }
            end += len;
        }
        return end;
    }
    let bytes = text.as_bytes();
    let others = if bytes.get(at) == Some(&b' ') { at + 1 } else { at };
    let mut end = run(text, others, OTHER);
    if end > others {
        while bytes.get(end).is_some_and(|byte| trailers.contains(byte)) {
            end += 1;
        }
        return end;
    }
    spaces(text, at)
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`: to the last line break of the run; else the run if the text ends with it; else the run
/// without its last character, which belongs to what follows; else that one character.
fn spaces(text: &str, start: usize) -> usize {
    let (mut at, mut last, mut newline_end) = (start, start, None);
    loop {
        let (class, len) = class_at(text, at);
        if class & SPACE == 0 {
            break;
        }
        last = at;
        at += len;
        if class & NEWLINE != 0 {
            newline_end = Some(at);
        }
    }
    match newline_end {
        Some(end) => end,
        None if at == text.len() || last == start => at,
        None => last,
    }
}
