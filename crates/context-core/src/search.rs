//! One query language for all stores, and the snippets that go with a hit.
//!
//! `word` and `word` must both be there; `"a phrase"` stands in this order; `pre*` is a prefix; `-word`
//! must not be there; `a OR b` is either. Case and accents do not matter.

mod query;
mod snippet;

pub use query::{Query, Term};
pub use snippet::snippet;

/// Splits text into the words that are searched: runs of letters and digits, lower case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}
