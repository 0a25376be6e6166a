//! Appends to several contexts: checked and counted as one append is, written together.

use std::sync::Arc;

use super::hints::Hints;
use super::{
    COUNTS_MAX, Write, changing, check, count_all, fingerprint, off_the_reactor, refuse_empty, text_bytes,
};
use crate::error::{Error, Result};
use crate::id::{ContextId, TenantId};
use crate::manager::AppendRequest;
use crate::settings::LimitSettings;
use crate::store::{Append, Appended, ContextStore};
use crate::{NewItem, Tokenizer};

/// An append that is to be written, and which of the outcomes is its own.
struct Pending {
    index: usize,
    id: ContextId,
    append: Append,
}

/// Appends; each outcome is its own.
pub(super) async fn append(
    store: &dyn ContextStore,
    hints: &Hints,
    limits: &LimitSettings,
    tenant: &TenantId,
    requests: Vec<(ContextId, AppendRequest)>,
) -> Vec<Result<Appended>> {
    let mut outcomes: Vec<Result<Appended>> = Vec::with_capacity(requests.len());
    let mut pending = Vec::new();
    for (index, (id, request)) in requests.into_iter().enumerate() {
        // Stands until it is written.
        outcomes.push(Err(changing()));
        let guess = hints.guess(&(tenant, &id).into());
        match uncounted(request, guess, limits) {
            Ok(append) => pending.push(Pending { index, id, append }),
            Err(error) => put(&mut outcomes, index, Err(error)),
        }
    }
    for _ in 0..COUNTS_MAX {
        if pending.is_empty() {
            break;
        }
        let indexes: Vec<usize> = pending.iter().map(|one| one.index).collect();
        pending = match count(pending).await {
            Ok(counted) => counted,
            Err(error) => {
                for index in indexes {
                    put(&mut outcomes, index, Err(error.clone()));
                }
                break;
            }
        };
        pending = write(store, hints, tenant, pending, &mut outcomes).await;
    }
    outcomes
}

/// The append that a request asks for, its items not counted yet.
fn uncounted(request: AppendRequest, tokenizer: Tokenizer, limits: &LimitSettings) -> Result<Append> {
    refuse_empty(&request.items)?;
    check(&request.items, limits)?;
    tokenizer.require()?;
    let idempotency = request
        .idempotency_key
        .map(|key| fingerprint(key, Write::Append, &request.items));
    Ok(Append {
        items: request.items.into(),
        tokenizer,
        expected: request.expected,
        idempotency,
    })
}

/// Counts the items of all, each with the tokenizer of its append.
async fn count(mut pending: Vec<Pending>) -> Result<Vec<Pending>> {
    let bytes = pending.iter().map(|one| text_bytes(&one.append.items)).sum();
    off_the_reactor(bytes, move || {
        for Pending { append, .. } in &mut pending {
            let mut items: Vec<NewItem> = append.items.to_vec();
            count_all(&mut items, append.tokenizer);
            append.items = Arc::from(items);
        }
        pending
    })
    .await
}

/// Writes all; answers those whose context counts otherwise, in order.
async fn write(
    store: &dyn ContextStore,
    hints: &Hints,
    tenant: &TenantId,
    pending: Vec<Pending>,
    outcomes: &mut [Result<Appended>],
) -> Vec<Pending> {
    let appends = pending
        .iter()
        .map(|one| (one.id.clone(), one.append.clone()))
        .collect();
    let written = store.append_many(tenant, appends).await;
    let mut left = Vec::new();
    for (mut one, outcome) in pending.into_iter().zip(written) {
        if let Err(Error::TokenizerMismatch { actual }) = outcome {
            if let Err(missing) = actual.require() {
                put(outcomes, one.index, Err(missing));
                continue;
            }
            one.append.tokenizer = actual;
            hints.learn(&(tenant, &one.id).into(), actual);
            left.push(one);
        } else {
            put(outcomes, one.index, outcome);
        }
    }
    left
}

fn put(outcomes: &mut [Result<Appended>], index: usize, outcome: Result<Appended>) {
    if let Some(place) = outcomes.get_mut(index) {
        *place = outcome;
    }
}
