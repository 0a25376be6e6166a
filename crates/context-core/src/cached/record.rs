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

/// Goes up with each change of [`Record`]. Formats that were never released: 0x7B, which was JSON, and 2, `MessagePack`.
const FORMAT: u8 = 3;

#[derive(Serialize, Deserialize)]
struct Record<'bytes> {
    id: &'bytes str,
    agent_id: &'bytes str,
    session_id: Option<&'bytes str>,
    model_id: Option<&'bytes str>,
    name: Option<&'bytes str>,
    description: Option<&'bytes str>,
    metadata: &'bytes str,
    #[serde(borrow)]
    labels: Vec<&'bytes str>,
    max_tokens: u64,
    tokenizer: &'bytes str,
    truncation: &'bytes str,
    forked_from: Option<(&'bytes str, u64)>,
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
    let record = Record {
        id: context.id.as_str(),
        agent_id: &context.agent_id,
        session_id: context.session_id.as_deref(),
        model_id: context.model_id.as_deref(),
        name: context.name.as_deref(),
        description: context.description.as_deref(),
        metadata: context.metadata.as_str(),
        labels: context.labels.iter().map(String::as_str).collect(),
        max_tokens: context.max_tokens,
        tokenizer: context.tokenizer.as_str(),
        truncation: context.truncation.as_str(),
        forked_from: context
            .forked_from
            .as_ref()
            .map(|from| (from.id.as_str(), from.at_seq)),
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
    let mut bytes = Vec::with_capacity(512 + context.metadata.as_str().len());
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
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(Context {
        id: ContextId::parse(record.id)?,
        agent_id: record.agent_id.to_owned(),
        session_id: owned(record.session_id),
        model_id: owned(record.model_id),
        name: owned(record.name),
        description: owned(record.description),
        metadata: JsonObject::trusted(Arc::from(record.metadata)),
        labels: record.labels.into_iter().map(str::to_owned).collect(),
        max_tokens: record.max_tokens,
        tokenizer: Tokenizer::stored(record.tokenizer)
            .ok_or_else(|| damaged(&format!("names the tokenizer {:?}", record.tokenizer)))?,
        truncation: AutoTruncation::parse(record.truncation)
            .map_err(|_| damaged(&format!("names the truncation {:?}", record.truncation)))?,
        forked_from: record
            .forked_from
            .map(|(id, at_seq)| ContextId::parse(id).map(|id| ForkedFrom { id, at_seq }))
            .transpose()?,
        expires_at: record.expires_at.map(Timestamp::from_micros),
        version: record.version,
        first_seq: record.first_seq,
        next_seq: record.next_seq,
        item_count: record.item_count,
        tokens: record.tokens,
        created_at: Timestamp::from_micros(record.created_at),
        updated_at: Timestamp::from_micros(record.updated_at),
        stream: record.stream,
    })
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
        // A text that is not UTF-8, and a list longer than what follows.
        let garbled = [&bytes[..2], b"\xff", &bytes[3..]].concat();
        let endless = [FORMAT, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        for bad in [
            &b"{}"[..],
            b"[]",
            b"\x00",
            b"\x02\x90",
            &endless,
            &longer,
            &garbled,
            &bytes[1..],
        ] {
            assert!(decode(bad).is_err(), "{bad:?} was understood");
        }
    }
}
