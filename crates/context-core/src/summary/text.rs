//! The text of an extractive summary: how it is put together, and how it is read back to go on from it.
//!
//! ```text
//! Goal [2]: I want to change my flight. My user id is mia_li_3668.
//! [5] assistant: The change costs $120.
//! Last request [31]: Go ahead, please.
//! Also mentioned: HAT136, 2024-05-20
//! ```

use std::collections::HashMap;

use super::sentences::{self, Sentence};
use super::{TOKENS_MAX, mentions};
use crate::item::searchable_text;
use crate::{Item, Role, Seq, Tokenizer};

const GOAL: &str = "Goal [";
const REQUEST: &str = "Last request [";
const MENTIONED: &str = "Also mentioned: ";
/// Longest goal and last request, in bytes: no text has more tokens than bytes (X2).
const SAID_BYTES_MAX: usize = 400;
/// Thousandths of a summary's tokens that are kept for what is mentioned.
const MENTIONS_SHARE: u32 = 450;
/// How much a mention counts that a person or the model made, against one in a tool's result.
const SAID_WEIGHT: u32 = 4;

/// What a summary is made of.
#[derive(Debug, Default)]
struct Parts {
    goal: Option<(Seq, String)>,
    request: Option<(Seq, String)>,
    sentences: Vec<Sentence>,
    mentions: Mentions,
}

/// What was mentioned, by first appearance, with how much each counts.
#[derive(Debug, Default)]
struct Mentions {
    order: Vec<(String, u32)>,
    places: HashMap<String, usize>,
}

impl Mentions {
    fn add(&mut self, mention: &str, weight: u32) {
        let place = *self.places.entry(mention.to_owned()).or_insert(self.order.len());
        match self.order.get_mut(place) {
            Some((_, counts)) => *counts = counts.saturating_add(weight),
            None => self.order.push((mention.to_owned(), weight)),
        }
    }

    /// What counts most first; equals as they appeared.
    fn ranked(mut self) -> impl Iterator<Item = String> {
        self.order.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        self.order.into_iter().map(|(mention, _)| mention)
    }
}

/// The text of a summary of `items`, or of what `before` is the summary of and `items` after it. See the rules X1 to X5 of
/// [`super`]. Linear in the items' text; call it off the reactor for many.
pub fn extract(before: Option<&str>, items: &[Item], tokenizer: Tokenizer) -> String {
    let mut parts = before.map(read_back).unwrap_or_default();
    for item in items.iter().filter(|item| !item.traits.always_kept()) {
        let text = searchable_text(&item.body);
        let role = item.traits.role;
        if item.traits.starts_turn() {
            let said = beginning(&text);
            parts.goal.get_or_insert_with(|| (item.seq, said.clone()));
            let asked = parts.request.replace((item.seq, said));
            parts.demote(asked);
        }
        parts
            .sentences
            .extend(sentences::candidates(item.seq, role, &text));
        let weight = if role == Role::Tool { 1 } else { SAID_WEIGHT };
        for mention in mentions::of(&text) {
            parts.mentions.add(mention, weight);
        }
    }
    parts.into_text(TOKENS_MAX, tokenizer)
}

/// The most important of an extractive summary within fewer tokens. Empty if nothing has room.
pub(crate) fn extract_within(text: &str, limit: u32, tokenizer: Tokenizer) -> String {
    // What was counted with the rest of a summary is not counted anew: no text has more tokens than bytes.
    if text.len() as u64 <= u64::from(limit) || tokenizer.count(text) <= limit {
        return text.to_owned();
    }
    let mut parts = read_back(text);
    for (_, said) in [&mut parts.goal, &mut parts.request].into_iter().flatten() {
        *said = super::shortened(said, limit / 4, tokenizer);
    }
    parts.goal = parts.goal.filter(|(_, said)| !said.is_empty());
    parts.request = parts.request.filter(|(_, said)| !said.is_empty());
    let within = parts.into_text(limit, tokenizer);
    if tokenizer.count(&within) <= limit {
        within
    } else {
        String::new()
    }
}

/// The first sentences of a text, on one line.
fn beginning(text: &str) -> String {
    let joined = sentences::split(text).collect::<Vec<_>>().join(" ");
    let end = joined.floor_char_boundary(SAID_BYTES_MAX);
    joined.get(..end).unwrap_or_default().to_owned()
}

fn read_back(text: &str) -> Parts {
    let mut parts = Parts::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix(GOAL) {
            parts.goal = numbered(rest);
        } else if let Some(rest) = line.strip_prefix(REQUEST) {
            parts.request = numbered(rest);
        } else if let Some(rest) = line.strip_prefix(MENTIONED) {
            // What made it into a summary was not mentioned in passing.
            rest.split(", ")
                .for_each(|mention| parts.mentions.add(mention, SAID_WEIGHT));
        } else if let Some(sentence) = line.strip_prefix('[').and_then(attributed) {
            mentions::of(&sentence.text).for_each(|mention| parts.mentions.add(mention, SAID_WEIGHT));
            parts.sentences.push(sentence);
        }
    }
    parts
}

/// `12]: text`.
fn numbered(rest: &str) -> Option<(Seq, String)> {
    let (seq, text) = rest.split_once("]: ")?;
    Some((seq.parse().ok()?, text.to_owned()))
}

/// `12] role: text`.
fn attributed(rest: &str) -> Option<Sentence> {
    let (seq, rest) = rest.split_once("] ")?;
    let (role, text) = rest.split_once(": ")?;
    Some(Sentence {
        seq: seq.parse().ok()?,
        role: Role::parse(role)?,
        leads: false,
        text: text.to_owned(),
    })
}

impl Parts {
    /// What was the last request until now is a thing that was said, if it comes from an earlier summary.
    fn demote(&mut self, asked: Option<(Seq, String)>) {
        let Some((seq, text)) = asked else { return };
        if self.goal.as_ref().is_some_and(|(goal, _)| *goal == seq) {
            return;
        }
        self.sentences
            .extend(sentences::candidates(seq, Role::User, &text));
    }

    fn into_text(self, limit: u32, tokenizer: Tokenizer) -> String {
        let goal = self
            .goal
            .map(|(seq, text)| (seq, format!("{GOAL}{seq}]: {text}")));
        let request = self
            .request
            .filter(|(seq, _)| goal.as_ref().is_none_or(|(goal, _)| goal != seq))
            .map(|(seq, text)| (seq, format!("{REQUEST}{seq}]: {text}")));
        // A line and the end of it; counts of pieces never add up to less than the count of the whole by much.
        let count = |line: &str| tokenizer.count(line).saturating_add(1);
        let fixed: u32 = [&goal, &request]
            .into_iter()
            .flatten()
            .map(|(_, line)| count(line))
            .sum();

        let mentions = u32::try_from(u64::from(limit) * u64::from(MENTIONS_SHARE) / 1000).unwrap_or(limit);
        let mut left = limit.saturating_sub(fixed).saturating_sub(mentions);
        let shown = [&goal, &request].map(|line| line.as_ref().map(|(seq, _)| *seq));
        let wanted = goal.as_ref().map_or("", |(_, line)| line);
        let mut chosen: Vec<(Seq, String)> = Vec::new();
        for sentence in sentences::ranked(self.sentences, wanted) {
            let Sentence { seq, role, text, .. } = sentence;
            let is_shown = [&goal, &request]
                .into_iter()
                .flatten()
                .any(|(_, line)| line.contains(&text));
            if shown.contains(&Some(seq)) && is_shown {
                continue;
            }
            let line = format!("[{seq}] {}: {text}", role.as_str());
            let cost = count(&line);
            if cost <= left {
                left -= cost;
                chosen.push((seq, line));
            }
        }
        chosen.sort_by_key(|(seq, _)| *seq);

        let mut lines: Vec<String> = Vec::new();
        lines.extend(goal.map(|(_, line)| line));
        lines.extend(chosen.into_iter().map(|(_, line)| line));
        lines.extend(request.map(|(_, line)| line));
        let text = lines.join("\n");
        with_mentions(text, self.mentions, limit, tokenizer)
    }
}

/// Adds what is mentioned and not in the text yet, as far as there is room (X2).
fn with_mentions(text: String, mentions: Mentions, limit: u32, tokenizer: Tokenizer) -> String {
    let mut left = limit.saturating_sub(tokenizer.count(&text).saturating_add(8));
    let mut named: Vec<String> = Vec::new();
    for mention in mentions.ranked() {
        let cost = tokenizer.count(&format!(", {mention}"));
        if cost > left {
            break;
        }
        if !text.contains(&mention) {
            left -= cost;
            named.push(mention);
        }
    }
    let separator = if text.is_empty() { "" } else { "\n" };
    while !named.is_empty() {
        let whole = format!("{text}{separator}{MENTIONED}{}", named.join(", "));
        // Counts of pieces are nearly those of the whole, not quite.
        if tokenizer.count(&whole) <= limit {
            return whole;
        }
        named.pop();
    }
    text
}
