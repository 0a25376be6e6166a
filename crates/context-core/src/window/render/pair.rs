//! Which calls and results belong together, and which belong to nothing that a provider would accept.
//!
//! A window keeps pairs together, but a client may have sent a conversation that never was whole: a call that nobody
//! answered before the user spoke again, a result of no call. No result is invented for such a call; it goes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::Loss;
use super::piece::{Dialect, Kind, Message, Piece, Speaker};
use crate::window::Reason;

/// A piece: the index of its message, and its own.
pub(super) type At = (usize, usize);

#[derive(Debug, Default)]
pub(super) struct Pairs {
    answers: HashMap<At, At>,
    calls: HashMap<At, At>,
    pending: HashSet<At>,
}

impl Pairs {
    pub(super) fn find(messages: &[Message], target: Dialect, loss: &mut Loss) -> Self {
        let mut pairs = Self::default();
        let last = last_group(messages);
        let mut open: HashMap<&str, Vec<At>> = HashMap::new();
        for (at, piece) in pieces(messages) {
            match &piece.kind {
                Kind::Call(call) if call.function.is_some() || piece.dialect == target => {
                    open.entry(&call.id).or_default().push(at);
                }
                Kind::Result(answer) if answer.content.is_some() || piece.dialect == target => {
                    if let Some(call) = open.get_mut(answer.id.as_str()).and_then(Vec::pop) {
                        pairs.answers.insert(call, at);
                        pairs.calls.insert(at, call);
                    } else {
                        loss.note(Reason::OrphanResultDropped);
                    }
                }
                Kind::Call(_) | Kind::Result(_) => loss.note(Reason::OpaqueDropped),
                _ => {}
            }
        }
        for at in open.into_values().flatten() {
            if last.contains(&at.0) {
                pairs.pending.insert(at);
            } else {
                loss.note(Reason::UnansweredCallDropped);
            }
        }
        pairs
    }

    /// Whether a call or a result stays; everything else does.
    pub(super) fn keeps(&self, at: At, piece: &Piece) -> bool {
        match piece.kind {
            Kind::Call(_) => self.answers.contains_key(&at) || self.pending.contains(&at),
            Kind::Result(_) => self.calls.contains_key(&at),
            _ => true,
        }
    }

    /// Where the call is that a result answers.
    pub(super) fn call_of(&self, result: At) -> Option<At> {
        self.calls.get(&result).copied()
    }

    /// The results of the calls that these messages make, in the order of the calls.
    pub(super) fn results_of(&self, messages: &[Message], group: Range<usize>) -> Vec<At> {
        let start = group.start;
        let group = messages.get(group).unwrap_or_default();
        let calls = pieces(group).map(|((message, piece), _)| (start + message, piece));
        calls
            .filter_map(|call| self.answers.get(&call).copied())
            .collect()
    }
}

fn pieces(messages: &[Message]) -> impl Iterator<Item = (At, &Piece)> {
    messages.iter().enumerate().flat_map(|(index, message)| {
        let pieces = message.pieces.iter().enumerate();
        pieces.map(move |(piece_index, piece)| ((index, piece_index), piece))
    })
}

/// What the model said last, if nothing but results came after it: its calls may still be answered.
fn last_group(messages: &[Message]) -> Range<usize> {
    let is = |speaker: Speaker| move |message: &&Message| message.speaker == speaker;
    let results = messages.iter().rev().take_while(is(Speaker::Tool)).count();
    let end = messages.len() - results;
    let said = messages.iter().take(end).rev();
    let count = said.take_while(is(Speaker::Assistant)).count();
    end - count..end
}

/// The messages of the model from `start` on without anything in between.
pub(super) fn group(messages: &[Message], start: usize) -> Range<usize> {
    let rest = messages.iter().skip(start);
    let count = rest
        .take_while(|message| message.speaker == Speaker::Assistant)
        .count();
    start..start + count
}
