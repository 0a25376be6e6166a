//! `OpenAI` Chat Completions messages.

use std::ops::Range;

use super::Out;
use super::json::{Object, array, quoted};
use super::pair::{At, Pairs, group};
use super::piece::{Call, Dialect, Image, Input, Kind, Message, Parts, Piece, Speaker};
use crate::window::Reason;

const PARTS: Parts = Parts {
    dialect: Dialect::Chat,
    text: "text",
    image: Some(image),
};
/// Only the user may show images.
const TEXTS: Parts = Parts { image: None, ..PARTS };

pub(super) fn render(messages: &[Message], out: &mut Out) {
    let pairs = Pairs::find(messages, Dialect::Chat, &mut out.loss);
    let mut index = 0;
    while let Some(message) = messages.get(index) {
        match message.speaker {
            Speaker::Assistant => {
                let group = group(messages, index);
                index = group.end;
                assistant(messages, group.clone(), &pairs, out);
                for at in pairs.results_of(messages, group) {
                    result(messages, at, out);
                }
                continue;
            }
            Speaker::Tool => {}
            _ => said(message, out),
        }
        index += 1;
    }
}

fn said(message: &Message, out: &mut Out) {
    if message.is_native(Dialect::Chat) {
        return out.push(message.seq, message.native.clone());
    }
    let pieces = message
        .pieces
        .iter()
        .filter(|piece| !matches!(piece.kind, Kind::Result(_)));
    let pieces: Vec<&Piece> = pieces.collect();
    let parts = if message.speaker == Speaker::User {
        PARTS
    } else {
        TEXTS
    };
    let content = parts.content(&pieces, &mut || out.loss.note(Reason::OpaqueDropped));
    if let Some(content) = content {
        let said = Object::new()
            .text("role", message.speaker.as_str())
            .raw("content", &content);
        out.push(message.seq, said.end());
    }
}

/// What the model said between two others: as it was sent if that is how chat has it, else as one message.
fn assistant(messages: &[Message], group: Range<usize>, pairs: &Pairs, out: &mut Out) {
    let said = messages.get(group.clone()).unwrap_or_default();
    let whole = said.iter().zip(group.clone()).all(|(message, index)| {
        let mut pieces = message.pieces.iter().enumerate();
        message.is_native(Dialect::Chat) && pieces.all(|(at, piece)| pairs.keeps((index, at), piece))
    });
    let calls = |message: &Message| {
        message
            .pieces
            .iter()
            .any(|piece| matches!(piece.kind, Kind::Call(_)))
    };
    let early = said.iter().rev().skip(1).any(calls);
    if whole && !early {
        for message in said {
            out.push(message.seq, message.native.clone());
        }
        return;
    }
    let (mut texts, mut tool_calls) = (Vec::new(), Vec::new());
    for (message, index) in said.iter().zip(group) {
        for (at, piece) in message.pieces.iter().enumerate() {
            match &piece.kind {
                Kind::Call(call) if pairs.keeps((index, at), piece) => {
                    tool_calls.push(tool_call(call, piece));
                }
                Kind::Call(_) | Kind::Result(_) => {}
                Kind::Reasoning => out.loss.note(Reason::ReasoningDropped),
                Kind::Opaque => out.loss.note(Reason::OpaqueDropped),
                Kind::Text(_) | Kind::Image(_) => texts.push(piece),
            }
        }
    }
    let content = TEXTS.content(&texts, &mut || out.loss.note(Reason::OpaqueDropped));
    if content.is_none() && tool_calls.is_empty() {
        return;
    }
    let mut object = Object::new()
        .text("role", "assistant")
        .raw("content", content.as_deref().unwrap_or("null"));
    if !tool_calls.is_empty() {
        object = object.raw("tool_calls", &array(&tool_calls));
    }
    let seq = said.first().map_or(0, |message| message.seq);
    out.push(seq, object.end());
}

fn tool_call(call: &Call, piece: &Piece) -> String {
    if piece.dialect == Dialect::Chat {
        return piece.raw.clone();
    }
    let object = Object::new().text("id", &call.id);
    let Some(function) = &call.function else {
        return object.end();
    };
    let named = Object::new().text("name", &function.name);
    match &function.input {
        Input::Text(text) => object
            .text("type", "custom")
            .raw("custom", &named.text("input", text).end()),
        input => object
            .text("type", "function")
            .raw("function", &named.text("arguments", &input.arguments()).end()),
    }
    .end()
}

fn result(messages: &[Message], (index, at): At, out: &mut Out) {
    let Some(message) = messages.get(index) else {
        return;
    };
    let Some(piece) = message.pieces.get(at) else {
        return;
    };
    if piece.dialect == Dialect::Chat {
        return out.push(message.seq, piece.raw.clone());
    }
    let Kind::Result(answer) = &piece.kind else { return };
    if answer.is_error {
        out.loss.note(Reason::ErrorFlagDropped);
    }
    let pieces: Vec<&Piece> = answer.content.iter().flatten().collect();
    let content = TEXTS.content(&pieces, &mut || out.loss.note(Reason::OpaqueDropped));
    let object = Object::new()
        .text("role", "tool")
        .text("tool_call_id", &answer.id)
        .raw("content", &content.unwrap_or_else(|| quoted("")));
    out.push(message.seq, object.end());
}

fn image(image: &Image) -> String {
    let url = Object::new().text("url", &image.url()).end();
    Object::of_type("image_url").raw("image_url", &url).end()
}
