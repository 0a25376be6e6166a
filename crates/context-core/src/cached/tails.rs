//! The ends of contexts that are held in the process. Bodies never change, so only the head decides whether what is
//! held is still the end: a head of the same stream is one whose older items are the same (G3).
//!
//! What there is no room for any more goes on [compressed](super::cold).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Gate, MutexGuard as Turn};

use super::bounded::{Bounded, Weigh, bounded};
use super::cold::Cold;
use super::held::Held;
use crate::id::ContextKey;
use crate::{Context, Item, Seq};

/// Gates that loads of one context wait at, one for the other. Contexts share them.
const GATES: usize = 1024;
/// Longest wait at a gate: a load that hangs must not hold up the contexts that share its gate.
const GATE_WAIT: Duration = Duration::from_millis(100);
/// Room of a slot beside what is held.
const SLOT_OVERHEAD: u64 = 512;

/// One context's end, changed in place. Its weight stays what it was when it came.
#[derive(Clone, Debug)]
struct Slot {
    held: Arc<Mutex<Held>>,
    weight: u64,
}

impl Slot {
    fn new(held: Held) -> Self {
        Self {
            weight: held.bytes() + SLOT_OVERHEAD,
            held: Arc::new(Mutex::new(held)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Weigh for Slot {
    fn weight(&self) -> u64 {
        self.weight
    }
}

/// How what is held stands to a head.
pub(super) enum Standing<T> {
    /// It is the end of that head, or of a later one; this was made of it.
    Current(T),
    /// It ends before this seq; what follows has to be read.
    Behind(Seq),
    /// Nothing of use is held.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Tails {
    slots: Bounded<ContextKey, Slot>,
    cold: Option<Arc<Cold>>,
    gates: Box<[Gate<()>]>,
    hasher: RandomState,
    item_max: u64,
}

impl Tails {
    /// Holds at most so many contexts and bytes, and none of more than `item_max` bytes; so many percent of the room for those
    /// that are compressed.
    pub(super) fn new(contexts_max: u64, bytes_max: u64, item_max: u64, cold_percent: u8) -> Option<Self> {
        let percent = u64::from(cold_percent.min(90));
        let part = |of: u64| of / 100 * percent + of % 100 * percent / 100;
        let (cold_contexts, cold_bytes) = (part(contexts_max), part(bytes_max));
        let item_max = item_max.min(bytes_max - cold_bytes);
        let cold = (cold_contexts > 0 && cold_bytes > 0)
            .then(|| Cold::new(cold_contexts, cold_bytes, item_max.min(cold_bytes)))
            .flatten()
            .map(Arc::new);
        Some(Self {
            slots: bounded(contexts_max - cold_contexts, bytes_max - cold_bytes, item_max)?,
            cold,
            gates: std::iter::repeat_with(|| Gate::new(())).take(GATES).collect(),
            hasher: RandomState::new(),
            item_max,
        })
    }

    /// Makes something of what is held, if it is the end of `head` or of a later one. `make` may find that too little
    /// is held.
    pub(super) fn with<T>(
        &self,
        history: u64,
        key: &ContextKey,
        head: &Context,
        make: impl FnOnce(&mut Held) -> Option<T>,
    ) -> Standing<T> {
        let Some(slot) = self.get(key) else {
            return Standing::Nothing;
        };
        let mut held = slot.lock();
        held.used();
        let context = held.context();
        if held.history() != history {
            return Standing::Nothing;
        }
        // Of a context that was forgotten meanwhile and made anew: its versions began again.
        if context.version > head.version && context.stream < head.stream {
            return Standing::Nothing;
        }
        if context.version < head.version {
            if context.stream != head.stream {
                return Standing::Nothing;
            }
            if context.next_seq != head.next_seq {
                return Standing::Behind(context.next_seq);
            }
            held.set_context(head);
        }
        make(&mut held).map_or(Standing::Nothing, Standing::Current)
    }

    /// It is in use, though not by way of this.
    pub(super) fn touch(&self, key: &ContextKey) {
        if let Some(slot) = self.slots.get(key) {
            slot.lock().used();
        }
    }

    /// What is held, whatever its age.
    pub(super) fn any<T>(
        &self,
        history: u64,
        key: &ContextKey,
        make: impl FnOnce(&Held) -> Option<T>,
    ) -> Option<T> {
        let slot = self.get(key)?;
        let held = slot.lock();
        (held.history() == history).then(|| make(&held)).flatten()
    }

    /// Holds this, unless something newer is held already.
    pub(super) fn hold(&self, key: &ContextKey, mut held: Held) {
        if held.bytes() > self.item_max {
            return;
        }
        if let Some(slot) = self.peek(key) {
            let mut there = slot.lock();
            if there.history() == held.history() && there.age() > held.age() {
                return;
            }
            std::mem::swap(&mut *there, &mut held);
            drop(there);
            return self.weigh(key, slot);
        }
        self.insert(key, Slot::new(held));
    }

    /// Moves what is held forward to `head`, if it ends where `items` begin.
    pub(super) fn extend(
        &self,
        history: u64,
        key: &ContextKey,
        head: &Context,
        from: Seq,
        items: impl IntoIterator<Item = Item>,
    ) {
        let Some(slot) = self.peek(key) else { return };
        let mut held = slot.lock();
        let fits = held.history() == history
            && held.context().stream == head.stream
            && held.context().next_seq == from
            && held.context().version < head.version;
        if !fits {
            return;
        }
        let whole = held.extend(head, items);
        // What grows with its context lets go of its oldest items before it is too large to be held at all.
        held.trim(self.item_max);
        // Instructions and pinned items alone may be more.
        let fits = held.bytes() <= self.item_max;
        drop(held);
        if whole && fits {
            self.weigh(key, slot);
        } else {
            self.forget(key);
        }
    }

    /// The context is not there any more.
    pub(super) fn forget(&self, key: &ContextKey) {
        self.slots.remove(key);
        if let Some(cold) = &self.cold {
            cold.forget(key);
        }
    }

    pub(super) fn clear(&self) {
        self.slots.clear();
        if let Some(cold) = &self.cold {
            cold.clear();
        }
    }

    /// One load of a context at a time. Who waits long goes ahead by himself.
    pub(super) async fn turn(&self, key: &ContextKey) -> Option<Turn<'_, ()>> {
        let gates = u64::try_from(self.gates.len()).unwrap_or(1);
        let place = usize::try_from(self.hasher.hash_one(key) % gates).unwrap_or(0);
        let gate = self.gates.get(place)?;
        tokio::time::timeout(GATE_WAIT, gate.lock()).await.ok()
    }

    /// Contexts and bytes, of all and of those that are compressed.
    pub(super) fn stats(&self) -> [(u64, u64); 2] {
        let cold = self.cold.as_ref().map_or((0, 0), |cold| cold.stats());
        let all = (self.slots.len() as u64 + cold.0, self.slots.weight() + cold.1);
        [all, cold]
    }

    fn get(&self, key: &ContextKey) -> Option<Slot> {
        self.slots.get(key).or_else(|| self.thawed(key))
    }

    /// As [`Tails::get`], for who only keeps it up to date.
    fn peek(&self, key: &ContextKey) -> Option<Slot> {
        self.slots.peek(key).or_else(|| self.thawed(key))
    }

    fn thawed(&self, key: &ContextKey) -> Option<Slot> {
        let slot = Slot::new(self.cold.as_ref()?.thaw(key)?);
        self.insert(key, slot.clone());
        Some(slot)
    }

    fn insert(&self, key: &ContextKey, slot: Slot) {
        let mut pushed_out = Vec::new();
        let mark = self.cold.as_ref().map(|cold| cold.mark());
        self.slots
            .insert_with_lifecycle(key.clone(), slot, &mut pushed_out);
        let Some((cold, mark)) = self.cold.as_ref().zip(mark) else {
            return;
        };
        for (key, slot) in pushed_out {
            cold.freeze(key, slot.held, mark);
        }
    }

    /// Its weight has changed in place.
    fn weigh(&self, key: &ContextKey, mut slot: Slot) {
        let bytes = slot.lock().bytes();
        slot.weight = bytes + SLOT_OVERHEAD;
        // If it was evicted meanwhile it comes back, which costs nothing but its room.
        self.insert(key, slot);
    }
}
