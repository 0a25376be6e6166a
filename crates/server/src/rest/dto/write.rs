//! Writes JSON whose items are copied as they are: neither parsed nor serialised again.

use std::io::Write as _;

use contextkeep_core::semantic::SemanticPage;
use contextkeep_core::store::{Hit, ItemPage};
use contextkeep_core::{Context, Item, Timestamp};

/// A JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("invariant: writing a string to memory does not fail");
}

// With the field's name known where it is called, what is before the digits is written by a store or two.
#[inline]
pub(crate) fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    field(out, name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The name of a field, which needs no escapes.
#[inline]
fn field(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn cursor(out: &mut Vec<u8>, cursor: Option<&str>) {
    out.extend_from_slice(b",\"next_cursor\":");
    match cursor {
        Some(cursor) => string(out, cursor),
        None => out.extend_from_slice(b"null"),
    }
}

pub(crate) fn each<T>(out: &mut Vec<u8>, name: &str, values: &[T], mut one: impl FnMut(&mut Vec<u8>, &T)) {
    field(out, name);
    out.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        one(out, value);
    }
    out.push(b']');
}

/// One stored item.
pub(crate) fn item(out: &mut Vec<u8>, item: &Item) {
    out.push(b'{');
    number(out, "seq", item.seq);
    out.push(b',');
    number(out, "tokens", item.tokens.into());
    time(out, "created_at", item.created_at);
    out.extend_from_slice(b",\"item\":");
    out.extend_from_slice(item.body.as_bytes());
    out.push(b'}');
}

/// A head: what [`ContextBody`](super::ContextBody) says, its metadata copied as they are.
pub(crate) fn context(context: &Context) -> Vec<u8> {
    let texts = [
        &context.session_id,
        &context.model_id,
        &context.name,
        &context.description,
    ];
    let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
    let texts = texts + context.metadata.as_str().len() + context.id.as_str().len() + context.agent_id.len();
    let mut out = Vec::with_capacity(texts + CONTEXT_BYTES);
    let optional = |out: &mut Vec<u8>, name, value: Option<&str>| {
        if let Some(value) = value {
            out.push(b',');
            text(out, name, value);
        }
    };
    out.push(b'{');
    text(&mut out, "id", context.id.as_str());
    out.push(b',');
    text(&mut out, "agent_id", &context.agent_id);
    optional(&mut out, "session_id", context.session_id.as_deref());
    optional(&mut out, "model_id", context.model_id.as_deref());
    optional(&mut out, "name", context.name.as_deref());
    optional(&mut out, "description", context.description.as_deref());
    out.extend_from_slice(b",\"metadata\":");
    out.extend_from_slice(context.metadata.as_str().as_bytes());
    out.push(b',');
    each(&mut out, "labels", &context.labels, |out, label| {
        string(out, label);
    });
    out.push(b',');
    number(&mut out, "max_tokens", context.max_tokens);
    optional(&mut out, "tokenizer", Some(context.tokenizer.as_str()));
    optional(&mut out, "truncation", Some(context.truncation.as_str()));
    if let Some(parent) = &context.forked_from {
        out.extend_from_slice(b",\"forked_from\":{");
        text(&mut out, "id", parent.id.as_str());
        out.push(b',');
        number(&mut out, "at_seq", parent.at_seq);
        out.push(b'}');
    }
    if let Some(at) = context.expires_at {
        time(&mut out, "expires_at", at);
    }
    out.push(b',');
    number(&mut out, "version", context.version);
    out.push(b',');
    number(&mut out, "first_seq", context.first_seq);
    out.push(b',');
    number(&mut out, "next_seq", context.next_seq);
    out.push(b',');
    number(&mut out, "item_count", context.item_count);
    out.push(b',');
    number(&mut out, "tokens", context.tokens);
    time(&mut out, "created_at", context.created_at);
    time(&mut out, "updated_at", context.updated_at);
    out.push(b'}');
    out
}

/// Room for a head beside its texts; most take no more.
const CONTEXT_BYTES: usize = 384;

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    field(out, name);
    string(out, value);
}

fn time(out: &mut Vec<u8>, name: &str, at: Timestamp) {
    out.push(b',');
    field(out, name);
    out.push(b'"');
    at.write_to(out);
    out.push(b'"');
}

pub(crate) fn capacity(items: &[Item]) -> usize {
    items.iter().map(|item| item.body.len() + 96).sum::<usize>() + 256
}

pub(crate) fn page(page: &ItemPage, next: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity(&page.items));
    out.push(b'{');
    each(&mut out, "items", &page.items, item);
    cursor(&mut out, next);
    out.push(b'}');
    out
}

pub(crate) fn hits(
    hits: &[Hit],
    next: Option<&str>,
    lag_items: u64,
    semantic: Option<&SemanticPage>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(hits.iter().map(|hit| hit.item.body.len() + 512).sum::<usize>() + 128);
    out.push(b'{');
    each(&mut out, "hits", hits, |out, hit| {
        out.extend_from_slice(b"{\"context_id\":");
        string(out, hit.context.as_str());
        out.push(b',');
        number(out, "seq", hit.item.seq);
        write!(out, ",\"score\":{:.6},\"snippet\":", hit.score)
            .expect("invariant: writing to memory does not fail");
        string(out, &hit.snippet);
        out.extend_from_slice(b",\"item\":");
        out.extend_from_slice(hit.item.body.as_bytes());
        out.push(b'}');
    });
    cursor(&mut out, next);
    out.push(b',');
    number(&mut out, "lag_items", lag_items);
    if let Some(page) = semantic {
        scan(&mut out, page);
    }
    out.push(b'}');
    out
}

fn scan(out: &mut Vec<u8>, page: &SemanticPage) {
    out.extend_from_slice(b",\"semantic\":{\"model\":");
    string(out, &page.model);
    out.push(b',');
    number(out, "scanned", page.scanned);
    write!(out, ",\"cut_off\":{}}}", page.cut_off).expect("invariant: writing to memory does not fail");
    if let Some(degraded) = page.degraded {
        out.extend_from_slice(b",\"degraded\":");
        string(out, degraded);
    }
}

#[cfg(test)]
mod tests {
    use contextkeep_core::cached::HEAD_BODY_BYTES;
    use contextkeep_core::truncate::AutoTruncation;
    use contextkeep_core::{ContextId, ForkedFrom, JsonObject, NewContext, Tokenizer};

    use super::*;
    use crate::rest::dto::ContextBody;

    fn least() -> Context {
        NewContext::of_agent("support").into_context(
            ContextId::generate(),
            Timestamp::from_micros(1_767_225_600_000_001),
        )
    }

    /// With all that a head can have, the texts of which take so many bytes.
    fn most() -> (Context, usize) {
        let (id, metadata) = (ContextId::generate(), r#"{ "a" : [1, 2.50] }"#);
        let context = Context {
            session_id: Some("s".to_owned()),
            model_id: Some("m".to_owned()),
            name: Some("n".to_owned()),
            description: Some("d".to_owned()),
            metadata: JsonObject::parse("metadata", metadata).unwrap(),
            labels: vec!["x".to_owned(); 32],
            max_tokens: u64::MAX,
            tokenizer: Tokenizer::GeminiEstimate,
            truncation: AutoTruncation::parse("tool_results_first").unwrap(),
            forked_from: Some(ForkedFrom {
                id: id.clone(),
                at_seq: u64::MAX,
            }),
            expires_at: Some(Timestamp::from_micros(-5)),
            version: u64::MAX,
            first_seq: u64::MAX,
            next_seq: u64::MAX,
            item_count: u64::MAX,
            tokens: u64::MAX,
            ..least()
        };
        let texts = "support".len() + 4 + metadata.len() + 32 + 2 * id.as_str().len();
        (context, texts)
    }

    #[test]
    fn a_head_is_written_as_it_is_documented() {
        let escaped = Context {
            description: Some("über \"quotes\"\n\u{1}\u{2028}".to_owned()),
            labels: vec!["\\".to_owned()],
            ..least()
        };
        for head in [least(), most().0, escaped] {
            let documented = serde_json::to_string(&ContextBody::from(&head)).unwrap();
            assert_eq!(String::from_utf8(context(&head)).unwrap(), documented);
        }
    }

    #[test]
    fn what_is_written_of_a_head_takes_no_more_than_memory_accounts_it_with() {
        let (most, texts) = most();
        let written = context(&most).len() - texts;
        assert!(written as u64 <= HEAD_BODY_BYTES, "{written}");
    }
}
