//! Heads as bytes for the cache. The name of the cache says which format: processes of different formats do not meet.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::context::{ForkedFrom, JsonObject};
use crate::error::{Error, Result};
use crate::id::ContextId;
use crate::truncate::AutoTruncation;
use crate::{Context, Timestamp, Tokenizer};

/// Part of the cache's name: goes up with each change of [`Record`].
pub(super) const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    id: String,
    agent_id: String,
    session_id: Option<String>,
    model_id: Option<String>,
    name: Option<String>,
    description: Option<String>,
    metadata: Arc<str>,
    labels: Vec<String>,
    max_tokens: u64,
    tokenizer: String,
    truncation: String,
    forked_from: Option<(String, u64)>,
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
    let context = context.clone();
    let record = Record {
        id: context.id.to_string(),
        agent_id: context.agent_id,
        session_id: context.session_id,
        model_id: context.model_id,
        name: context.name,
        description: context.description,
        metadata: Arc::from(context.metadata.as_str()),
        labels: context.labels,
        max_tokens: context.max_tokens,
        tokenizer: context.tokenizer.to_string(),
        truncation: context.truncation.as_str().to_owned(),
        forked_from: context.forked_from.map(|from| (from.id.to_string(), from.at_seq)),
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
    serde_json::to_vec(&record)
        .map(Bytes::from)
        .map_err(|error| Error::internal(format!("a head for the cache: {error}")))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Context> {
    let record: Record = serde_json::from_slice(bytes).map_err(|error| damaged(&error.to_string()))?;
    Ok(Context {
        id: ContextId::parse(&record.id)?,
        agent_id: record.agent_id,
        session_id: record.session_id,
        model_id: record.model_id,
        name: record.name,
        description: record.description,
        metadata: JsonObject::trusted(record.metadata),
        labels: record.labels,
        max_tokens: record.max_tokens,
        tokenizer: Tokenizer::stored(&record.tokenizer)
            .ok_or_else(|| damaged(&format!("names the tokenizer {:?}", record.tokenizer)))?,
        truncation: AutoTruncation::parse(&record.truncation)
            .map_err(|_| damaged(&format!("names the truncation {:?}", record.truncation)))?,
        forked_from: record
            .forked_from
            .map(|(id, at_seq)| ContextId::parse(&id).map(|id| ForkedFrom { id, at_seq }))
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
        assert_eq!(decode(&encode(&context).unwrap()).unwrap(), context);
        for bad in ["", "{}", "[]", "\u{0}"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad:?} was understood");
        }
    }
}
