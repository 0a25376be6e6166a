//! Windows with a summary of what they leave out (W9).

use super::StandardContextManager;
use crate::Context;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::session::Session;
use crate::store::{SeqRange, Tail};
use crate::summarising::{self, Most, off_the_reactor};
use crate::summary::{Kind, Summary};
use crate::window::{self, Cut, Reason, Window, WindowRequest};

/// How a summary is come by.
enum Found {
    Summary(Summary),
    /// It is being made, by somebody else.
    Pending,
    /// There is nothing to say.
    Nothing,
}

impl StandardContextManager {
    /// A window, with a summary of what it leaves out if that was asked for.
    pub(super) async fn shown(&self, key: &ContextKey, request: WindowRequest) -> Result<Window> {
        if !request.summary {
            return self.assemble(key, request).await;
        }
        let tail = self.store.tail(key, request.tail_query()).await?;
        let context = tail.context.clone();
        let budget = request.budget(&context);
        let allotted = window::allotment(budget);
        if context.tokens > budget {
            let cut = with_room(tail, budget, allotted, request.cut);
            if let Some(cut) = cut {
                return self.placed(key, &context, cut, allotted).await;
            }
            let window = self.assemble(key, request).await?;
            return Ok(window.without_summary(Reason::SummaryLeftOut));
        }
        let window = window::assemble(tail, budget, request.cut)?;
        // Of more items than a window has.
        Ok(match window.omitted {
            None => window,
            Some(_) => window.without_summary(Reason::SummaryLeftOut),
        })
    }

    /// Puts the summary into a window that has room for it.
    async fn placed(
        &self,
        key: &ContextKey,
        context: &Context,
        (mut window, whole): (Window, bool),
        allotted: u64,
    ) -> Result<Window> {
        let Some(omitted) = window.omitted.filter(|_| whole) else {
            return Ok(window.without_summary(Reason::SummaryLeftOut));
        };
        let range = SeqRange {
            first: omitted.first_seq,
            last: omitted.last_seq,
        };
        let summary = match self.found(key, context, range).await {
            Ok(Found::Summary(summary)) => summary,
            Ok(Found::Pending) => return Ok(window.without_summary(Reason::SummaryPending)),
            Ok(Found::Nothing) => return Ok(window.without_summary(Reason::SummaryLeftOut)),
            // The window itself is there, and who asks again may get more.
            Err(error) => {
                tracing::debug!(%error, "a window was answered without its summary");
                return Ok(window.without_summary(Reason::SummaryPending));
            }
        };
        if summary.kind == Kind::Extractive {
            self.background.improve(key, range);
        }
        let after = window.items.iter().find(|item| item.seq > range.last);
        let created_at = after.map_or(context.created_at, |item| item.created_at);
        let tokenizer = context.tokenizer;
        let (summary, item) = off_the_reactor(summary.text.len(), move || {
            let item = window::summary_item(&summary, allotted, tokenizer, created_at);
            (summary, item)
        })
        .await?;
        match item {
            Some(item) => {
                window.place(context, &summary, item);
                Ok(window)
            }
            None => Ok(window.without_summary(Reason::SummaryLeftOut)),
        }
    }

    /// The best summary of a range that was kept, else the extractive one, if it takes no longer than a read may.
    async fn found(&self, key: &ContextKey, context: &Context, range: SeqRange) -> Result<Found> {
        let store = self.store.as_ref();
        // A summary has no version: only whoever takes the writes knows the newest one. Without him, what is seen is.
        let kept = match Session::strong(store.summaries_of(key, range)).await {
            Err(Error::Unavailable { .. } | Error::Overloaded { .. }) => {
                store.summaries_of(key, range).await?
            }
            kept => kept?,
        };
        if let Some(best) = kept.into_iter().max_by_key(|one| one.kind) {
            return Ok(Found::Summary(best));
        }
        let kept = store.summaries(key).await?;
        let before = summarising::beginning(&kept, range).cloned();
        let after = before
            .as_ref()
            .map_or(range.first - 1, |before| before.range.last);
        // Nobody may answer who has not got as far as the window: what is made of less would be kept.
        let read = summarising::read(store, key, after, range.last, Most::WINDOW);
        let items = Session::at_least(key, context.version, read).await?;
        if items.more {
            self.background.make(key, range);
            return Ok(Found::Pending);
        }
        if items.items.is_empty() && before.is_none() {
            return Ok(Found::Nothing);
        }
        let made = summarising::extended(context, range, before, items).await?;
        Ok(Found::Summary(summarising::keep(store, key, context, made).await))
    }
}

/// The window that leaves room for a summary, and whether it does: if the smallest one leaves too little, that one.
/// `None` if more has to be read to say.
fn with_room(tail: Tail, budget: u64, allotted: u64, cut: Cut) -> Option<(Window, bool)> {
    match window::assemble(tail.clone(), budget - allotted, cut) {
        Ok(window) => Some((window, true)),
        Err(Error::BudgetTooSmall { minimum, .. }) if minimum <= budget => {
            let window = window::assemble(tail, minimum, cut).ok()?;
            Some((window, false))
        }
        Err(_) => None,
    }
}
