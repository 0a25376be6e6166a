//! Heads as bytes for the cache.
//!
//! A head stands there as its document, so that a reader from Redis gets what Redis has, and nothing is written for him. What
//! a head says is taken from its document as well; only what JSON has to escape stands a second time.
//!
//! In this order: a byte for the format; the document, and the texts that are escaped in it, each after its length; a byte of
//! flags, for what a head need not have; the number of labels; numbers; times; and the texts by their places, in the order of
//! [`document::write`]. Numbers are in LEB128 (DWARF 5, section 7.6), times are eight bytes of microseconds, the lowest first.
//!
//! Most readers are answered with the document and look at nothing else: the rest is checked when it comes, so that what is damaged
//! can still be asked of the store, and made into a [`Context`] for who looks at it.
//!
//! Processes of different formats share a cache, so that each hears of the others' changes; a head that one cannot read it
//! asks the store for (K4).

mod wire;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use self::wire::{Read, Reader, Texts, put, put_text, put_time};
use super::document;
use crate::context::{ForkedFrom, JsonObject};
use crate::error::{Error, Result};
use crate::id::ContextIdRef;
use crate::truncate::AutoTruncation;
use crate::{Context, Head, Seq, Timestamp, Tokenizer, Version};

/// Goes up with each change of what is written here, or of the document. Formats that were never released: 0x7B, which was
/// JSON, 2, `MessagePack`, 3, whose texts each stood for themselves, 4, which had no document, and 5, which was postcard's.
const FORMAT: u8 = 6;

const HAS_SESSION: u8 = 1;
const HAS_MODEL: u8 = 2;
const HAS_NAME: u8 = 4;
const HAS_DESCRIPTION: u8 = 8;
const IS_FORK: u8 = 16;
const EXPIRES: u8 = 32;
const FLAGS: u8 = 63;

pub(crate) fn encode(context: &Context) -> Bytes {
    let (mut places, mut escaped) = (Vec::new(), String::new());
    let document = document::write(context, |text, at| {
        // Twice where it starts, one more if that is among the escaped.
        let start = at.map_or(2 * escaped.len() + 1, |at| 2 * at);
        if at.is_none() {
            escaped.push_str(text);
        }
        put(&mut places, start as u64);
        put(&mut places, text.len() as u64);
    });
    let mut out = Vec::with_capacity(128 + document.len() + escaped.len());
    out.push(FORMAT);
    put_text(&mut out, &document);
    put_text(&mut out, escaped.as_bytes());
    let parent = context.forked_from.as_ref();
    out.push(flags(context));
    put(&mut out, context.labels.len() as u64);
    let numbers = [
        context.max_tokens,
        context.version,
        context.first_seq,
        context.next_seq,
        context.item_count,
        context.tokens,
        context.stream,
    ];
    for number in numbers.into_iter().chain(parent.map(|parent| parent.at_seq)) {
        put(&mut out, number);
    }
    let times = [
        Some(context.created_at),
        Some(context.updated_at),
        context.expires_at,
    ];
    for time in times.into_iter().flatten() {
        put_time(&mut out, time);
    }
    out.extend_from_slice(&places);
    // What is kept is no larger than what it is weighed with.
    Bytes::from(out.into_boxed_slice())
}

/// The head shares its document with `bytes`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Head> {
    let read = read(bytes).map_err(|problem| Error::StorageDamaged {
        detail: format!("a head in the cache: {problem}"),
    })?;
    let document = bytes.slice_ref(read.document.as_bytes());
    let (version, expires_at) = (read.version, read.expires_at);
    Ok(Head::written(
        version,
        expires_at,
        document,
        Checked(bytes.clone()),
    ))
}

/// A record that was read before. It reads the same again: a tokenizer's name, once it is known, stays known.
pub(super) struct Checked(Bytes);

impl Checked {
    #[expect(clippy::expect_used, reason = "the same bytes were read when it came")]
    pub(super) fn context(&self) -> Context {
        let read = read(&self.0).map(Reading::into_context);
        read.expect("what was read can be read again")
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Checked").field(&self.0.len()).finish()
    }
}

fn flags(context: &Context) -> u8 {
    let has = [
        (HAS_SESSION, context.session_id.is_some()),
        (HAS_MODEL, context.model_id.is_some()),
        (HAS_NAME, context.name.is_some()),
        (HAS_DESCRIPTION, context.description.is_some()),
        (IS_FORK, context.forked_from.is_some()),
        (EXPIRES, context.expires_at.is_some()),
    ];
    let flags = has.into_iter().filter_map(|(flag, has)| has.then_some(flag));
    flags.fold(0, |flags, flag| flags | flag)
}

/// What a record says, by the bytes that say it.
struct Reading<'bytes> {
    document: &'bytes str,
    max_tokens: u64,
    version: Version,
    first_seq: Seq,
    next_seq: Seq,
    item_count: u64,
    tokens: u64,
    stream: u64,
    at_seq: Option<Seq>,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Option<Timestamp>,
    id: ContextIdRef<'bytes>,
    agent_id: &'bytes str,
    session_id: Option<&'bytes str>,
    model_id: Option<&'bytes str>,
    name: Option<&'bytes str>,
    description: Option<&'bytes str>,
    metadata: &'bytes str,
    labels: Vec<&'bytes str>,
    tokenizer: Tokenizer,
    truncation: AutoTruncation,
    parent: Option<ContextIdRef<'bytes>>,
}

fn read(bytes: &[u8]) -> Read<Reading<'_>> {
    let mut from = Reader(bytes);
    if from.byte()? != FORMAT {
        return Err("is of another format");
    }
    // Found to be UTF-8 at once: each text by itself, that was a quarter of the instructions.
    let (document, escaped) = (from.text()?, from.text()?);
    let texts = Texts { document, escaped };
    let flags = from.byte()?;
    if flags & !FLAGS != 0 {
        return Err("has flags that are not known");
    }
    let has = |flag| flags & flag != 0;
    let labels = from.number()?;
    // Fields are read in the order in which they stand here.
    let read = Reading {
        document,
        max_tokens: from.number()?,
        version: from.number()?,
        first_seq: from.number()?,
        next_seq: from.number()?,
        item_count: from.number()?,
        tokens: from.number()?,
        stream: from.number()?,
        at_seq: has(IS_FORK).then(|| from.number()).transpose()?,
        created_at: from.time()?,
        updated_at: from.time()?,
        expires_at: has(EXPIRES).then(|| from.time()).transpose()?,
        id: id(texts.next(&mut from)?)?,
        agent_id: texts.next(&mut from)?,
        session_id: texts.next_if(has(HAS_SESSION), &mut from)?,
        model_id: texts.next_if(has(HAS_MODEL), &mut from)?,
        name: texts.next_if(has(HAS_NAME), &mut from)?,
        description: texts.next_if(has(HAS_DESCRIPTION), &mut from)?,
        metadata: texts.next(&mut from)?,
        // How many there are to be is no reason to make room for them.
        labels: (0..labels).map(|_| texts.next(&mut from)).collect::<Read<_>>()?,
        tokenizer: Tokenizer::stored(texts.next(&mut from)?).ok_or("names no tokenizer")?,
        truncation: AutoTruncation::parse(texts.next(&mut from)?).map_err(|_| "names no way to truncate")?,
        parent: texts.next_if(has(IS_FORK), &mut from)?.map(id).transpose()?,
    };
    if !from.0.is_empty() {
        return Err("has bytes too many");
    }
    Ok(read)
}

fn id(text: &str) -> Read<ContextIdRef<'_>> {
    ContextIdRef::parse(text).ok_or("names no context")
}

impl Reading<'_> {
    fn into_context(self) -> Context {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Context {
            id: self.id.into(),
            agent_id: self.agent_id.to_owned(),
            session_id: owned(self.session_id),
            model_id: owned(self.model_id),
            name: owned(self.name),
            description: owned(self.description),
            metadata: JsonObject::trusted(Arc::from(self.metadata)),
            // With no more room than they need, as it is accounted with.
            labels: self.labels.iter().map(|label| (*label).to_owned()).collect(),
            max_tokens: self.max_tokens,
            tokenizer: self.tokenizer,
            truncation: self.truncation,
            forked_from: self.parent.zip(self.at_seq).map(|(id, at_seq)| ForkedFrom {
                id: id.into(),
                at_seq,
            }),
            expires_at: self.expires_at,
            version: self.version,
            first_seq: self.first_seq,
            next_seq: self.next_seq,
            item_count: self.item_count,
            tokens: self.tokens,
            created_at: self.created_at,
            updated_at: self.updated_at,
            stream: self.stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::{ContextId, NewContext};

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
        let digest = Sha256::digest(encode(&full()));
        let beginning = u64::from_be_bytes(digest[..8].try_into().unwrap());
        assert_eq!((FORMAT, beginning), (6, 0x9ed9_2359_9e9e_fc70));
    }

    #[test]
    fn heads_read_back() {
        let context = full();
        let bytes = encode(&context);
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
        let flags = {
            let mut from = Reader(&bytes[1..]);
            from.text().and_then(|_| from.text()).unwrap();
            bytes.len() - from.0.len()
        };
        let with = |place: usize, new: &[u8]| [&bytes[..place], new, &bytes[place + 1..]].concat();
        let find = |part: &[u8]| bytes.windows(part.len()).position(|bytes| bytes == part).unwrap();
        let id = u8::try_from(context.id.as_str().len()).unwrap();
        // After `{"id":"`, twice.
        let place = flags
            + bytes[flags..]
                .windows(2)
                .position(|pair| pair == [14, id])
                .unwrap();
        for (what, bad) in [
            ("JSON", b"{}".to_vec()),
            ("without its format", bytes[1..].to_vec()),
            ("of another format", with(0, &[FORMAT - 1])),
            ("longer", [&bytes[..], b"\x00"].concat()),
            ("not UTF-8", with(9, b"\xff")),
            ("a text behind the document", with(place, &[0xFE, 0x7F])),
            ("a text far behind", with(place, &[0xFE, 0xFF, 0xFF, 0xFF, 0x0F])),
            ("a text that ends behind", with(place + 1, &[0xFF, 0x7F])),
            ("a flag that nobody knows", with(flags, &[bytes[flags] | 0x40])),
            (
                "more labels than follow",
                with(flags + 1, &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
            ),
            ("a path for an id", with(find(b"context-"), b"/")),
            ("another tokenizer", with(find(b"o200k_base"), b"\x7f")),
            ("another truncation", with(find(b"\"none\"") + 1, b"N")),
        ] {
            let bad = Bytes::from(bad);
            assert!(decode(&bad).is_err(), "{what}: {bad:?} was understood");
        }
    }
    /// Any texts, numbers and times.
    fn any_context() -> impl Strategy<Value = Context> {
        let optional = || prop::option::of(any::<String>());
        let texts = (any::<String>(), optional(), optional(), optional(), optional());
        let labels = prop::collection::vec(any::<String>(), 0..4);
        // From the year 1 to 9999.
        let time = || (-62_135_596_800_000_000_i64..253_402_300_800_000_000).prop_map(Timestamp::from_micros);
        let times = (time(), time(), prop::option::of(time()));
        let note = any::<String>().prop_map(|text| serde_json::json!({ "note": text }).to_string());
        let strategy = (texts, labels, any::<[u64; 8]>(), times, note, any::<bool>());
        strategy.prop_map(|(texts, labels, numbers, times, metadata, is_fork)| {
            let mut context = full();
            let (id, [at_seq, ..]) = (context.id.clone(), numbers);
            (
                context.agent_id,
                context.session_id,
                context.model_id,
                context.name,
                context.description,
            ) = texts;
            [
                _,
                context.max_tokens,
                context.version,
                context.first_seq,
                context.next_seq,
                context.item_count,
                context.tokens,
                context.stream,
            ] = numbers;
            (context.created_at, context.updated_at, context.expires_at) = times;
            context.labels = labels;
            context.metadata = JsonObject::parse("metadata", &metadata).unwrap();
            context.forked_from = is_fork.then_some(ForkedFrom { id, at_seq });
            context
        })
    }

    proptest! {
        #[test]
        fn any_head_reads_back(context in any_context()) {
            let head = Arc::new(decode(&encode(&context)).unwrap());
            prop_assert_eq!(head.document(), document::write(&context, |_, _| {}));
            prop_assert_eq!(head.version(), context.version);
            prop_assert_eq!(head.expires_at(), context.expires_at);
            prop_assert_eq!(&**head, &context);
        }

        // What is understood when it comes can be looked at later.
        #[test]
        fn what_is_damaged_is_refused_or_read(
            context in any_context(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = encode(&context).to_vec();
            for (place, byte) in damage {
                *place.get_mut(&mut bytes) = byte;
            }
            if let Ok(head) = decode(&bytes.into()) {
                prop_assert_eq!(Context::clone(&head).version, head.version());
            }
        }
    }
}
