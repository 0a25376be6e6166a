//! Truncation: what to drop is chosen by reading, and written on condition that nothing has changed since.

use std::time::Duration;

use super::{StandardContextManager, off_the_reactor};
use crate::error::{Error, Invalid, Result};
use crate::id::ContextKey;
use crate::item::searchable_text;
use crate::manager::{TruncateRequest, Truncation};
use crate::store::{ContextStore, ItemQuery, Order};
use crate::truncate::{self, Plan, Strategy, Wanted};
use crate::window::{self, Cut, Window, WindowRequest};
use crate::{Context, Item, Seq, Version};

/// Items of one page of what is read to choose from.
const PAGE_ITEMS: u32 = 1000;
/// Bytes of one page.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// When to try again what writers have left no room for.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often a truncation is chosen anew because the context changed meanwhile.
const TRIES: usize = 20;

impl StandardContextManager {
    /// Drops items until the budget holds. Who names no version is not told of one: a choice that the context has
    /// outrun is made again (G2).
    pub(super) async fn truncated(&self, key: &ContextKey, request: TruncateRequest) -> Result<Truncation> {
        for _ in 0..TRIES {
            match self.truncated_once(key, &request).await {
                Err(Error::VersionMismatch { .. }) if request.expected.is_none() => {}
                outcome => return outcome,
            }
        }
        Err(Error::Overloaded {
            what: "the context, which changes faster than it can be truncated,",
            retry_after: RETRY_AFTER,
        })
    }

    async fn truncated_once(&self, key: &ContextKey, request: &TruncateRequest) -> Result<Truncation> {
        let wish = wish(request)?;
        let context = self.store.head(key).await?;
        // A window is also bounded in items and bytes; a context within its budget must lose nothing to that.
        if context.tokens <= request.max_tokens {
            expect(&context, request.expected)?;
            return Ok(truncation(context, &Plan::default()));
        }
        let (plan, version) = self
            .choose(key, &context, request.max_tokens, request.strategy, wish)
            .await?;
        if version != context.version {
            // What is dropped would be told by the bounds of another version.
            return Err(Error::VersionMismatch {
                expected: context.version,
                actual: version,
            });
        }
        if request.dry_run || plan.dropped_items == 0 {
            expect(&context, request.expected)?;
            return Ok(truncation(context, &plan));
        }
        // The ranges were chosen at this version; a change in between makes them wrong, so it is a condition.
        let expected = request.expected.or(Some(version));
        let after = self.store.rewrite(key, plan.keep.clone(), expected).await?;
        Ok(Truncation {
            context: after,
            ..truncation(context, &plan)
        })
    }

    /// What to drop of a context that is over a budget, and the version that the choice is made at.
    pub(super) async fn choose(
        &self,
        key: &ContextKey,
        context: &Context,
        max_tokens: u64,
        strategy: Strategy,
        wish: Wish,
    ) -> Result<(Plan, Version)> {
        if strategy == Strategy::OldestFirst {
            return self.oldest_turns(key, max_tokens).await;
        }
        let items = read(self.store.as_ref(), key, context).await?;
        let bytes = items.iter().map(|item| item.body.len()).sum();
        let plan = off_the_reactor(bytes, move || {
            let wanted = match wish {
                Wish::Nothing => None,
                Wish::Words(wanted) => Some(wanted),
                Wish::LastSaid => last_said(&items),
            };
            truncate::plan(&items, max_tokens, strategy, wanted.as_ref())
        });
        Ok((plan.await??, context.version))
    }

    /// What a window of that budget leaves out.
    async fn oldest_turns(&self, key: &ContextKey, max_tokens: u64) -> Result<(Plan, Version)> {
        let budget = WindowRequest {
            max_tokens: Some(max_tokens),
            cut: Cut::Tight,
            ..WindowRequest::default()
        };
        let window = self.assemble(key, budget).await?;
        refuse_bounded(&window, self.limits.item_size.as_u64())?;
        let (dropped_items, dropped_tokens) = window
            .omitted
            .map_or((0, 0), |omitted| (omitted.items, omitted.tokens));
        let plan = Plan {
            keep: truncate::ranges(window.items.iter().map(|item| item.seq)),
            dropped_items,
            dropped_tokens,
        };
        Ok((plan, window.version))
    }
}

/// What relevance is measured against.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// The strategy does not ask.
    Nothing,
    /// These words.
    Words(Wanted),
    /// What the user said last.
    LastSaid,
}

fn last_said(items: &[Item]) -> Option<Wanted> {
    let said = items.iter().rfind(|item| item.traits.starts_turn())?;
    Wanted::of(&searchable_text(&said.body))
}

/// What a request measures relevance against. A query that would be ignored is refused.
fn wish(request: &TruncateRequest) -> Result<Wish> {
    match (request.strategy, &request.query) {
        (Strategy::Relevance, Some(query)) => Wanted::parse(query).map(Wish::Words),
        (Strategy::Relevance, None) => Err(Invalid::new("query", "is missing")
            .hint("say what the context is still needed for; strategy relevance keeps what has those words")
            .into()),
        (_, None) => Ok(Wish::Nothing),
        (strategy, Some(_)) => {
            let problem = format!("has no meaning for strategy {}", strategy.as_str());
            Err(Invalid::new("query", problem)
                .hint("leave it out, or use strategy relevance")
                .into())
        }
    }
}

fn expect(context: &Context, expected: Option<Version>) -> Result<()> {
    match expected {
        Some(expected) if expected != context.version => Err(Error::VersionMismatch {
            expected,
            actual: context.version,
        }),
        _ => Ok(()),
    }
}

/// The answer, with the head before it.
fn truncation(context: Context, plan: &Plan) -> Truncation {
    let mut dropped_ranges = if plan.dropped_items == 0 {
        Vec::new()
    } else {
        truncate::gaps(&plan.keep, context.first_seq, context.next_seq)
    };
    let more_ranges = dropped_ranges.len() > Truncation::RANGES_MAX;
    dropped_ranges.truncate(Truncation::RANGES_MAX);
    Truncation {
        dropped_items: plan.dropped_items,
        dropped_tokens: plan.dropped_tokens,
        dropped_ranges,
        more_ranges,
        context,
    }
}

/// All items of a context as `context` says that it is.
///
/// # Errors
/// `TooLarge` for more than a window may have of items or bytes; `VersionMismatch` if the context changes meanwhile.
async fn read(store: &dyn ContextStore, key: &ContextKey, context: &Context) -> Result<Vec<Item>> {
    let most = u64::from(window::ITEMS_MAX);
    if context.item_count > most {
        return Err(too_large(
            "what there is to choose from in items",
            context.item_count,
            most,
        ));
    }
    let mut items: Vec<Item> = Vec::new();
    let mut bytes = 0;
    loop {
        let query = ItemQuery {
            after: items.last().map_or(0, |item| item.seq),
            before: Seq::MAX,
            order: Order::Ascending,
            limit: PAGE_ITEMS,
            bytes_max: PAGE_BYTES,
        };
        let page = store.items(key, query).await?;
        if page.version != context.version {
            return Err(Error::VersionMismatch {
                expected: context.version,
                actual: page.version,
            });
        }
        bytes += page.items.iter().map(|item| item.body.len() as u64).sum::<u64>();
        if bytes > window::BYTES_MAX {
            return Err(too_large(
                "what there is to choose from in bytes",
                bytes,
                window::BYTES_MAX,
            ));
        }
        items.extend(page.items);
        if !page.more {
            return Ok(items);
        }
    }
}

fn too_large(what: &'static str, actual: u64, limit: u64) -> Error {
    Error::TooLarge {
        what: what.into(),
        actual,
        limit,
    }
}

/// A window that ends at its own bounds instead of the budget would drop what nobody asked to drop.
fn refuse_bounded(window: &Window, item_bytes_max: u64) -> Result<()> {
    let items = window.items.len() as u64;
    let bytes: u64 = window.items.iter().map(|item| item.body.len() as u64).sum();
    let most = u64::from(window::ITEMS_MAX);
    if items >= most {
        Err(too_large("what would stay in items", items, most - 1))
    } else if bytes + item_bytes_max > window::BYTES_MAX {
        let limit = window::BYTES_MAX.saturating_sub(item_bytes_max);
        Err(too_large("what would stay in bytes", bytes, limit))
    } else {
        Ok(())
    }
}
