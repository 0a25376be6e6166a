//! The task that asks for vectors of what has none.
//!
//! - **W1** One batch at a time, a rest after each: searches are not kept waiting by what can wait.
//! - **W2** While the embedder is known to be down nothing is taken on and nobody is asked; after a failure the wait
//!   doubles up to [`PAUSE_MAX`], or is as long as the embedder said.
//! - **W3** A text that is refused by itself gets no vector and is not tried again; of a batch that is refused each text
//!   is tried alone, so that one does not keep the others from theirs. Nothing is given up for an embedder that refuses
//!   whatever it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Claim, Fault, Filled, Inner, Lot, Vector};
use crate::error::Result;

/// First wait after a failure.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest wait, unless the embedder said longer.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// What every embedder takes.
const HARMLESS: &str = "hello";

#[derive(Debug, Default)]
pub(super) struct Counts {
    embedded: AtomicU64,
    empty: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    store_failed: AtomicU64,
    lacking: AtomicU64,
}

/// What became of items since the start, and how many are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedingCounts {
    /// Items that got a vector.
    pub embedded: u64,
    /// Items without text, which need none.
    pub empty: u64,
    /// Items that the embedder refused or had no usable vector for; they get none.
    pub refused: u64,
    /// Batches that the embedder did not answer.
    pub failed: u64,
    /// Batches for which the store did not do its part.
    pub store_failed: u64,
    /// Items that lacked a vector when that was last looked at.
    pub lacking: u64,
}

impl Counts {
    pub(super) fn read(&self) -> FeedingCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FeedingCounts {
            embedded: get(&self.embedded),
            empty: get(&self.empty),
            refused: get(&self.refused),
            failed: get(&self.failed),
            store_failed: get(&self.store_failed),
            lacking: get(&self.lacking),
        }
    }
}

fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

pub(super) async fn run(inner: Arc<Inner>) {
    let mut failures = 0;
    loop {
        let pause = if inner.embedder.is_ready() {
            let outcome = batch(&inner).await;
            failures = if outcome.is_err() { failures + 1 } else { 0 };
            match outcome {
                Ok(Some(_)) => inner.limits.rest,
                Ok(None) => inner.limits.poll,
                Err(error) => {
                    // What lacks a vector stays in the lag, which searches and metrics show.
                    tracing::debug!(%error, failures, "embedding failed; it is tried again");
                    pause(failures).max(error.retry_after().unwrap_or_default())
                }
            }
        } else {
            inner.limits.poll
        };
        tokio::time::sleep(pause).await;
    }
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE_FIRST
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(PAUSE_MAX)
}

/// Embeds one batch; answers how many items got a vector, or nothing if there was none to do.
pub(super) async fn batch(inner: &Inner) -> Result<Option<u64>> {
    let claim = Claim {
        items_max: inner.limits.batch.max(1),
        bytes_max: inner.limits.batch_bytes,
        lease: inner.limits.lease,
    };
    let lots = stored(inner, inner.vectors.claim(&inner.model, claim).await)?;
    let lacking = stored(inner, inner.vectors.lacking(&inner.model).await)?;
    inner.counts.lacking.store(lacking, Ordering::Relaxed);
    if lots.is_empty() {
        return Ok(None);
    }
    match embed(inner, &lots).await {
        Ok(vectors) => fill(inner, lots, vectors).await.map(Some),
        Err(fault) => {
            add(&inner.counts.failed, 1);
            let undone = lots.into_iter().map(Lot::undone).collect();
            stored(inner, inner.vectors.fill(&inner.model, undone).await)?;
            Err(fault.into())
        }
    }
}

fn stored<T>(inner: &Inner, outcome: Result<T>) -> Result<T> {
    if outcome.is_err() {
        add(&inner.counts.store_failed, 1);
    }
    outcome
}

/// A vector for each text that is not empty, in their order; `None` for one that gets none.
async fn embed(inner: &Inner, lots: &[Lot]) -> Result<Vec<Option<Vector>>, Fault> {
    let texts: Vec<&str> = lots
        .iter()
        .flat_map(|lot| &lot.items)
        .map(|item| beginning(&item.text, inner.limits.item_chars))
        .filter(|text| !text.is_empty())
        .collect();
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    match inner.asked(&texts).await {
        Ok(vectors) => Ok(vectors.iter().map(|vector| Vector::rounded(vector)).collect()),
        Err(Fault::Refused(_)) => one_by_one(inner, &texts).await,
        Err(fault) => Err(fault),
    }
}

/// W3. Who refuses everything has another trouble than a text: the wrong model, a field that it does not know.
async fn one_by_one(inner: &Inner, texts: &[&str]) -> Result<Vec<Option<Vector>>, Fault> {
    let mut vectors = Vec::with_capacity(texts.len());
    for text in texts {
        vectors.push(match inner.asked(&[text]).await {
            Ok(vector) => vector.first().and_then(|vector| Vector::rounded(vector)),
            Err(Fault::Refused(_)) => None,
            Err(fault) => return Err(fault),
        });
    }
    if vectors.iter().all(Option::is_none)
        && let Err(Fault::Refused(detail)) = inner.asked(&[HARMLESS]).await
    {
        return Err(Fault::Failed {
            detail: format!("it refuses every text: {detail}"),
            retry_after: None,
        });
    }
    Ok(vectors)
}

async fn fill(inner: &Inner, lots: Vec<Lot>, vectors: Vec<Option<Vector>>) -> Result<u64> {
    let (mut embedded, mut empty, mut refused) = (0, 0, 0);
    let mut vectors = vectors.into_iter();
    let mut filled = Vec::with_capacity(lots.len());
    for lot in lots {
        let mut of_lot = Vec::with_capacity(lot.items.len());
        for item in &lot.items {
            if beginning(&item.text, inner.limits.item_chars).is_empty() {
                empty += 1;
            } else if let Some(vector) = vectors.next().flatten() {
                embedded += 1;
                of_lot.push((item.seq, vector));
            } else {
                refused += 1;
            }
        }
        filled.push(Filled {
            stream: lot.stream,
            news: lot.news,
            through: lot.items.last().map_or(0, |item| item.seq),
            ends: lot.ends,
            vectors: of_lot,
        });
    }
    stored(inner, inner.vectors.fill(&inner.model, filled).await)?;
    add(&inner.counts.embedded, embedded);
    add(&inner.counts.empty, empty);
    add(&inner.counts.refused, refused);
    Ok(embedded)
}

/// The first so many characters of a text, without the white space around it.
fn beginning(text: &str, chars: usize) -> &str {
    let text = text.trim();
    text.char_indices()
        .nth(chars)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(beginning("  äöü ", 2), "äö");
        assert_eq!(beginning("äöü", 3), "äöü");
        assert_eq!(beginning(" \n", 3), "");
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        assert_eq!([1, 2, 3].map(pause), [1, 2, 4].map(Duration::from_secs));
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
