//! Ends of contexts that nobody has asked for lately, compressed. They come here when the memory for ends is full, instead of
//! being forgotten, and go back when somebody asks: microseconds instead of a question to the store. It is done by whoever
//! needs the room, for one context at a time: microseconds for most, milliseconds for one of a megabyte.
//!
//! - **Z1** What comes back is what went. Whether it is still the end of its context is then decided as for all that is held.
//! - **Z2** Only what was asked for again since it came is worth the work: a walk over many contexts compresses nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bounded::{Bounded, Weigh, bounded};
use super::held::{Held, Parts};
use crate::id::{ClientId, ContextKey};
use crate::item::{Kind, Links, Role, Traits};
use crate::{Context, Item, Seq, Timestamp};

/// Room of an entry beside its bytes: the head, the key.
const OVERHEAD: u64 = 1024;

/// What is held compressed.
#[derive(Debug)]
pub(super) struct Cold {
    ends: Bounded<ContextKey, Arc<Frozen>>,
}

impl Cold {
    /// Room for so many contexts and bytes, compressed. What is frozen was at most `item_max` bytes before.
    pub(super) fn new(contexts_max: u64, bytes_max: u64, item_max: u64) -> Option<Self> {
        Some(Self {
            ends: bounded(contexts_max, bytes_max, item_max)?,
        })
    }

    /// Takes in what was pushed out (Z2).
    pub(super) fn freeze(&self, key: ContextKey, held: &Held) {
        if let Some(frozen) = held.is_in_use().then(|| Frozen::of(held)).flatten() {
            self.ends.insert(key, Arc::new(frozen));
        }
    }

    /// Gives back what was taken in (Z1), to one of those who ask.
    pub(super) fn thaw(&self, key: &ContextKey) -> Option<Held> {
        let (_, frozen) = self.ends.remove(key)?;
        frozen.thaw()
    }

    pub(super) fn forget(&self, key: &ContextKey) {
        self.ends.remove(key);
    }

    pub(super) fn clear(&self) {
        self.ends.clear();
    }

    /// Contexts and bytes.
    pub(super) fn stats(&self) -> (u64, u64) {
        (self.ends.len() as u64, self.ends.weight())
    }
}

/// One end: its items by postcard, by LZ4.
#[derive(Debug)]
struct Frozen {
    history: u64,
    context: Context,
    before: Option<Kind>,
    /// How many of the items come before the run.
    kept: usize,
    /// Bytes before they were compressed.
    length: usize,
    bytes: Box<[u8]>,
}

impl Weigh for Arc<Frozen> {
    fn weight(&self) -> u64 {
        self.bytes.len() as u64 + OVERHEAD
    }
}

impl Frozen {
    fn of(held: &Held) -> Option<Self> {
        let Parts {
            history,
            context,
            kept,
            run,
            before,
        } = held.parts();
        let records: Vec<Record<'_>> = kept.iter().chain(run).map(Record::of).collect();
        let items = postcard::to_allocvec(&records).ok()?;
        Some(Self {
            history,
            context: context.clone(),
            before,
            kept: kept.len(),
            length: items.len(),
            bytes: lz4_flex::compress(&items).into_boxed_slice(),
        })
    }

    fn thaw(&self) -> Option<Held> {
        let items = lz4_flex::decompress(&self.bytes, self.length).ok()?;
        let records: Vec<Record<'_>> = postcard::from_bytes(&items).ok()?;
        let mut items = records.into_iter().map(Record::item);
        let kept = items.by_ref().take(self.kept).collect::<Option<Vec<Item>>>()?;
        let run = items.collect::<Option<_>>()?;
        Some(Held::thawed(
            self.history,
            self.context.clone(),
            kept,
            run,
            self.before,
        ))
    }
}

#[derive(Serialize, Deserialize)]
struct Record<'bytes> {
    seq: Seq,
    tokens: u32,
    created_at: i64,
    role: &'bytes str,
    kind: &'bytes str,
    #[serde(borrow)]
    calls: Vec<&'bytes str>,
    #[serde(borrow)]
    results: Vec<&'bytes str>,
    client_id: Option<&'bytes str>,
    pinned: bool,
    importance: Option<f64>,
    body: &'bytes str,
}

impl<'bytes> Record<'bytes> {
    fn of(item: &'bytes Item) -> Self {
        let Traits {
            role,
            kind,
            links,
            client_id,
            pinned,
            importance,
        } = &item.traits;
        Self {
            seq: item.seq,
            tokens: item.tokens,
            created_at: item.created_at.as_micros(),
            role: role.as_str(),
            kind: kind.as_str(),
            calls: links.calls.iter().map(String::as_str).collect(),
            results: links.results.iter().map(String::as_str).collect(),
            client_id: client_id.as_ref().map(ClientId::as_str),
            pinned: *pinned,
            importance: *importance,
            body: &item.body,
        }
    }

    fn item(self) -> Option<Item> {
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        Some(Item {
            seq: self.seq,
            tokens: self.tokens,
            created_at: Timestamp::from_micros(self.created_at),
            traits: Traits {
                role: Role::parse(self.role)?,
                kind: Kind::parse(self.kind)?,
                links: Links {
                    calls: owned(self.calls),
                    results: owned(self.results),
                },
                client_id: match self.client_id {
                    Some(id) => Some(ClientId::parse(id).ok()?),
                    None => None,
                },
                pinned: self.pinned,
                importance: self.importance,
            },
            body: Arc::from(self.body),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewContext;
    use crate::id::{ContextId, TenantId};
    use crate::store::Tail;

    fn key(number: usize) -> ContextKey {
        ContextKey::new(
            TenantId::parse("acme").unwrap(),
            ContextId::parse(&format!("c{number}")).unwrap(),
        )
    }

    fn held(number: usize) -> Held {
        let context = NewContext::of_agent("a").into_context(key(number).id, Timestamp::from_micros(5));
        let item = |seq: Seq| Item {
            seq,
            tokens: 7,
            created_at: Timestamp::from_micros(-3),
            traits: Traits {
                role: Role::ALL[usize::try_from(seq).unwrap() % Role::ALL.len()],
                kind: Kind::ToolResult,
                links: Links {
                    calls: vec!["call_1".to_owned()],
                    results: Vec::new(),
                },
                client_id: seq.is_multiple_of(2).then(|| ClientId::parse("mine").unwrap()),
                pinned: seq.is_multiple_of(3),
                importance: (seq % 2 == 1).then_some(0.25),
            },
            body: Arc::from(format!(r#"{{"role":"user","content":"über the {seq}th time"}}"#)),
        };
        let tail = Tail {
            context,
            kept: vec![item(1), item(4)],
            run: (6..40).map(item).collect(),
            before: Some(Kind::Reasoning),
        };
        Held::new(9, tail)
    }

    fn used(number: usize) -> Held {
        let mut held = held(number);
        held.used();
        held.used();
        held
    }

    #[test]
    fn what_comes_back_is_what_went() {
        let cold = Cold::new(1000, 1 << 20, 1 << 16).unwrap();
        let went = used(1);
        cold.freeze(key(1), &went);
        let (contexts, bytes) = cold.stats();
        assert_eq!(contexts, 1);
        assert!(bytes < went.bytes() / 2, "{bytes} of {}", went.bytes());
        let back = cold.thaw(&key(1)).unwrap();
        assert_eq!(format!("{:?}", back.parts()), format!("{:?}", went.parts()));
        assert_eq!(back.bytes(), went.bytes());
        // To one of those who ask.
        assert!(cold.thaw(&key(1)).is_none() && cold.stats() == (0, 0));
    }

    // Z2
    #[test]
    fn what_nobody_came_back_for_is_not_worth_it() {
        let cold = Cold::new(10, 1 << 20, 1 << 16).unwrap();
        let mut once = held(1);
        once.used();
        cold.freeze(key(1), &once);
        assert_eq!(cold.stats().0, 0);
    }

    #[test]
    fn it_is_bounded_and_forgets() {
        let cold = Cold::new(100, 40 << 10, 5 << 10).unwrap();
        for number in 0..100 {
            cold.freeze(key(number), &used(number));
            let (contexts, bytes) = cold.stats();
            assert!(contexts <= 100 && bytes <= 40 << 10);
        }
        let (contexts, _) = cold.stats();
        assert!(contexts > 5, "{contexts}");
        for number in 0..100 {
            cold.forget(&key(number));
        }
        assert_eq!(cold.stats(), (0, 0));
    }
}
