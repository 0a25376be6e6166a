//! Appends: what is known already, what is added, and what is remembered of it.

use std::sync::Arc;

use super::{Entry, Named};
use crate::error::{Error, Result};
use crate::store::{Append, Appended};
use crate::{Item, NewItem, Timestamp, json};

pub(super) fn before_write(entry: &Entry, append: &Append) -> Result<Option<Appended>> {
    if append.tokenizer != entry.context.tokenizer {
        return Err(Error::TokenizerMismatch {
            actual: entry.context.tokenizer,
        });
    }
    match append
        .idempotency
        .as_ref()
        .and_then(|idempotency| Some((idempotency, entry.keys.get(&idempotency.key)?)))
    {
        Some((idempotency, (fingerprint, ..))) if *fingerprint != idempotency.fingerprint => {
            Err(Error::IdempotencyKeyReused)
        }
        Some((_, (_, appended, _))) => Ok(Some(Appended {
            replayed: true,
            at: None,
            ..*appended
        })),
        None => Ok(None),
    }
}

pub(super) fn known(entry: &Entry, item: &NewItem) -> Result<Option<Appended>> {
    let Some(Named {
        item: old,
        purged,
        appended,
    }) = item
        .traits
        .client_id
        .as_ref()
        .and_then(|id| entry.client_ids.get(id))
    else {
        return Ok(None);
    };
    if !purged && json::parse_strict(&old.body) != json::parse_strict(&item.body) {
        let client_id = item
            .traits
            .client_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        return Err(Error::ClientIdReused {
            client_id,
            seq: old.seq,
        });
    }
    Ok(Some(Appended {
        first_seq: old.seq,
        last_seq: old.seq,
        tokens: u64::from(old.tokens),
        replayed: true,
        at: None,
        ..*appended
    }))
}

pub(super) fn join(all: Appended, one: Appended) -> Appended {
    Appended {
        first_seq: all.first_seq.min(one.first_seq),
        last_seq: all.last_seq.max(one.last_seq),
        tokens: all.tokens + one.tokens,
        version: all.version.max(one.version),
        over_budget: if one.version >= all.version {
            one.over_budget
        } else {
            all.over_budget
        },
        replayed: all.replayed && one.replayed,
        at: one.at.or(all.at),
    }
}

pub(super) fn add(entry: &mut Entry, new: &[&NewItem], now: Timestamp) -> Appended {
    let first_seq = entry.context.next_seq;
    let mut items = std::mem::take(&mut entry.items);
    for (item, seq) in new.iter().zip(first_seq..) {
        items.push(Item {
            seq,
            tokens: item.tokens,
            created_at: now,
            traits: item.traits.clone(),
            body: Arc::from(&*item.body),
        });
    }
    entry.context.next_seq += new.len() as u64;
    entry.context.version += 1;
    entry.context.updated_at = entry.context.updated_at.max(now);
    entry.set_items(items);
    let appended = Appended {
        first_seq,
        last_seq: entry.context.next_seq - 1,
        tokens: new.iter().map(|item| u64::from(item.tokens)).sum(),
        version: entry.context.version,
        over_budget: entry.context.over_budget(),
        replayed: false,
        at: Some(now),
    };
    for item in &entry.items[entry.items.len() - new.len()..] {
        if let Some(client_id) = &item.traits.client_id {
            let named = Named {
                item: item.clone(),
                purged: false,
                appended,
            };
            entry.client_ids.insert(client_id.clone(), named);
        }
    }
    appended
}

pub(super) fn remember(entry: &mut Entry, append: &Append, appended: Appended, now: Timestamp) {
    if let Some(idempotency) = &append.idempotency {
        entry
            .keys
            .insert(idempotency.key.clone(), (idempotency.fingerprint, appended, now));
    }
}
