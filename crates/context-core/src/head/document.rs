//! A head as JSON: what `GET /v1/contexts/{id}` answers.

use crate::json::write::{each, field, number, string, time};
use crate::{Context, Timestamp};

/// Room for a head beside its texts; most take no more.
const BESIDE: usize = 384;

/// Writes a head. Tells of each text that it has what it is, and where it stands in the document unless it had to be
/// escaped, in this order: id, agent, session, model, name, description, metadata, labels, tokenizer, truncation, parent;
/// of those that a head need not have, the ones that it has.
pub(crate) fn write(context: &Context, wrote: impl FnMut(&str, Option<usize>)) -> Vec<u8> {
    let optional = [
        ("session_id", &context.session_id),
        ("model_id", &context.model_id),
        ("name", &context.name),
        ("description", &context.description),
    ];
    let lengths = optional.iter().filter_map(|(_, text)| Some(text.as_ref()?.len()));
    let texts = lengths.sum::<usize>() + context.id.as_str().len() + context.agent_id.len();
    let mut to = Writer {
        out: Vec::with_capacity(texts + context.metadata.as_str().len() + BESIDE),
        wrote,
    };
    to.out.push(b'{');
    to.text("id", context.id.as_str());
    to.next("agent_id", &context.agent_id);
    for (name, text) in optional {
        if let Some(text) = text {
            to.next(name, text);
        }
    }
    to.out.extend_from_slice(b",\"metadata\":");
    to.json(context.metadata.as_str());
    to.labels(&context.labels);
    to.number("max_tokens", context.max_tokens);
    to.next("tokenizer", context.tokenizer.as_str());
    to.next("truncation", context.truncation.as_str());
    if let Some(parent) = &context.forked_from {
        to.out.extend_from_slice(b",\"forked_from\":{");
        to.text("id", parent.id.as_str());
        to.number("at_seq", parent.at_seq);
        to.out.push(b'}');
    }
    if let Some(at) = context.expires_at {
        to.time("expires_at", at);
    }
    to.number("version", context.version);
    to.number("first_seq", context.first_seq);
    to.number("next_seq", context.next_seq);
    to.number("item_count", context.item_count);
    to.number("tokens", context.tokens);
    to.time("created_at", context.created_at);
    to.time("updated_at", context.updated_at);
    to.out.push(b'}');
    to.out
}

struct Writer<W> {
    out: Vec<u8>,
    wrote: W,
}

impl<W: FnMut(&str, Option<usize>)> Writer<W> {
    #[inline]
    fn text(&mut self, name: &str, text: &str) {
        field(&mut self.out, name);
        noted(&mut self.out, &mut self.wrote, text);
    }

    #[inline]
    fn next(&mut self, name: &str, text: &str) {
        self.out.push(b',');
        self.text(name, text);
    }

    /// What is JSON already.
    fn json(&mut self, json: &str) {
        (self.wrote)(json, Some(self.out.len()));
        self.out.extend_from_slice(json.as_bytes());
    }

    fn labels(&mut self, labels: &[String]) {
        let Self { out, wrote } = self;
        out.push(b',');
        each(out, "labels", labels, |out, label| noted(out, wrote, label));
    }

    #[inline]
    fn number(&mut self, name: &str, value: u64) {
        self.out.push(b',');
        number(&mut self.out, name, value);
    }

    fn time(&mut self, name: &str, at: Timestamp) {
        self.out.push(b',');
        time(&mut self.out, name, at);
    }
}

/// A string, and where it stands.
fn noted(out: &mut Vec<u8>, wrote: &mut impl FnMut(&str, Option<usize>), text: &str) {
    let at = out.len() + 1;
    string(out, text);
    // An escape is longer than what it stands for.
    let verbatim = out.len() == at + text.len() + 1;
    wrote(text, verbatim.then_some(at));
}
