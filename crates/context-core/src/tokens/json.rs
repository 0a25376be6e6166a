//! Counts by a `tokenizer.json`, with Hugging Face's own library.
//!
//! A text of at most [`PIECE_BYTES`] is counted as a whole: exactly what the library makes of it, without the special tokens
//! that it would put around it. A longer one is counted piece by piece, because an encoding takes a hundred bytes of memory
//! and more for each token, and because a file may have a model that is slower than linear: a piece ends where a line or,
//! failing that, a word ends, and each such cut may make the sum differ by a token or two. What the library refuses (a
//! pattern that backtracks too far) counts as a token for every four bytes.

use tokenizers::Tokenizer;

/// Longest text that is counted as a whole.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// How far back from its end a piece may end.
const BACK_BYTES: usize = 8 * 1024;

pub(super) struct Json(Tokenizer);

impl Json {
    /// Reads the file's bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut tokenizer =
            Tokenizer::from_bytes(bytes).map_err(|error| format!("is not a tokenizer: {error}"))?;
        // They are for training and batches: a count that stops at 512 is none.
        tokenizer
            .with_truncation(None)
            .map_err(|error| format!("is not a tokenizer: {error}"))?;
        tokenizer.with_padding(None);
        Ok(Self(tokenizer))
    }

    pub(super) fn count(&self, text: &str) -> usize {
        let (mut rest, mut tokens) = (text, 0);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_end(rest));
            let counted = self.0.encode_fast(piece, false);
            tokens += counted.map_or_else(|_| piece.len().div_ceil(4), |encoding| encoding.len());
            rest = after;
        }
        tokens
    }
}

/// Where the first piece ends; above 0.
fn piece_end(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let most = text.floor_char_boundary(PIECE_BYTES);
    let from = text.floor_char_boundary(most - BACK_BYTES);
    let end = text.get(from..most).unwrap_or_default();
    // A blank belongs to the word after it, in most vocabularies.
    let line = end.rfind('\n').map(|at| at + 1);
    let cut = line.or_else(|| end.rfind(' ')).filter(|cut| *cut > 0);
    cut.map_or(most, |cut| from + cut)
}

#[cfg(test)]
mod tests;
