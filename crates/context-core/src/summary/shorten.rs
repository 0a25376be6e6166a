//! Texts cut to a number of tokens.

use crate::Tokenizer;

/// What stands where something was cut.
const MARK: &str = " …";
/// How far a cut is moved back to the end of a word, in bytes.
const WORD_BYTES_MAX: usize = 80;
/// How often a cut is tried. The last ones move it by a few bytes.
const TRIES: u32 = 12;
/// Bytes of a token at most, nearly: what is longer than so many for each allowed token does not fit anyhow, and is not
/// counted. The longest tokens are runs of blanks.
const TOKEN_BYTES: usize = 32;

/// Nearly the longest beginning of a text that has at most `limit` tokens: a cut is at the end of a word and marked.
/// Empty if not even the mark fits. The same text, limit and tokenizer give the same.
pub(crate) fn shortened(text: &str, limit: u32, tokenizer: Tokenizer) -> String {
    let most = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_mul(TOKEN_BYTES);
    let beginning = text.get(..text.floor_char_boundary(most)).unwrap_or_default();
    let tokens = tokenizer.count(beginning);
    if tokens <= limit && beginning.len() == text.len() {
        return text.to_owned();
    }
    let mut longest = String::new();
    let (mut fits, mut too_long) = (0, beginning.len());
    // In proportion at first, then by halves.
    let share = beginning.len() as u64 * u64::from(limit) / u64::from(tokens.max(1));
    let mut bytes = usize::try_from(share).unwrap_or(usize::MAX).min(too_long);
    for _ in 0..TRIES {
        let cut = format!("{}{MARK}", whole_words(beginning, bytes));
        if tokenizer.count(&cut) <= limit {
            fits = bytes;
            longest = cut;
        } else {
            too_long = bytes;
        }
        if too_long - fits <= 1 {
            break;
        }
        bytes = fits.midpoint(too_long);
    }
    longest
}

fn whole_words(text: &str, bytes: usize) -> &str {
    let cut = text.get(..text.floor_char_boundary(bytes)).unwrap_or_default();
    let end = cut
        .rfind(char::is_whitespace)
        .filter(|end| cut.len() - end <= WORD_BYTES_MAX);
    cut.get(..end.unwrap_or(cut.len())).unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_cut_at_a_word() {
        let text = "the quick brown fox jumps over the lazy dog ".repeat(50);
        assert_eq!(shortened(&text, 10_000, Tokenizer::O200kBase), text);
        let cut = shortened(&text, 100, Tokenizer::O200kBase);
        let tokens = Tokenizer::O200kBase.count(&cut);
        assert!((70..=100).contains(&tokens), "{tokens}");
        assert!(cut.ends_with(MARK) && text.starts_with(cut.trim_end_matches(MARK)));
        assert_eq!(shortened(&text, 0, Tokenizer::O200kBase), "");
        assert!(shortened(&"a".repeat(1 << 20), 50, Tokenizer::O200kBase).len() < 2000);
    }

    proptest! {
        #[test]
        fn nothing_is_longer_than_allowed(text in "(\\PC{0,9}[ \\n]){0,80}", limit in 0..120_u32) {
            for tokenizer in [Tokenizer::O200kBase, Tokenizer::Estimate] {
                let cut = shortened(&text, limit, tokenizer);
                prop_assert!(tokenizer.count(&cut) <= limit);
                prop_assert_eq!(&cut, &shortened(&text, limit, tokenizer));
            }
        }
    }
}
