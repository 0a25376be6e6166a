//! The end of one context, as far as it is held in the process: enough to answer most windows and pages without asking
//! a store. Pure bookkeeping, no I/O.
//!
//! - **H1** `run` is the newest items of `context`, without a gap, and `kept` every instruction and pinned item before
//!   it. What is answered from it is what the store would answer at that version.
//! - **H2** It moves forward only by items that follow immediately, on the same stream.
//! - **H3** It belongs to the history of the store that it was read in, and is of no use in another one.

use std::collections::VecDeque;

use crate::item::Kind;
use crate::store::{ItemPage, ItemQuery, Order, Tail, TailQuery};
use crate::{Context, Item, Seq, Version};

/// What an item costs beside its body, in bytes: the struct, its links and the body's own header.
const ITEM_OVERHEAD: u64 = 256;

#[derive(Clone, Debug)]
pub(super) struct Held {
    history: u64,
    context: Context,
    kept: Vec<Item>,
    /// A queue: one that is as large as it may be loses its oldest item with each append.
    run: VecDeque<Item>,
    /// What comes before the run; `None` if the run is all there is.
    before: Option<Kind>,
    bytes: u64,
    /// How often it was asked for, as far as that is counted.
    uses: u8,
}

/// All that a [`Held`] is made of.
#[derive(Debug)]
pub(super) struct Parts<'held> {
    pub(super) history: u64,
    pub(super) context: &'held Context,
    pub(super) kept: &'held [Item],
    pub(super) run: &'held VecDeque<Item>,
    pub(super) before: Option<Kind>,
}

impl Held {
    /// `history` is the store's from before the tail was read.
    pub(super) fn new(history: u64, tail: Tail) -> Self {
        let bytes = tail.kept.iter().chain(&tail.run).map(size).sum();
        Self {
            history,
            context: tail.context,
            kept: tail.kept,
            run: tail.run.into(),
            before: tail.before,
            bytes,
            uses: 0,
        }
    }

    /// Of the [`Parts`] of one that was held before, for somebody who asks.
    pub(super) fn thawed(
        history: u64,
        context: Context,
        kept: Vec<Item>,
        run: Vec<Item>,
        before: Option<Kind>,
    ) -> Self {
        let tail = Tail {
            context,
            kept,
            run,
            before,
        };
        Self {
            uses: 1,
            ..Self::new(history, tail)
        }
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            history: self.history,
            context: &self.context,
            kept: &self.kept,
            run: &self.run,
            before: self.before,
        }
    }

    /// Somebody has asked for it.
    pub(super) fn used(&mut self) {
        self.uses = self.uses.saturating_add(1);
    }

    /// Whether somebody has come back for it.
    pub(super) fn is_in_use(&self) -> bool {
        self.uses > 1
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// H3.
    pub(super) fn history(&self) -> u64 {
        self.history
    }

    /// Orders what was held of one context. Streams are numbered upwards, and a context that was forgotten altogether and
    /// made anew begins with version 1 again, but on a later stream.
    pub(super) fn age(&self) -> (u64, Version) {
        (self.context.stream, self.context.version)
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The head has changed and the items have not.
    pub(super) fn set_context(&mut self, context: &Context) {
        self.context = context.clone();
    }

    /// H2. Whether the items followed immediately.
    pub(super) fn extend(&mut self, context: &Context, items: impl IntoIterator<Item = Item>) -> bool {
        let mut next = self.context.next_seq;
        for item in items {
            if item.seq != next {
                break;
            }
            next += 1;
            self.bytes += size(&item);
            self.run.push_back(item);
        }
        let whole = context.stream == self.context.stream && next == context.next_seq;
        self.set_context(context);
        whole
    }

    /// Lets go of the oldest items of the run until it takes at most so many bytes. Instructions and pinned items stay.
    pub(super) fn trim(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max
            && let Some(item) = self.run.pop_front()
        {
            self.before = Some(item.traits.kind);
            if item.traits.always_kept() {
                self.kept.push(item);
            } else {
                self.bytes -= size(&item);
            }
        }
    }

    /// What the store would answer, if enough is held.
    pub(super) fn tail(&self, query: &TailQuery) -> Option<Tail> {
        let tokens_max = query.tokens_max(&self.context);
        let (mut tokens, mut bytes) = (0_u64, 0_u64);
        let mut first = self.run.len();
        let mut before = self.before;
        for (index, item) in self.run.iter().enumerate().rev() {
            tokens += u64::from(item.tokens);
            bytes += item.body.len() as u64;
            let fits = tokens <= tokens_max
                && bytes <= query.bytes_max
                && self.run.len() - first < query.items_max as usize;
            if !fits {
                before = Some(item.traits.kind);
                break;
            }
            first = index;
        }
        // Whether what comes before the run would have fitted is not known here.
        if first == 0 && self.before.is_some() {
            return None;
        }
        let older = self.run.range(..first);
        let kept: Vec<Item> = self
            .kept
            .iter()
            .chain(older.filter(|item| item.traits.always_kept()))
            .cloned()
            .collect();
        let kept_bytes: u64 = kept.iter().map(|item| item.body.len() as u64).sum();
        // The store says what is wrong with more.
        let fits = kept.len() < query.items_max as usize && kept_bytes <= query.bytes_max;
        fits.then(|| Tail {
            context: self.context.clone(),
            kept,
            run: self.run.range(first..).cloned().collect(),
            before,
        })
    }

    /// What the store would answer, if enough is held.
    pub(super) fn page(&self, query: &ItemQuery) -> Option<ItemPage> {
        let first = self.context.first_seq.max(query.after.saturating_add(1));
        let last = self
            .context
            .next_seq
            .saturating_sub(1)
            .min(query.before.saturating_sub(1));
        let from = self.run.partition_point(|item| item.seq < first);
        let to = self.run.partition_point(|item| item.seq <= last);
        let range = self.run.range(from..to.max(from));
        // A stream may have gaps, so that only its beginning, or an item at or before `first`, proves that nothing of
        // the range is missing.
        let reaches = self.before.is_none() || self.oldest().is_some_and(|oldest| oldest <= first);
        let mut page = ItemPage {
            version: self.context.version,
            items: Vec::new(),
            more: false,
        };
        match query.order {
            Order::Ascending if !reaches => return None,
            Order::Ascending => fill(&mut page, query, range),
            Order::Descending => fill(&mut page, query, range.rev()),
        }
        (reaches || page.more).then_some(page)
    }

    /// What a fork of this stream holds of it: the bodies are shared. Only if everything is held, and the fork's own numbers
    /// say that it is what was shared: in one stream a seq never names another item, but some may have been dropped since.
    /// A context that was deleted and created anew has another stream, and its seqs begin again.
    pub(super) fn forked(&self, stream: u64, fork: &Context) -> Option<Self> {
        let shared = |item: &&Item| item.seq < fork.next_seq;
        let kept: Vec<Item> = self.kept.iter().filter(shared).cloned().collect();
        let run: Vec<Item> = self.run.iter().filter(shared).cloned().collect();
        let whole = self.context.stream == stream
            && self.before.is_none()
            && self.context.next_seq >= fork.next_seq
            && (kept.len() + run.len()) as u64 == fork.item_count;
        whole.then(|| {
            let tail = Tail {
                context: fork.clone(),
                kept,
                run,
                before: None,
            };
            Self::new(self.history, tail)
        })
    }

    fn oldest(&self) -> Option<Seq> {
        self.run.front().map(|item| item.seq)
    }
}

/// Bytes of an item, its bookkeeping included.
pub(super) fn size(item: &Item) -> u64 {
    item.body.len() as u64 + ITEM_OVERHEAD
}

fn fill<'item>(page: &mut ItemPage, query: &ItemQuery, items: impl Iterator<Item = &'item Item>) {
    let mut bytes = 0;
    for item in items {
        bytes += item.body.len() as u64;
        if page.items.len() >= query.limit as usize || (bytes > query.bytes_max && !page.items.is_empty()) {
            page.more = true;
            return;
        }
        page.items.push(item.clone());
    }
}
