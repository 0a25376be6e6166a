//! One query language for all stores, and the snippets that go with a hit.
//!
//! `word` and `word` must both be there; `"a phrase"` stands in this order; `pre*` is a prefix; `-word`
//! must not be there; `a OR b` is either. Case and accents do not matter.

mod query;
mod snippet;

use std::borrow::Cow;

pub use query::{Query, Term};
pub use snippet::snippet;

/// Splits text into the words that are searched: runs of letters and digits, lower case. Borrowed where they stand in the
/// text like this, as most words do.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| {
            let is_lower = word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if is_lower {
                Cow::Borrowed(word)
            } else {
                Cow::Owned(word.to_lowercase())
            }
        })
}
