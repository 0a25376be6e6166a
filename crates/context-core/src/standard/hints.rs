//! Which tokenizer a context counts with, as far as it was seen lately: an append is counted before the store is asked,
//! and a wrong guess costs a refused write. Only a guess: the store refuses counts of another tokenizer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::ContextKey;
use crate::{Named, Tokenizer};

/// Contexts that are remembered; each has one place, which a later one takes. 32 KiB.
const PLACES: usize = 4096;
/// Bits of a slot that hold the tokenizer; the others are the context's.
const TOKENIZER: u64 = 0xFF;

#[derive(Debug)]
pub(super) struct Hints {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Hints {
    pub(super) fn new() -> Self {
        Self {
            slots: std::iter::repeat_with(AtomicU64::default).take(PLACES).collect(),
            hasher: RandomState::new(),
        }
    }

    /// What was seen, else the default, which nearly all contexts have.
    pub(super) fn guess(&self, key: &ContextKey) -> Tokenizer {
        let (slot, mark) = self.place(key);
        let held = slot.map_or(0, |slot| slot.load(Ordering::Relaxed));
        let known = (held & !TOKENIZER == mark && held != 0)
            .then(|| usize::try_from(held & TOKENIZER).ok())
            .flatten();
        known.and_then(numbered).unwrap_or_default()
    }

    pub(super) fn learn(&self, key: &ContextKey, tokenizer: Tokenizer) {
        if tokenizer == self.guess(key) {
            return;
        }
        if let ((Some(slot), mark), Some(number)) = (self.place(key), number(tokenizer)) {
            slot.store(mark | number as u64, Ordering::Relaxed);
        }
    }

    fn place(&self, key: &ContextKey) -> (Option<&AtomicU64>, u64) {
        let hash = self.hasher.hash_one(key);
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        (self.slots.get(place), hash & !TOKENIZER)
    }
}

/// Those that are built in, then those that the operator has named, as far as a slot has room.
fn number(tokenizer: Tokenizer) -> Option<usize> {
    let number = match tokenizer {
        Tokenizer::Named(named) => Tokenizer::ALL.len() + usize::from(named.number()),
        known => Tokenizer::ALL.iter().position(|other| *other == known)?,
    };
    (number as u64 <= TOKENIZER).then_some(number)
}

fn numbered(number: usize) -> Option<Tokenizer> {
    match number.checked_sub(Tokenizer::ALL.len()) {
        None => Tokenizer::ALL.get(number).copied(),
        Some(named) => Named::numbered(u8::try_from(named).ok()?).map(Tokenizer::Named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ContextId, TenantId};

    #[test]
    fn what_was_learned_is_guessed() {
        let hints = Hints::new();
        let key = |id: usize| {
            ContextKey::new(
                TenantId::parse("acme").unwrap(),
                ContextId::parse(&format!("c{id}")).unwrap(),
            )
        };
        assert_eq!(hints.guess(&key(0)), Tokenizer::default());
        for (id, tokenizer) in Tokenizer::ALL.into_iter().enumerate() {
            hints.learn(&key(id), tokenizer);
            assert_eq!(hints.guess(&key(id)), tokenizer);
        }
        hints.learn(&key(1), Tokenizer::default());
        assert_eq!(hints.guess(&key(1)), Tokenizer::default());
    }
}
