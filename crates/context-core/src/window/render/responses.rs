//! `OpenAI` Responses items. They stand in the order of the context: results need not follow their calls at once.

use super::json::{Object, quoted};
use super::pair::Pairs;
use super::piece::{Answer, Call, Dialect, Function, Image, Input, Kind, Message, Parts, Piece, Speaker};
use super::{Loss, Out};
use crate::window::Reason;

const SAID: Parts = Parts {
    dialect: Dialect::Responses,
    text: "input_text",
    image: Some(image),
};
/// What the model said is output, even when it is put in.
const GENERATED: Parts = Parts {
    dialect: Dialect::Responses,
    text: "output_text",
    image: None,
};

pub(super) fn render(messages: &[Message], out: &mut Out) {
    let pairs = Pairs::find(messages, Dialect::Responses, &mut out.loss);
    let followed = followed(messages, &pairs);
    for (index, (message, followed)) in messages.iter().zip(followed).enumerate() {
        let keeps = |(at, piece): (usize, &Piece)| pairs.keeps((index, at), piece);
        let whole = message.pieces.iter().enumerate().all(keeps);
        let reasons = message
            .pieces
            .iter()
            .any(|piece| matches!(piece.kind, Kind::Reasoning));
        if message.is_native(Dialect::Responses) {
            if reasons && !followed {
                out.loss.note(Reason::ReasoningDropped);
            } else if whole {
                out.push(message.seq, message.native.clone());
            }
        } else {
            convert(messages, index, &pairs, out);
        }
    }
}

/// For each message whether the model goes on after it: reasoning that nothing follows is refused.
fn followed(messages: &[Message], pairs: &Pairs) -> Vec<bool> {
    let mut goes_on = false;
    let mut followed = vec![false; messages.len()];
    for (index, message) in messages.iter().enumerate().rev() {
        if let Some(slot) = followed.get_mut(index) {
            *slot = goes_on;
        }
        let mut stays =
            message.pieces.iter().enumerate().filter(|(at, piece)| {
                !matches!(piece.kind, Kind::Reasoning) && pairs.keeps((index, *at), piece)
            });
        let reasons = message
            .pieces
            .iter()
            .any(|piece| matches!(piece.kind, Kind::Reasoning));
        if message.speaker != Speaker::Assistant {
            goes_on = false;
        } else if stays.next().is_some() {
            goes_on = true;
        } else if !reasons {
            // A call that is dropped leaves its reasoning alone, whatever comes next.
            goes_on = false;
        }
    }
    followed
}

fn convert(messages: &[Message], index: usize, pairs: &Pairs, out: &mut Out) {
    let Some(message) = messages.get(index) else {
        return;
    };
    let mut texts: Vec<&Piece> = Vec::new();
    for (at, piece) in message.pieces.iter().enumerate() {
        match &piece.kind {
            Kind::Text(_) | Kind::Image(_) => texts.push(piece),
            Kind::Reasoning => out.loss.note(Reason::ReasoningDropped),
            Kind::Opaque if piece.dialect == Dialect::Responses => texts.push(piece),
            Kind::Opaque => out.loss.note(Reason::OpaqueDropped),
            Kind::Call(_) | Kind::Result(_) if !pairs.keeps((index, at), piece) => {}
            Kind::Call(Call {
                id,
                function: Some(function),
            }) => {
                said(message, &mut texts, out);
                out.push(message.seq, call(id, function));
            }
            Kind::Result(answer) => {
                said(message, &mut texts, out);
                let custom = pairs
                    .call_of((index, at))
                    .is_some_and(|at| is_custom(messages, at));
                let json = output(answer, custom, &mut out.loss);
                out.push(message.seq, json);
            }
            Kind::Call(_) => {}
        }
    }
    said(message, &mut texts, out);
}

fn is_custom(messages: &[Message], (index, at): (usize, usize)) -> bool {
    let piece = messages.get(index).and_then(|message| message.pieces.get(at));
    let Some(Piece {
        kind: Kind::Call(call),
        ..
    }) = piece
    else {
        return false;
    };
    matches!(
        &call.function,
        Some(Function {
            input: Input::Text(_),
            ..
        })
    )
}

/// Writes the texts collected so far.
fn said(message: &Message, texts: &mut Vec<&Piece>, out: &mut Out) {
    let parts = if message.speaker == Speaker::Assistant {
        GENERATED
    } else {
        SAID
    };
    let content = parts.content(texts, &mut || out.loss.note(Reason::OpaqueDropped));
    texts.clear();
    if let Some(content) = content {
        let said = Object::new()
            .text("role", message.speaker.as_str())
            .raw("content", &content);
        out.push(message.seq, said.end());
    }
}

fn call(id: &str, function: &Function) -> String {
    match &function.input {
        Input::Text(text) => Object::of_type("custom_tool_call")
            .text("call_id", id)
            .text("name", &function.name)
            .text("input", text),
        input => Object::of_type("function_call")
            .text("call_id", id)
            .text("name", &function.name)
            .text("arguments", &input.arguments()),
    }
    .end()
}

fn output(answer: &Answer, custom: bool, loss: &mut Loss) -> String {
    if answer.is_error {
        loss.note(Reason::ErrorFlagDropped);
    }
    let pieces: Vec<&Piece> = answer.content.iter().flatten().collect();
    let content = SAID.content(&pieces, &mut || loss.note(Reason::OpaqueDropped));
    let kind = if custom {
        "custom_tool_call_output"
    } else {
        "function_call_output"
    };
    Object::of_type(kind)
        .text("call_id", &answer.id)
        .raw("output", &content.unwrap_or_else(|| quoted("")))
        .end()
}

fn image(image: &Image) -> String {
    Object::of_type("input_image")
        .text("image_url", &image.url())
        .end()
}
