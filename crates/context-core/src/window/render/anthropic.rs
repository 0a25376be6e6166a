//! Anthropic messages: instructions apart, users and assistants in turn, results first in the message after their calls.

use std::borrow::Cow;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::json::{Object, array, quoted};
use super::pair::{At, Pairs, group};
use super::piece::{Answer, Call, Dialect, Image, Kind, Message, Parts, Piece, Speaker};
use super::{Loss, Out};
use crate::Seq;
use crate::window::Reason;

/// What the user says in front of a window that begins with the model: the first message has to be the user's.
const OPENING: &str = "(earlier messages are left out)";

const PARTS: Parts = Parts {
    dialect: Dialect::Anthropic,
    text: "text",
    image: Some(image),
};

/// Collects blocks into messages; those of the same speaker in a row are one.
#[derive(Default)]
struct Messages {
    messages: Vec<(Seq, &'static str, Vec<String>)>,
}

impl Messages {
    fn extend(&mut self, seq: Seq, role: &'static str, blocks: Vec<String>) {
        if blocks.is_empty() {
            return;
        }
        match self.messages.last_mut() {
            Some((_, last, content)) if *last == role => content.extend(blocks),
            _ => self.messages.push((seq, role, blocks)),
        }
    }
}

pub(super) fn render(messages: &[Message], out: &mut Out) {
    let pairs = Pairs::find(messages, Dialect::Anthropic, &mut out.loss);
    let mut collected = Messages::default();
    let mut index = 0;
    while let Some(message) = messages.get(index) {
        match message.speaker {
            Speaker::Assistant => {
                let group = group(messages, index);
                index = group.end;
                let blocks = assistant(messages, group.clone(), &pairs, out);
                collected.extend(message.seq, "assistant", blocks);
                for (seq, block) in results(messages, &pairs.results_of(messages, group), &mut out.loss) {
                    collected.extend(seq, "user", vec![block]);
                }
                continue;
            }
            Speaker::Tool => {}
            Speaker::System | Speaker::Developer => {
                let blocks = said(message, &mut out.loss);
                out.system.extend(blocks);
            }
            Speaker::User => collected.extend(message.seq, "user", said(message, &mut out.loss)),
        }
        index += 1;
    }
    if let Some((seq, "assistant", _)) = collected.messages.first() {
        let opening = Object::of_type("text").text("text", OPENING).end();
        collected.messages.insert(0, (*seq, "user", vec![opening]));
        out.loss.note(Reason::OpeningAdded);
    }
    for (seq, role, blocks) in collected.messages {
        let message = Object::new().text("role", role).raw("content", &array(&blocks));
        out.push(seq, message.end());
    }
}

/// Texts and images; results stand elsewhere, and blank texts are refused.
fn said(message: &Message, loss: &mut Loss) -> Vec<String> {
    let pieces = message
        .pieces
        .iter()
        .filter(|piece| !matches!(piece.kind, Kind::Result(_)));
    blocks(pieces, loss)
}

fn blocks<'a>(pieces: impl Iterator<Item = &'a Piece>, loss: &mut Loss) -> Vec<String> {
    let pieces: Vec<&Piece> = pieces.filter(|piece| !is_blank(piece)).collect();
    PARTS.parts(&pieces, &mut || loss.note(Reason::OpaqueDropped))
}

fn is_blank(piece: &Piece) -> bool {
    matches!(&piece.kind, Kind::Text(text) if text.trim().is_empty())
}

fn assistant(messages: &[Message], group: Range<usize>, pairs: &Pairs, out: &mut Out) -> Vec<String> {
    let (mut said, mut calls) = (Vec::new(), Vec::new());
    let mut only_reasoning = true;
    // Calls come last, right before their results, unless the model itself has put them elsewhere in one message.
    let one = group.len() == 1;
    for (index, message) in messages.iter().enumerate().take(group.end).skip(group.start) {
        for (at, piece) in message.pieces.iter().enumerate() {
            let block = match &piece.kind {
                Kind::Reasoning if piece.dialect != Dialect::Anthropic => {
                    out.loss.note(Reason::ReasoningDropped);
                    continue;
                }
                Kind::Reasoning => {
                    said.push(piece.raw.clone());
                    continue;
                }
                Kind::Call(call) if pairs.keeps((index, at), piece) => tool_use(call, piece),
                Kind::Call(_) | Kind::Result(_) => continue,
                _ => {
                    let written = blocks(std::iter::once(piece), &mut out.loss);
                    only_reasoning &= written.is_empty();
                    said.extend(written);
                    continue;
                }
            };
            only_reasoning = false;
            if one { said.push(block) } else { calls.push(block) }
        }
    }
    if only_reasoning && !said.is_empty() {
        out.loss.note(Reason::ReasoningDropped);
        return Vec::new();
    }
    said.extend(calls);
    said
}

fn tool_use(call: &Call, piece: &Piece) -> String {
    match &call.function {
        Some(function) if piece.dialect != Dialect::Anthropic => Object::of_type("tool_use")
            .text("id", &call_id(&call.id))
            .text("name", &function.name)
            .raw("input", &function.input.object())
            .end(),
        _ => piece.raw.clone(),
    }
}

fn results(messages: &[Message], places: &[At], loss: &mut Loss) -> Vec<(Seq, String)> {
    let mut results = Vec::new();
    for (index, at) in places {
        let Some(message) = messages.get(*index) else {
            continue;
        };
        let Some(piece) = message.pieces.get(*at) else {
            continue;
        };
        let Kind::Result(answer) = &piece.kind else {
            continue;
        };
        let block = if piece.dialect == Dialect::Anthropic {
            piece.raw.clone()
        } else {
            tool_result(answer, loss)
        };
        results.push((message.seq, block));
    }
    results
}

fn tool_result(answer: &Answer, loss: &mut Loss) -> String {
    let object = Object::of_type("tool_result").text("tool_use_id", &call_id(&answer.id));
    let pieces: Vec<&Piece> = answer.content.iter().flatten().collect();
    if let [
        Piece {
            kind: Kind::Text(text),
            ..
        },
    ] = pieces.as_slice()
    {
        return object.raw("content", &quoted(text)).end();
    }
    let blocks = blocks(pieces.into_iter(), loss);
    if blocks.is_empty() {
        return object.end();
    }
    object.raw("content", &array(&blocks)).end()
}

/// Anthropic takes letters, digits, `_` and `-`; an id with anything else gets a name of its own, always the same.
fn call_id(id: &str) -> Cow<'_, str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.bytes().all(fits) {
        return Cow::Borrowed(id);
    }
    let digest = crate::hex(&Sha256::digest(id.as_bytes()));
    Cow::Owned(format!("call_{digest}"))
}

fn image(image: &Image) -> String {
    let source = match image {
        Image::Url(url) => Object::of_type("url").text("url", url),
        Image::Base64 { media_type, data } => Object::of_type("base64")
            .text("media_type", media_type)
            .text("data", data),
    };
    Object::of_type("image").raw("source", &source.end()).end()
}
