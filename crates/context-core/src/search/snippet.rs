//! A short piece of an item around what was found.

use std::borrow::Cow;

use super::query::Query;

/// Marks around what was found.
const MARKS: (&str, &str) = ("«", "»");
/// Words shown before the first hit.
const WORDS_BEFORE: usize = 8;
/// Words shown in all.
const WORDS_MAX: usize = 32;
/// Longest word shown, in characters; a long base64 run is not readable anyway.
const WORD_CHARS_MAX: usize = 64;

/// A piece of `text` around the first term of `query` that stands in it, hits between `«` and `»`.
pub fn snippet(text: &str, query: &Query) -> String {
    // What is shown is split at white space; what is matched are the words inside each piece.
    let pieces: Vec<&str> = text.split_whitespace().collect();
    let hit = |piece: &str| {
        let words: Vec<String> = super::words(piece).map(Cow::into_owned).collect();
        query.terms().any(|term| {
            let first = super::Term {
                words: vec![term.words[0].clone()],
                prefix: term.prefix && term.words.len() == 1,
            };
            words
                .iter()
                .any(|word| first.matches_at(std::slice::from_ref(word)))
        })
    };
    let first = pieces.iter().position(|piece| hit(piece)).unwrap_or(0);
    let start = first.saturating_sub(WORDS_BEFORE);
    let shown = pieces.iter().skip(start).take(WORDS_MAX);

    let mut snippet = String::new();
    if start > 0 {
        snippet.push('…');
    }
    for piece in shown {
        if !snippet.is_empty() && snippet != "…" {
            snippet.push(' ');
        }
        let (open, close) = if hit(piece) { MARKS } else { ("", "") };
        snippet.push_str(open);
        snippet.extend(piece.chars().take(WORD_CHARS_MAX));
        snippet.push_str(close);
    }
    if start + WORDS_MAX < pieces.len() {
        snippet.push('…');
    }
    snippet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_is_marked_and_surrounded() {
        let query = Query::parse("paris").unwrap();
        assert_eq!(
            snippet("a flight to Paris, please", &query),
            "a flight to «Paris,» please"
        );
    }

    #[test]
    fn a_long_text_is_cut_on_both_sides() {
        let text = format!("{} needle {}", "before ".repeat(50), "after ".repeat(50));
        let snippet = snippet(&text, &Query::parse("needle").unwrap());
        assert!(snippet.starts_with('…') && snippet.ends_with('…'), "{snippet}");
        assert!(snippet.contains("«needle»"));
        assert!(snippet.split(' ').count() <= WORDS_MAX);
    }

    #[test]
    fn a_text_without_white_space_stays_short() {
        let snippet = snippet(&"x".repeat(100_000), &Query::parse("y").unwrap());
        assert!(snippet.chars().count() <= WORD_CHARS_MAX);
    }
}
