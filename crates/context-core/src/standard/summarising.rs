//! Summaries: one that was kept, one that goes on from one that was kept, or one from the beginning.

use super::StandardContextManager;
use crate::Context;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::store::SeqRange;
use crate::summarising::{self, Most, Read, off_the_reactor};
use crate::summary::{self, Kind, PutSummary, Summary, SummaryRequest};
use crate::window::WindowRequest;

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
        let same = kept.iter().filter(|kept| kept.range == range);
        let summary = match same.max_by_key(|kept| kept.kind) {
            Some(kept) => kept.clone(),
            None => self.extracted(key, &context, range, &kept).await?,
        };
        if summary.kind == Kind::Extractive {
            self.background.improve(key, range);
        }
        Ok((context, Some(summary)))
    }

    /// Makes the extractive summary of a range, and keeps it.
    async fn extracted(
        &self,
        key: &ContextKey,
        context: &Context,
        range: SeqRange,
        kept: &[Summary],
    ) -> Result<Summary> {
        let store = self.store.as_ref();
        let before = summarising::beginning(kept, range).cloned();
        let after = before
            .as_ref()
            .map_or(range.first - 1, |before| before.range.last);
        let items = summarising::read(store, key, after, range.last, Most::SUMMARY).await?;
        refuse_too_much(&items)?;
        if items.items.is_empty() && before.is_none() {
            return Err(summarising::nothing(range));
        }
        let made = summarising::extended(context, range, before, items).await?;
        Ok(summarising::keep(store, key, context, made).await)
    }

    /// Keeps a client's summary.
    pub(super) async fn supplied(&self, key: &ContextKey, put: PutSummary) -> Result<(Context, Summary)> {
        let context = self.store.head(key).await?;
        put.validate(&context)?;
        context.tokenizer.require()?;
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
}

/// One text is made of as much as a window may have.
fn refuse_too_much(read: &Read) -> Result<()> {
    let most = Most::SUMMARY;
    let items = read.items.len() as u64;
    let (what, actual, limit) = if items > most.items {
        ("what there is to summarise in items", items, most.items)
    } else if read.bytes > most.bytes {
        ("what there is to summarise in bytes", read.bytes, most.bytes)
    } else {
        return Ok(());
    };
    Err(Error::TooLarge {
        what: format!("{what} (ask for its beginning first: the rest goes on from there)").into(),
        actual,
        limit,
    })
}
