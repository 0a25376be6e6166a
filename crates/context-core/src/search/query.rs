//! Parsing of the query language.

use std::borrow::Cow;

use crate::error::{Invalid, Result};

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 1024;
/// Most terms in a query.
const TERMS_MAX: usize = 32;

/// Words that stand next to each other; one word is a phrase of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The words in order, lower case. Never empty.
    pub words: Vec<String>,
    /// Whether the last word is only the beginning of one.
    pub prefix: bool,
}

/// A parsed query: every group of `required` must match by one of its terms, nothing of `excluded` may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Never empty; each group is a list of alternatives.
    pub required: Vec<Vec<Term>>,
    /// What must not be there.
    pub excluded: Vec<Term>,
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] on the field `query`: empty, too long, an unclosed quote, only exclusions.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(invalid(format!(
                "is {} bytes long; the limit is {QUERY_BYTES_MAX}",
                text.len()
            )));
        }
        let mut query = Self {
            required: Vec::new(),
            excluded: Vec::new(),
        };
        let mut either = false;
        for token in tokens(text)? {
            if token.bare && token.text == "OR" {
                either = !query.required.is_empty();
                continue;
            }
            let Some(term) = token.term() else { continue };
            match query.required.last_mut() {
                _ if token.excluded => query.excluded.push(term),
                Some(group) if either => group.push(term),
                _ => query.required.push(vec![term]),
            }
            either = false;
        }
        if query.required.is_empty() {
            return Err(invalid("has no word to look for".to_owned()));
        }
        if query.terms().count() + query.excluded.len() > TERMS_MAX {
            return Err(invalid(format!("has more than {TERMS_MAX} terms")));
        }
        Ok(query)
    }

    /// Any of the words of a text, for the snippet of a hit that was found in another way. Finds nothing by itself if
    /// the text has no word.
    pub(crate) fn any_word_of(text: &str) -> Self {
        let words = super::words(text).take(TERMS_MAX).map(|word| Term {
            words: vec![word.into_owned()],
            prefix: false,
        });
        Self {
            required: vec![words.collect()],
            excluded: Vec::new(),
        }
    }

    /// The terms that may match, for highlighting.
    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        self.required.iter().flatten()
    }

    /// Whether a text matches; the definition that every store's index has to agree with.
    pub fn matches(&self, text: &str) -> bool {
        let words: Vec<String> = super::words(text).map(Cow::into_owned).collect();
        self.required
            .iter()
            .all(|group| group.iter().any(|term| term.is_in(&words)))
            && !self.excluded.iter().any(|term| term.is_in(&words))
    }
}

impl Term {
    fn is_in(&self, words: &[String]) -> bool {
        words
            .windows(self.words.len())
            .any(|window| self.matches_at(window))
    }

    pub(super) fn matches_at(&self, window: &[String]) -> bool {
        let last = self.words.len() - 1;
        self.words
            .iter()
            .zip(window)
            .enumerate()
            .all(|(index, (wanted, word))| {
                if self.prefix && index == last {
                    word.starts_with(wanted)
                } else {
                    word == wanted
                }
            })
    }
}

struct Token<'text> {
    text: &'text str,
    bare: bool,
    excluded: bool,
    prefix: bool,
}

impl Token<'_> {
    fn term(&self) -> Option<Term> {
        let words: Vec<String> = super::words(self.text).map(Cow::into_owned).collect();
        (!words.is_empty()).then_some(Term {
            words,
            prefix: self.prefix,
        })
    }
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let after_minus = rest.strip_prefix('-');
        let excluded = after_minus.is_some();
        let start = after_minus.unwrap_or(rest);
        if let Some(quoted) = start.strip_prefix('"') {
            let Some((phrase, after)) = quoted.split_once('"') else {
                return Err(invalid("has a quote that is not closed".to_owned()));
            };
            let after_star = after.strip_prefix('*');
            tokens.push(Token {
                text: phrase,
                bare: false,
                excluded,
                prefix: after_star.is_some(),
            });
            rest = after_star.unwrap_or(after).trim_start();
        } else {
            let (word, after) = start.split_once(char::is_whitespace).unwrap_or((start, ""));
            tokens.push(Token {
                text: word,
                bare: !excluded,
                excluded,
                prefix: word.ends_with('*'),
            });
            rest = after.trim_start();
        }
    }
    Ok(tokens)
}

fn invalid(problem: String) -> crate::Error {
    Invalid::new("query", problem)
        .hint("words, \"a phrase\", pre*, -without, a OR b")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    #[test]
    fn all_words_must_be_there_in_any_order() {
        assert!(query("flight paris").matches("A Flight to PARIS."));
        assert!(!query("flight rome").matches("A flight to Paris"));
    }

    #[test]
    fn a_phrase_keeps_its_order() {
        assert!(query("\"to paris\"").matches("a flight to Paris"));
        assert!(!query("\"paris to\"").matches("a flight to Paris"));
    }

    #[test]
    fn prefixes_exclusions_and_alternatives_work() {
        assert!(query("fli*").matches("a flight"));
        assert!(!query("flight -paris").matches("a flight to Paris"));
        assert!(query("rome OR paris").matches("to Paris"));
        assert!(!query("flight rome OR oslo").matches("flight to Paris"));
    }

    #[test]
    fn punctuation_inside_a_word_makes_a_phrase() {
        assert_eq!(query("src/main.rs").required[0][0].words, ["src", "main", "rs"]);
    }

    #[test]
    fn hostile_queries_are_refused_or_harmless() {
        for bad in ["", "   ", "-only", "\"open", "***", "OR", &"x ".repeat(600)] {
            assert!(Query::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Query::parse(&"a ".repeat(33)).is_err());
        assert!(query("a OR").matches("a"));
        assert!(query("drop\"table\" ' ; --").matches("drop table"));
    }
}
