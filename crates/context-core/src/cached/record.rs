//! Heads as bytes for the cache: a byte for the format, then postcard's encoding: fields in order, without names or types.
//!
//! Processes of different formats share a cache, so that each hears of the others' changes; a head that one cannot read it
//! asks the store for (K4).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::context::{ForkedFrom, JsonObject};
use crate::error::{Error, Result};
use crate::id::ContextId;
use crate::truncate::AutoTruncation;
use crate::{Context, Timestamp, Tokenizer};

/// Goes up with each change of [`Record`]. Formats that were never released: 0x7B, which was JSON, 2, `MessagePack`, and 3,
/// whose texts each stood for themselves.
const FORMAT: u8 = 4;

/// Texts by their bytes in `texts`, where they stand in the order of the fields: so they are found to be UTF-8 all at once. Each
/// by itself, that was a quarter of the instructions of decoding.
#[derive(Serialize, Deserialize)]
struct Record<'bytes> {
    texts: &'bytes str,
    id: usize,
    agent_id: usize,
    session_id: Option<usize>,
    model_id: Option<usize>,
    name: Option<usize>,
    description: Option<usize>,
    metadata: usize,
    labels: Vec<usize>,
    max_tokens: u64,
    tokenizer: usize,
    truncation: usize,
    forked_from: Option<(usize, u64)>,
    expires_at: Option<i64>,
    version: u64,
    first_seq: u64,
    next_seq: u64,
    item_count: u64,
    tokens: u64,
    created_at: i64,
    updated_at: i64,
    stream: u64,
}

pub(super) fn encode(context: &Context) -> Result<Bytes> {
    let mut texts = String::with_capacity(128 + context.metadata.as_str().len());
    let mut put = |text: &str| {
        texts.push_str(text);
        text.len()
    };
    let mut record = Record {
        texts: "",
        id: put(context.id.as_str()),
        agent_id: put(&context.agent_id),
        session_id: context.session_id.as_deref().map(&mut put),
        model_id: context.model_id.as_deref().map(&mut put),
        name: context.name.as_deref().map(&mut put),
        description: context.description.as_deref().map(&mut put),
        metadata: put(context.metadata.as_str()),
        labels: context.labels.iter().map(|label| put(label)).collect(),
        max_tokens: context.max_tokens,
        tokenizer: put(context.tokenizer.as_str()),
        truncation: put(context.truncation.as_str()),
        forked_from: context
            .forked_from
            .as_ref()
            .map(|from| (put(from.id.as_str()), from.at_seq)),
        expires_at: context.expires_at.map(Timestamp::as_micros),
        version: context.version,
        first_seq: context.first_seq,
        next_seq: context.next_seq,
        item_count: context.item_count,
        tokens: context.tokens,
        created_at: context.created_at.as_micros(),
        updated_at: context.updated_at.as_micros(),
        stream: context.stream,
    };
    record.texts = &texts;
    let mut bytes = Vec::with_capacity(256 + texts.len());
    bytes.push(FORMAT);
    let bytes = postcard::to_extend(&record, bytes)
        .map_err(|error| Error::internal(format!("a head for the cache: {error}")))?;
    // What is kept is no larger than what it is weighed with.
    Ok(Bytes::from(bytes.into_boxed_slice()))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Context> {
    let record = match bytes.split_first() {
        Some((&FORMAT, record)) => record,
        Some((format, _)) => {
            return Err(damaged(&format!(
                "is of format {format}, and {FORMAT} is understood"
            )));
        }
        None => return Err(damaged("is empty")),
    };
    let (record, rest): (Record<'_>, _) =
        postcard::take_from_bytes(record).map_err(|error| damaged(&error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(&format!("has {} bytes too many", rest.len())));
    }
    let mut texts = Texts(record.texts);
    let context = Context {
        id: ContextId::parse(texts.take(record.id)?)?,
        agent_id: texts.take(record.agent_id)?.to_owned(),
        session_id: texts.take_owned(record.session_id)?,
        model_id: texts.take_owned(record.model_id)?,
        name: texts.take_owned(record.name)?,
        description: texts.take_owned(record.description)?,
        metadata: JsonObject::trusted(Arc::from(texts.take(record.metadata)?)),
        labels: texts.take_all(&record.labels)?,
        max_tokens: record.max_tokens,
        tokenizer: {
            let name = texts.take(record.tokenizer)?;
            Tokenizer::stored(name).ok_or_else(|| damaged(&format!("names the tokenizer {name:?}")))?
        },
        truncation: {
            let name = texts.take(record.truncation)?;
            AutoTruncation::parse(name).map_err(|_| damaged(&format!("names the truncation {name:?}")))?
        },
        forked_from: match record.forked_from {
            Some((id, at_seq)) => Some(ForkedFrom {
                id: ContextId::parse(texts.take(id)?)?,
                at_seq,
            }),
            None => None,
        },
        expires_at: record.expires_at.map(Timestamp::from_micros),
        version: record.version,
        first_seq: record.first_seq,
        next_seq: record.next_seq,
        item_count: record.item_count,
        tokens: record.tokens,
        created_at: Timestamp::from_micros(record.created_at),
        updated_at: Timestamp::from_micros(record.updated_at),
        stream: record.stream,
    };
    if !texts.0.is_empty() {
        return Err(damaged("has a text too many"));
    }
    Ok(context)
}

/// The texts that are not taken yet.
struct Texts<'bytes>(&'bytes str);

impl<'bytes> Texts<'bytes> {
    fn take(&mut self, bytes: usize) -> Result<&'bytes str> {
        let (text, rest) = (self.0.split_at_checked(bytes)).ok_or_else(|| damaged("has a text cut short"))?;
        self.0 = rest;
        Ok(text)
    }

    /// In a list with no more room than they need, as it is accounted with.
    fn take_all(&mut self, bytes: &[usize]) -> Result<Vec<String>> {
        let mut all = Vec::with_capacity(bytes.len());
        for bytes in bytes {
            all.push(self.take(*bytes)?.to_owned());
        }
        Ok(all)
    }

    fn take_owned(&mut self, bytes: Option<usize>) -> Result<Option<String>> {
        bytes.map(|bytes| self.take(bytes).map(str::to_owned)).transpose()
    }
}

fn damaged(problem: &str) -> Error {
    Error::StorageDamaged {
        detail: format!("a head in the cache: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewContext;

    #[test]
    fn heads_read_back() {
        let mut context = NewContext {
            session_id: Some("s".to_owned()),
            description: Some("über \"quotes\"\n".to_owned()),
            metadata: Some(JsonObject::parse("metadata", r#"{ "a" : [1, 2.50] }"#).unwrap()),
            labels: Some(vec!["x".to_owned()]),
            expires_at: Some(Timestamp::from_micros(-5)),
            ..NewContext::of_agent("planner")
        }
        .into_context(
            ContextId::generate(),
            Timestamp::from_micros(1_767_225_600_000_001),
        );
        context.version = u64::MAX;
        context.stream = 77;
        context.forked_from = Some(ForkedFrom {
            id: ContextId::generate(),
            at_seq: 9,
        });
        let bytes = encode(&context).unwrap();
        assert_eq!(decode(&bytes).unwrap(), context);
        // Cut off anywhere, of another format, of other fields.
        for length in 0..bytes.len() {
            assert!(
                decode(&bytes[..length]).is_err(),
                "{length} bytes were understood"
            );
        }
        let longer = [&bytes[..], b"\x00"].concat();
        // A text that is not UTF-8, texts that end elsewhere, and a list longer than what follows.
        let garbled = [&bytes[..9], b"\xff", &bytes[10..]].concat();
        let id = u8::try_from(context.id.as_str().len()).unwrap();
        let lengths = bytes.windows(2).rposition(|pair| pair == [id, 7]).unwrap();
        let moved = |by: u8| [&bytes[..lengths], &[id.wrapping_add(by)], &bytes[lengths + 1..]].concat();
        let (shorter, longer_by_far) = (moved(u8::MAX), moved(99));
        let endless = [FORMAT, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        for bad in [
            &b"{}"[..],
            b"[]",
            b"\x00",
            b"\x02\x90",
            &endless,
            &longer,
            &garbled,
            &shorter,
            &longer_by_far,
            &bytes[1..],
        ] {
            assert!(decode(bad).is_err(), "{bad:?} was understood");
        }
    }
}
