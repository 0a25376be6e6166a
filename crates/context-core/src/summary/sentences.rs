//! Sentences, and which of them say most.
//!
//! The weight of a sentence is that of its words (a rare word says more: inverse frequency over the sentences at hand, in
//! the manner of Luhn, "The Automatic Creation of Literature Abstracts", 1958) times what Edmundson found to tell
//! ("New Methods in Automatic Extracting", 1969): where it stands, whether it has words of the title (here: of the goal),
//! and whether it has cue words. Who speaks is a prior of ours.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::mentions;
use crate::search::words;
use crate::{Role, Seq};

/// Longest sentence that is taken as one, in bytes; longer ones are data, of which only mentions are taken.
const BYTES_MAX: usize = 300;
/// Fewest words: less says nothing alone.
const WORDS_MIN: usize = 4;

/// Words of decisions, of trouble and of what is left to do.
const CUES: [&str; 34] = [
    "agreed",
    "approved",
    "because",
    "blocked",
    "booked",
    "bug",
    "cancelled",
    "canceled",
    "cannot",
    "chose",
    "confirmed",
    "decided",
    "decision",
    "deadline",
    "denied",
    "error",
    "exception",
    "failed",
    "fails",
    "fixed",
    "important",
    "must",
    "never",
    "panic",
    "please",
    "prefer",
    "refund",
    "rejected",
    "required",
    "should",
    "todo",
    "total",
    "want",
    "warning",
];

/// Something that was said, at its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sentence {
    pub(super) seq: Seq,
    pub(super) role: Role,
    /// Whether its item begins with it.
    pub(super) leads: bool,
    pub(super) text: String,
}

/// Splits a text where sentences and lines end.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let mut pieces = Vec::new();
        let mut start = 0;
        let mut characters = line.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            let ends = matches!(character, '.' | '!' | '?' | '。' | '！' | '？');
            if ends && characters.peek().is_none_or(|(_, next)| next.is_whitespace()) {
                let end = at + character.len_utf8();
                pieces.push(line.get(start..end).unwrap_or_default().trim());
                start = end;
            }
        }
        pieces.push(line.get(start..).unwrap_or_default().trim());
        pieces.retain(|piece| !piece.is_empty());
        pieces
    })
}

/// The sentences of an item's text that may stand in a summary.
pub(super) fn candidates(seq: Seq, role: Role, text: &str) -> impl Iterator<Item = Sentence> + '_ {
    split(text)
        .enumerate()
        .filter(|(_, text)| text.len() <= BYTES_MAX && words(text).nth(WORDS_MIN - 1).is_some())
        .map(move |(place, text)| Sentence {
            seq,
            role,
            leads: place == 0,
            text: text.to_owned(),
        })
}

/// Sentences, the best first, none twice. Equals keep their order.
pub(super) fn ranked(sentences: Vec<Sentence>, goal: &str) -> Vec<Sentence> {
    let mut seen = HashSet::new();
    let each: Vec<(Sentence, Vec<String>)> = sentences
        .into_iter()
        .filter_map(|sentence| {
            let words: Vec<String> = words(&sentence.text).map(Cow::into_owned).collect();
            seen.insert(words.clone()).then_some((sentence, words))
        })
        .collect();
    let mut with: HashMap<&str, u32> = HashMap::new();
    for (_, words) in &each {
        for word in words.iter().collect::<HashSet<_>>() {
            *with.entry(word).or_default() += 1;
        }
    }
    let all = f64::from(u32::try_from(each.len()).unwrap_or(u32::MAX));
    let goal: HashSet<String> = words(goal).map(Cow::into_owned).collect();
    let mut scored: Vec<(f64, &Sentence)> = each
        .iter()
        .map(|(sentence, words)| {
            let mut told: Vec<&str> = words.iter().map(String::as_str).collect();
            told.sort_unstable();
            told.dedup();
            let weight: f64 = told
                .iter()
                .map(|word| (1.0 + all / f64::from(with.get(word).copied().unwrap_or(1))).ln())
                .sum();
            let length = f64::from(u32::try_from(words.len()).unwrap_or(u32::MAX));
            (weight / length.sqrt() * prior(sentence, &told, &goal), sentence)
        })
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().map(|(_, sentence)| sentence.clone()).collect()
}

fn prior(sentence: &Sentence, words: &[&str], goal: &HashSet<String>) -> f64 {
    let who = match sentence.role {
        Role::User => 1.3,
        Role::Tool => 0.6,
        _ => 1.0,
    };
    let place = if sentence.leads { 1.2 } else { 1.0 };
    let cue = if words.iter().any(|word| CUES.contains(word)) {
        1.4
    } else {
        1.0
    };
    let question = if sentence.text.ends_with('?') { 1.1 } else { 1.0 };
    let shared = words.iter().filter(|word| goal.contains(**word)).count();
    let title = 1.0 + 0.3 * f64::from(u32::try_from(shared.min(5)).unwrap_or(5)) / 5.0;
    let facts = mentions::of(&sentence.text).take(3).count();
    let facts = 1.0 + 0.15 * f64::from(u32::try_from(facts).unwrap_or(3));
    who * place * cue * question * title * facts
}
