//! How much units have to do with a query, by their words.
//!
//! Okapi BM25 with its usual constants (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
//! Beyond", 2009), a unit being a document and the context the collection. Words are those of the search.

use std::collections::{HashMap, HashSet};

use super::units::Unit;
use crate::Item;
use crate::error::{Invalid, Result};
use crate::item::searchable_text;
use crate::search::words;

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8 * 1024;
/// Most different words that are looked for.
const WORDS_MAX: usize = 128;
/// How soon more of the same word counts for nothing.
const K1: f64 = 1.2;
/// How much long units are held to have their words by chance.
const B: f64 = 0.75;

/// The words that items are measured against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(Vec<String>);

impl Wanted {
    /// The words of a text, the first 128 different ones; order and repetitions do not matter.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] on the field `query` if it has no word or is longer than 8 KiB.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > QUERY_BYTES_MAX {
            let problem = format!("is {} bytes long; the limit is {QUERY_BYTES_MAX}", text.len());
            return Err(Invalid::new("query", problem).into());
        }
        Self::of(text).ok_or_else(|| {
            Invalid::new("query", "has no word")
                .hint("say what the context is still needed for")
                .into()
        })
    }

    /// The words of a text that nobody wrote as a query; `None` if it has none.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let mut wanted = Vec::new();
        let mut seen = HashSet::new();
        for word in words(text) {
            if wanted.len() == WORDS_MAX {
                break;
            }
            if seen.insert(word.clone()) {
                wanted.push(word.into_owned());
            }
        }
        (!wanted.is_empty()).then_some(Self(wanted))
    }
}

/// How often each wanted word stands in a unit, and how many words it has.
struct Counts {
    wanted: Vec<u32>,
    words: u32,
}

/// One score a unit; larger has more to do with what is wanted.
pub(super) fn scores(items: &[Item], units: &[Unit], Wanted(wanted): &Wanted) -> Vec<f64> {
    let places: HashMap<&str, usize> = wanted
        .iter()
        .enumerate()
        .map(|(place, word)| (word.as_str(), place))
        .collect();
    let counts: Vec<Counts> = units
        .iter()
        .map(|unit| counts(items, unit, &places, wanted.len()))
        .collect();
    let documents = count(counts.len());
    let words: f64 = counts.iter().map(|counts| f64::from(counts.words)).sum();
    let usual = (words / documents.max(1.0)).max(1.0);
    let weights: Vec<f64> = (0..wanted.len())
        .map(|place| {
            let with = counts
                .iter()
                .filter(|counts| counts.wanted.get(place).is_some_and(|&times| times > 0));
            let with = count(with.count());
            (1.0 + (documents - with + 0.5) / (with + 0.5)).ln()
        })
        .collect();
    counts
        .iter()
        .map(|counts| {
            let long = 1.0 - B + B * f64::from(counts.words) / usual;
            let each = weights.iter().zip(&counts.wanted).map(|(weight, &times)| {
                let times = f64::from(times);
                weight * times * (K1 + 1.0) / (times + K1 * long)
            });
            each.sum()
        })
        .collect()
}

fn counts(items: &[Item], unit: &Unit, places: &HashMap<&str, usize>, wanted: usize) -> Counts {
    let mut counts = Counts {
        wanted: vec![0; wanted],
        words: 0,
    };
    for item in unit.items.iter().filter_map(|&index| items.get(index)) {
        for word in words(&searchable_text(&item.body)) {
            counts.words = counts.words.saturating_add(1);
            let times = places
                .get(word.as_ref())
                .and_then(|&place| counts.wanted.get_mut(place));
            if let Some(times) = times {
                *times += 1;
            }
        }
    }
    counts
}

fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}
