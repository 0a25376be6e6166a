//! Heads as bytes for the cache: a byte for the format, then postcard's encoding: fields in order, without names or types.
//!
//! A head stands there as its document, so that a reader from Redis gets what Redis has, and nothing is written for him. What
//! a head says is taken from its document as well; only what JSON has to escape stands a second time.
//!
//! Processes of different formats share a cache, so that each hears of the others' changes; a head that one cannot read it
//! asks the store for (K4).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::document;
use crate::context::{ForkedFrom, JsonObject};
use crate::error::{Error, Result};
use crate::id::ContextId;
use crate::truncate::AutoTruncation;
use crate::{Context, Head, Timestamp, Tokenizer};

/// Goes up with each change of [`Record`], or of the document. Formats that were never released: 0x7B, which was JSON, 2,
/// `MessagePack`, 3, whose texts each stood for themselves, and 4, which had no document.
const FORMAT: u8 = 5;

/// Texts by their places. All of them are found to be UTF-8 at once: each by itself, that was a quarter of the instructions
/// of decoding.
#[derive(Serialize, Deserialize)]
struct Record<'bytes> {
    document: &'bytes str,
    /// The texts that are escaped in the document.
    escaped: &'bytes str,
    id: Place,
    agent_id: Place,
    session_id: Option<Place>,
    model_id: Option<Place>,
    name: Option<Place>,
    description: Option<Place>,
    metadata: Place,
    labels: Vec<Place>,
    max_tokens: u64,
    tokenizer: Place,
    truncation: Place,
    forked_from: Option<(Place, u64)>,
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

/// Where a text stands: after how many bytes of its source, twice, one more if that is `escaped`; and how long it is.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Place(usize, usize);

pub(crate) fn encode(context: &Context) -> Result<Bytes> {
    let (mut places, mut escaped) = (Vec::new(), String::new());
    let document = document::write(context, |text, at| {
        let start = at.map_or(2 * escaped.len() + 1, |at| 2 * at);
        if at.is_none() {
            escaped.push_str(text);
        }
        places.push(Place(start, text.len()));
    });
    let mut places = Placed(places.into_iter());
    // In the order in which they were written.
    let record = Record {
        document: std::str::from_utf8(&document).map_err(|error| cannot(&error))?,
        escaped: &escaped,
        id: places.take()?,
        agent_id: places.take()?,
        session_id: places.take_if(context.session_id.is_some())?,
        model_id: places.take_if(context.model_id.is_some())?,
        name: places.take_if(context.name.is_some())?,
        description: places.take_if(context.description.is_some())?,
        metadata: places.take()?,
        labels: places.0.by_ref().take(context.labels.len()).collect(),
        max_tokens: context.max_tokens,
        tokenizer: places.take()?,
        truncation: places.take()?,
        forked_from: match &context.forked_from {
            Some(from) => Some((places.take()?, from.at_seq)),
            None => None,
        },
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
    let mut bytes = Vec::with_capacity(192 + document.len() + escaped.len());
    bytes.push(FORMAT);
    let bytes = postcard::to_extend(&record, bytes).map_err(|error| cannot(&error))?;
    // What is kept is no larger than what it is weighed with.
    Ok(Bytes::from(bytes.into_boxed_slice()))
}

fn cannot(problem: &dyn std::fmt::Display) -> Error {
    Error::internal(format!("a head for the cache: {problem}"))
}

/// The places of texts that were written.
struct Placed(std::vec::IntoIter<Place>);

impl Placed {
    fn take(&mut self) -> Result<Place> {
        self.0.next().ok_or_else(|| cannot(&"its document lacks a text"))
    }

    fn take_if(&mut self, is_there: bool) -> Result<Option<Place>> {
        is_there.then(|| self.take()).transpose()
    }
}

/// The head shares its document with `bytes`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Head> {
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
    let texts = Texts {
        document: record.document,
        escaped: record.escaped,
    };
    let context = Context {
        id: ContextId::parse(texts.at(record.id)?)?,
        agent_id: texts.at(record.agent_id)?.to_owned(),
        session_id: texts.owned(record.session_id)?,
        model_id: texts.owned(record.model_id)?,
        name: texts.owned(record.name)?,
        description: texts.owned(record.description)?,
        metadata: JsonObject::trusted(Arc::from(texts.at(record.metadata)?)),
        labels: texts.all(&record.labels)?,
        max_tokens: record.max_tokens,
        tokenizer: {
            let name = texts.at(record.tokenizer)?;
            Tokenizer::stored(name).ok_or_else(|| damaged(&format!("names the tokenizer {name:?}")))?
        },
        truncation: {
            let name = texts.at(record.truncation)?;
            AutoTruncation::parse(name).map_err(|_| damaged(&format!("names the truncation {name:?}")))?
        },
        forked_from: match record.forked_from {
            Some((id, at_seq)) => Some(ForkedFrom {
                id: ContextId::parse(texts.at(id)?)?,
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
    Ok(Head::written(
        context,
        bytes.slice_ref(record.document.as_bytes()),
    ))
}

struct Texts<'bytes> {
    document: &'bytes str,
    escaped: &'bytes str,
}

impl<'bytes> Texts<'bytes> {
    fn at(&self, Place(start, length): Place) -> Result<&'bytes str> {
        let source = if start % 2 == 0 {
            self.document
        } else {
            self.escaped
        };
        let text = source.get(start / 2..).and_then(|rest| rest.get(..length));
        text.ok_or_else(|| damaged("has a text cut short"))
    }

    /// In a list with no more room than they need, as it is accounted with.
    fn all(&self, places: &[Place]) -> Result<Vec<String>> {
        let mut all = Vec::with_capacity(places.len());
        for place in places {
            all.push(self.at(*place)?.to_owned());
        }
        Ok(all)
    }

    fn owned(&self, place: Option<Place>) -> Result<Option<String>> {
        place.map(|place| self.at(place).map(str::to_owned)).transpose()
    }
}

fn damaged(problem: &str) -> Error {
    Error::StorageDamaged {
        detail: format!("a head in the cache: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::NewContext;

    /// With all that a head can have.
    fn full() -> Context {
        let id = ContextId::parse("context-0123456789").unwrap();
        let mut context = NewContext {
            session_id: Some("s".to_owned()),
            model_id: Some("m".to_owned()),
            name: Some("n".to_owned()),
            description: Some("über \"quotes\"\n".to_owned()),
            metadata: Some(JsonObject::parse("metadata", r#"{ "a" : [1, 2.50] }"#).unwrap()),
            labels: Some(vec!["x".to_owned(), "\\".to_owned()]),
            expires_at: Some(Timestamp::from_micros(-5)),
            ..NewContext::of_agent("planner")
        }
        .into_context(id.clone(), Timestamp::from_micros(1_767_225_600_000_001));
        context.version = u64::MAX;
        context.stream = 77;
        context.forked_from = Some(ForkedFrom { id, at_seq: 9 });
        context
    }

    // Servers of another release read what this one leaves in Redis, and answer with its documents.
    #[test]
    fn other_bytes_are_another_format() {
        let digest = Sha256::digest(encode(&full()).unwrap());
        let beginning = u64::from_be_bytes(digest[..8].try_into().unwrap());
        assert_eq!((FORMAT, beginning), (5, 0x1596_0e14_4b62_c0e5));
    }

    #[test]
    fn heads_read_back() {
        let context = full();
        let bytes = encode(&context).unwrap();
        let head = Arc::new(decode(&bytes).unwrap());
        assert_eq!(**head, context);
        assert_eq!(head.document(), document::write(&context, |_, _| {}));
        let inside = bytes.as_ptr_range();
        assert!(inside.contains(&head.document().as_ptr()), "it is not copied");
        // Cut off anywhere, of another format, of other fields.
        for length in 0..bytes.len() {
            assert!(
                decode(&bytes.slice(..length)).is_err(),
                "{length} bytes were understood"
            );
        }
        let longer = [&bytes[..], b"\x00"].concat();
        // A text that is not UTF-8, one that ends behind the document, and a list longer than what follows.
        let garbled = [&bytes[..9], b"\xff", &bytes[10..]].concat();
        let id = u8::try_from(context.id.as_str().len()).unwrap();
        // After `{"id":"`, twice.
        let place = bytes.windows(2).rposition(|pair| pair == [14, id]).unwrap();
        let moved = |start: &[u8]| [&bytes[..place], start, &bytes[place + 1..]].concat();
        let (behind, far_behind) = (moved(&[0xfe, 0x7f]), moved(&[0xfe, 0xff, 0xff, 0xff, 0x0f]));
        let endless = [
            FORMAT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f,
        ];
        for bad in [
            &b"{}"[..],
            b"[]",
            b"\x00",
            b"\x02\x90",
            &endless,
            &longer,
            &garbled,
            &behind,
            &far_behind,
            &bytes[1..],
        ] {
            let bad = Bytes::copy_from_slice(bad);
            assert!(decode(&bad).is_err(), "{bad:?} was understood");
        }
    }
}
