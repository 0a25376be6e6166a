//! A summary in a window, in the place of what is left out (W9).

use std::sync::Arc;

use super::{Reason, Window, prefix};
use crate::item::{Item, Kind as ItemKind, Links, Role, Traits};
use crate::store::SeqRange;
use crate::summary::{self, Kind, Summary, shortened};
use crate::{Context, Seq, Tokenizer};

/// Most tokens that are set aside for a summary: a whole extractive one, and what says what it is.
const ALLOTMENT_MAX: u64 = summary::TOKENS_MAX as u64 + 64;
/// Of smaller budgets, one part in so many.
const ALLOTMENT_PART: u64 = 4;

/// A summary that stands in a window as an item of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Who made it.
    pub kind: Kind,
    /// What it covers.
    pub range: SeqRange,
    /// Its tokens in the window.
    pub tokens: u32,
    /// The seq that its item bears: the newest one that is left out, so that seqs ascend.
    pub seq: Seq,
}

/// Tokens of a budget that are set aside. Never more for a smaller budget, and a larger budget always leaves more (W7).
pub(crate) const fn allotment(budget: u64) -> u64 {
    let part = budget / ALLOTMENT_PART;
    if part < ALLOTMENT_MAX { part } else { ALLOTMENT_MAX }
}

/// The item that stands for a summary, if it has room within so many tokens: cut at its end if it is longer.
///
/// The same summary, limit and tokenizer make the same item: `created_at` is that of the item that follows it.
pub(crate) fn item(
    summary: &Summary,
    limit: u64,
    tokenizer: Tokenizer,
    created_at: crate::Timestamp,
) -> Option<Item> {
    let SeqRange { first, last } = summary.range;
    let frame =
        format!("[Summary of items {first} to {last} of this conversation, which are left out here]\n");
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let mut room = limit.saturating_sub(tokenizer.count_item(&frame, 0));
    loop {
        let text = match summary.kind {
            Kind::Extractive => summary::extract_within(&summary.text, room, tokenizer),
            Kind::Model | Kind::External => shortened(&summary.text, room, tokenizer),
        };
        if text.is_empty() {
            return None;
        }
        let text = format!("{frame}{text}");
        let tokens = tokenizer.count_item(&text, 0);
        // Counts of pieces are nearly those of the whole, not quite.
        if tokens > limit {
            room = room.checked_sub(tokens - limit)?;
            continue;
        }
        let content = serde_json::Value::String(text);
        return Some(Item {
            seq: last,
            tokens,
            created_at,
            traits: Traits {
                role: Role::User,
                kind: ItemKind::Message,
                links: Links::default(),
                client_id: None,
                // It stays as long as what comes after it.
                pinned: true,
                importance: None,
            },
            body: Arc::from(format!(r#"{{"role":"user","content":{content}}}"#)),
        });
    }
}

impl Window {
    /// Puts a summary of what is left out into its place.
    pub(crate) fn place(&mut self, context: &Context, summary: &Summary, item: Item) {
        let at = self.items.partition_point(|other| other.seq < item.seq);
        self.tokens += u64::from(item.tokens);
        self.summary = Some(Placed {
            kind: summary.kind,
            range: summary.range,
            tokens: item.tokens,
            seq: item.seq,
        });
        self.items.insert(at, item);
        self.prefix_hash = prefix::hash(context, &self.items);
        self.cache_breakpoints = prefix::breakpoints(&self.items);
    }

    /// Says why there is no summary.
    pub(crate) fn without_summary(mut self, reason: Reason) -> Self {
        self.reasons.push(reason);
        self
    }
}
