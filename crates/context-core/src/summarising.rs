//! Extractive summaries of what a store has: read, made, kept.

use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::store::{ContextStore, ItemQuery, Order, SeqRange};
use crate::summary::{self, Kind, Summary};
use crate::{Context, Item, Seq, window};

/// Text over this many bytes is worked on off the reactor; counting runs at a few megabytes a second.
const INLINE_BYTES_MAX: usize = 8 * 1024;
/// Items of one page of what is read.
const PAGE_ITEMS: u32 = 1000;
/// Bytes of one page.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// How much is read for one text, and one page more at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Most {
    /// As much as a window may have: for who asked for a summary, and for each step in the background.
    pub(crate) const SUMMARY: Self = Self {
        items: window::ITEMS_MAX as u64,
        bytes: window::BYTES_MAX,
    };
    /// For who asked for a window, which should not wait long for its summary.
    pub(crate) const WINDOW: Self = Self {
        items: 2000,
        bytes: 1024 * 1024,
    };
}

/// The items of a range, from its beginning.
pub(crate) struct Read {
    pub(crate) items: Vec<Item>,
    pub(crate) bytes: u64,
    /// Whether it ends before the range does.
    pub(crate) more: bool,
}

/// The items after a seq up to another, until there are more than `most`.
pub(crate) async fn read(
    store: &dyn ContextStore,
    key: &ContextKey,
    after: Seq,
    last: Seq,
    most: Most,
) -> Result<Read> {
    let mut read = Read {
        items: Vec::new(),
        bytes: 0,
        more: false,
    };
    loop {
        let query = ItemQuery {
            after: read.items.last().map_or(after, |item| item.seq),
            before: last.saturating_add(1),
            order: Order::Ascending,
            limit: PAGE_ITEMS,
            bytes_max: PAGE_BYTES.min(most.bytes),
        };
        let page = store.items(key, query).await?;
        read.bytes += page.items.iter().map(|item| item.body.len() as u64).sum::<u64>();
        read.items.extend(page.items);
        read.more = page.more;
        if !page.more || read.items.len() as u64 > most.items || read.bytes > most.bytes {
            return Ok(read);
        }
    }
}

/// The extractive summary that goes furthest into a range from its beginning, and ends before it does (X4).
pub(crate) fn beginning(kept: &[Summary], range: SeqRange) -> Option<&Summary> {
    kept.iter()
        .filter(|one| one.kind == Kind::Extractive)
        .filter(|one| one.range.first == range.first && one.range.last < range.last)
        .max_by_key(|one| one.range.last)
}

/// The extractive summary of a range, of one of its beginning and the items after that.
pub(crate) async fn extended(
    context: &Context,
    range: SeqRange,
    before: Option<Summary>,
    read: Read,
) -> Result<Summary> {
    let (tokenizer, changed) = (context.tokenizer, context.updated_at);
    let bytes = usize::try_from(read.bytes).unwrap_or(usize::MAX);
    off_the_reactor(bytes, move || {
        summary::extended(range, before.as_ref(), &read.items, tokenizer, changed)
    })
    .await
}

/// The extractive summary of a range of any length, in as many steps as it takes. For the background. Not kept.
pub(crate) async fn stepwise(
    store: &dyn ContextStore,
    key: &ContextKey,
    context: &Context,
    range: SeqRange,
    kept: &[Summary],
) -> Result<Summary> {
    let mut before = beginning(kept, range).cloned();
    loop {
        let after = before
            .as_ref()
            .map_or(range.first - 1, |before| before.range.last);
        let items = read(store, key, after, range.last, Most::SUMMARY).await?;
        if items.items.is_empty() && before.is_none() {
            return Err(nothing(range));
        }
        let more = items.more;
        let reached = items.items.last().map_or(range.last, |item| item.seq);
        let step = SeqRange {
            first: range.first,
            last: if more { reached } else { range.last },
        };
        let made = extended(context, step, before, items).await?;
        if !more {
            return Ok(made);
        }
        before = Some(made);
    }
}

/// Keeps what was made, or answers the one that is there. What can't be kept is made again next time.
pub(crate) async fn keep(
    store: &dyn ContextStore,
    key: &ContextKey,
    context: &Context,
    made: Summary,
) -> Summary {
    match store.keep_summary(key, made.clone(), context.stream).await {
        Ok(kept) => kept.unwrap_or(made),
        Err(error) => {
            tracing::debug!(%error, "a summary was not kept");
            made
        }
    }
}

/// There is nothing that a summary of this range could be made of.
pub(crate) fn nothing(range: SeqRange) -> Error {
    let problem = format!("to last_seq, {} to {}, has no items", range.first, range.last);
    crate::error::Invalid::new("first_seq", problem)
        .hint("they were truncated or replaced before anybody summarised them")
        .into()
}

/// Runs what works on so many bytes of text, where it holds nobody up.
pub(crate) async fn off_the_reactor<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal(format!("working on a text: {error}")))
}
