//! Ends of contexts that nobody has asked for lately, compressed. They come here when the memory for ends is full, instead of
//! being forgotten, and go back when somebody asks: microseconds instead of a question to the store.
//!
//! - **Z1** What comes back is what went. Whether it is still the end of its context is then decided as for all that is held.
//! - **Z2** Only what was asked for again since it came is worth the work: a walk over many contexts compresses nothing.
//! - **Z3** A request compresses little: whoever needs the room does it for small ones at once. Large ones wait for a thread
//!   that may be blocked; a few of them, the others are forgotten.
//! - **Z4** What is forgotten while it waits does not come back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::bounded::{Bounded, Weigh, bounded};
use super::held::{Held, Parts};
use crate::id::{ClientId, ContextKey};
use crate::item::{Kind, Links, Role, Traits};
use crate::{Context, Item, Seq, Timestamp};

/// Room of an entry beside its bytes: the head, the key.
const OVERHEAD: u64 = 1024;

/// Bytes of an end from which it is large (Z3).
const LARGE: u64 = 64 << 10;
/// Large ones that may wait. They are counted nowhere while they do.
const WAITING_MAX: usize = 4;

/// What is held compressed.
#[derive(Debug)]
pub(super) struct Cold {
    ends: Bounded<ContextKey, Arc<Frozen>>,
    waiting: Arc<Semaphore>,
    /// How often something was forgotten (Z4).
    forgotten: AtomicU64,
}

impl Cold {
    /// Room for so many contexts and bytes, compressed. What is frozen was at most `item_max` bytes before.
    pub(super) fn new(contexts_max: u64, bytes_max: u64, item_max: u64) -> Option<Self> {
        Some(Self {
            ends: bounded(contexts_max, bytes_max, item_max)?,
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            forgotten: AtomicU64::new(0),
        })
    }

    /// What was pushed out after this and forgotten does not come in.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.forgotten.load(Ordering::Acquire))
    }

    /// Takes in what was pushed out since the mark (Z2), a large one later (Z3).
    pub(super) fn freeze(self: &Arc<Self>, key: ContextKey, held: Arc<Mutex<Held>>, since: Mark) {
        let is_large = {
            let held = held.lock().unwrap_or_else(PoisonError::into_inner);
            if !held.is_in_use() {
                return;
            }
            held.bytes() >= LARGE
        };
        if is_large {
            self.put_off(key, held, since);
        } else {
            self.take_in(&key, &held, since);
        }
    }

    fn put_off(self: &Arc<Self>, key: ContextKey, held: Arc<Mutex<Held>>, since: Mark) {
        let Ok(place) = self.waiting.clone().try_acquire_owned() else {
            return;
        };
        let cold = self.clone();
        let work = move || {
            cold.take_in(&key, &held, since);
            drop(place);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            // There is nobody whom it could hold up.
            Err(_) => work(),
        }
    }

    fn take_in(&self, key: &ContextKey, held: &Mutex<Held>, since: Mark) {
        let frozen = Frozen::of(&held.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(frozen) = frozen else { return };
        self.ends.insert(key.clone(), Arc::new(frozen));
        // Z4. It may have been another that was forgotten; then this one is lost as well, which costs a question to the store.
        if self.mark() != since {
            self.ends.remove(key);
        }
    }

    /// Gives back what was taken in (Z1), to one of those who ask.
    pub(super) fn thaw(&self, key: &ContextKey) -> Option<Held> {
        let (_, frozen) = self.ends.remove(key)?;
        frozen.thaw()
    }

    pub(super) fn forget(&self, key: &ContextKey) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.ends.remove(key);
    }

    pub(super) fn clear(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.ends.clear();
    }

    /// Contexts and bytes.
    pub(super) fn stats(&self) -> (u64, u64) {
        (self.ends.len() as u64, self.ends.weight())
    }
}

/// How often something was forgotten before (Z4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

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
    use std::time::Duration;

    use contextkeep_test_support::eventually_async;

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
        saying(number, "über the time")
    }

    fn saying(number: usize, text: &str) -> Held {
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
            body: Arc::from(format!(r#"{{"role":"user","content":"{text} {seq}"}}"#)),
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
        twice(held(number))
    }

    fn large(number: usize) -> Held {
        let large = twice(saying(number, &"large ".repeat(500)));
        assert!(large.bytes() >= LARGE);
        large
    }

    fn twice(mut held: Held) -> Held {
        held.used();
        held.used();
        held
    }

    /// Room for so many contexts and bytes.
    fn cold(contexts: u64, bytes: u64, item: u64) -> Arc<Cold> {
        Arc::new(Cold::new(contexts, bytes, item).unwrap())
    }

    fn shared(held: Held) -> Arc<Mutex<Held>> {
        Arc::new(Mutex::new(held))
    }

    #[test]
    fn what_comes_back_is_what_went() {
        let cold = cold(1000, 1 << 20, 1 << 16);
        let went = used(1);
        cold.freeze(key(1), shared(used(1)), cold.mark());
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
        let cold = cold(10, 1 << 20, 1 << 16);
        let mut once = held(1);
        once.used();
        cold.freeze(key(1), shared(once), cold.mark());
        assert_eq!(cold.stats().0, 0);
    }

    #[test]
    fn it_is_bounded_and_forgets() {
        let cold = cold(100, 40 << 10, 5 << 10);
        for number in 0..100 {
            cold.freeze(key(number), shared(used(number)), cold.mark());
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

    async fn compressed(cold: &Cold, contexts: u64) {
        let probe = async || (cold.stats().0 == contexts && is_idle(cold)).then_some(());
        eventually_async("they are compressed", Duration::from_secs(30), probe).await;
    }

    fn is_idle(cold: &Cold) -> bool {
        cold.waiting.available_permits() == WAITING_MAX
    }

    // Z3
    #[tokio::test]
    async fn a_large_one_is_compressed_elsewhere_and_a_few_may_wait_for_it() {
        let cold = cold(100, 8 << 20, 1 << 20);
        let ends: Vec<_> = (0..10).map(|number| shared(large(number))).collect();
        // What cannot be looked at is not compressed.
        let busy: Vec<_> = ends.iter().map(|end| end.lock().unwrap()).collect();
        for (number, end) in ends.iter().enumerate() {
            cold.put_off(key(number), Arc::clone(end), cold.mark());
        }
        assert_eq!(cold.stats().0, 0);
        drop(busy);
        compressed(&cold, WAITING_MAX as u64).await;
        let back = cold.thaw(&key(0)).unwrap();
        assert_eq!(
            format!("{:?}", back.parts()),
            format!("{:?}", ends[0].lock().unwrap().parts())
        );
    }

    // Z3
    #[tokio::test]
    async fn only_a_large_one_waits_for_another_thread() {
        let cold = cold(100, 8 << 20, 1 << 20);
        let places = cold
            .waiting
            .acquire_many(u32::try_from(WAITING_MAX).unwrap())
            .await
            .unwrap();
        cold.freeze(key(1), shared(large(1)), cold.mark());
        assert_eq!(cold.stats().0, 0, "there is no place");
        cold.freeze(key(2), shared(used(2)), cold.mark());
        assert_eq!(cold.stats().0, 1, "it needs none");
        drop(places);
        cold.freeze(key(1), shared(large(1)), cold.mark());
        compressed(&cold, 2).await;
    }

    // Z4
    #[tokio::test]
    async fn what_is_forgotten_while_it_waits_does_not_come_back() {
        let cold = cold(100, 8 << 20, 1 << 20);
        let end = shared(large(1));
        let busy = end.lock().unwrap();
        cold.put_off(key(1), Arc::clone(&end), cold.mark());
        cold.forget(&key(1));
        drop(busy);
        compressed(&cold, 0).await;
        // Nor what was forgotten between its eviction and now, whatever its size.
        let mark = cold.mark();
        cold.clear();
        cold.freeze(key(2), shared(used(2)), mark);
        assert_eq!(cold.stats(), (0, 0));
    }
}
