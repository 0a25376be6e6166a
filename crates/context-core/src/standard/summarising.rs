//! Summaries: one that was kept, one that goes on from one that was kept, or one from the beginning.

use super::{StandardContextManager, off_the_reactor};
use crate::error::{Error, Invalid, Result};
use crate::id::ContextKey;
use crate::store::{ItemQuery, Order, SeqRange};
use crate::summary::{self, Kind, PutSummary, Summary, SummaryRequest};
use crate::window::{self, WindowRequest};
use crate::{Context, Item, Seq};

/// Items of one page of what is read.
const PAGE_ITEMS: u32 = 1000;
/// Bytes of one page.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

impl StandardContextManager {
    /// The summary of a range; `None` if nothing was asked for and the window leaves nothing out.
    pub(super) async fn summarised(
        &self,
        key: &ContextKey,
        request: SummaryRequest,
    ) -> Result<(Context, Option<Summary>)> {
        let context = self.store.head(key).await?;
        let range = match request.range {
            Some(range) => range,
            None => match self.omitted(key).await? {
                Some(range) => range,
                None => return Ok((context, None)),
            },
        };
        summary::check(range, &context)?;
        let kept = self.store.summaries(key).await?;
        // A client's own is the last of the kinds, and is preferred.
        let same = kept.iter().filter(|kept| kept.range == range);
        if let Some(kept) = same.max_by_key(|kept| kept.kind) {
            return Ok((context, Some(kept.clone())));
        }
        let before = kept
            .into_iter()
            .filter(|kept| kept.kind == Kind::Extractive)
            .filter(|kept| kept.range.first == range.first && kept.range.last < range.last)
            .max_by_key(|kept| kept.range.last);
        let after = before
            .as_ref()
            .map_or(range.first - 1, |before| before.range.last);
        let items = self.read_range(key, after, range).await?;
        if items.is_empty() && before.is_none() {
            let problem = format!("to last_seq, {} to {}, has no items", range.first, range.last);
            return Err(Invalid::new("first_seq", problem)
                .hint("they were truncated or replaced before anybody summarised them")
                .into());
        }
        let (tokenizer, changed) = (context.tokenizer, context.updated_at);
        let bytes = items.iter().map(|item| item.body.len()).sum();
        let made = off_the_reactor(bytes, move || {
            summary::extended(range, before.as_ref(), &items, tokenizer, changed)
        })
        .await?;
        // A summary that could not be kept is made again.
        let kept = self.store.put_summary(key, made.clone()).await;
        let kept = kept.unwrap_or_else(|error| {
            tracing::debug!(%error, "a summary was not kept");
            made
        });
        Ok((context, Some(kept)))
    }

    /// Keeps a client's summary.
    pub(super) async fn supplied(&self, key: &ContextKey, put: PutSummary) -> Result<(Context, Summary)> {
        let context = self.store.head(key).await?;
        put.validate(&context)?;
        let (tokenizer, changed) = (context.tokenizer, context.updated_at);
        let made = off_the_reactor(put.text.len(), move || Summary {
            kind: Kind::External,
            range: put.range,
            tokens: tokenizer.count(&put.text),
            source: summary::text_hash(&put.text),
            text: put.text,
            created_at: changed,
        })
        .await?;
        let kept = self.store.put_summary(key, made).await?;
        Ok((context, kept))
    }

    /// What the context's own window leaves out.
    async fn omitted(&self, key: &ContextKey) -> Result<Option<SeqRange>> {
        let window = self.assemble(key, WindowRequest::default()).await?;
        Ok(window.omitted.map(|omitted| SeqRange {
            first: omitted.first_seq,
            last: omitted.last_seq,
        }))
    }

    /// The items of a range after a seq.
    ///
    /// # Errors
    /// `TooLarge` for more than a window may have.
    async fn read_range(&self, key: &ContextKey, after: Seq, range: SeqRange) -> Result<Vec<Item>> {
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        loop {
            let query = ItemQuery {
                after: items.last().map_or(after, |item| item.seq),
                before: range.last + 1,
                order: Order::Ascending,
                limit: PAGE_ITEMS,
                bytes_max: PAGE_BYTES,
            };
            let page = self.store.items(key, query).await?;
            bytes += page.items.iter().map(|item| item.body.len() as u64).sum::<u64>();
            items.extend(page.items);
            let most = u64::from(window::ITEMS_MAX);
            let (what, actual, limit) = if items.len() as u64 > most {
                ("what there is to summarise in items", items.len() as u64, most)
            } else if bytes > window::BYTES_MAX {
                ("what there is to summarise in bytes", bytes, window::BYTES_MAX)
            } else if page.more {
                continue;
            } else {
                return Ok(items);
            };
            return Err(Error::TooLarge {
                what: format!("{what} (ask for its beginning first: the rest goes on from there)").into(),
                actual,
                limit,
            });
        }
    }
}
