//! What of a window stays put: its name, and where a provider's cache is best told to break.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::{Context, Item, Role, Seq};

/// Most breakpoints that a window names. Source: Anthropic's prompt caching guide, four `cache_control` a request.
pub const BREAKPOINTS_MAX: usize = 4;

/// The name of the window's beginning: its items up to the first one that is there for its place. Nothing is ever
/// inserted behind that item, items are only appended, and each truncation or replacement leaves one more hole in the
/// seqs, which is hashed as well; so two windows of one context with equal names begin alike, and the older one is a
/// prefix of the newer one.
pub(super) fn hash(context: &Context, items: &[Item]) -> String {
    let gone = context
        .next_seq
        .saturating_sub(1)
        .saturating_sub(context.item_count);
    let mut hash = Sha256::new();
    hash.update(gone.to_le_bytes());
    for item in items {
        hash.update(item.seq.to_le_bytes());
        hash.update((item.body.len() as u64).to_le_bytes());
        hash.update(item.body.as_bytes());
        if !item.traits.always_kept() {
            break;
        }
    }
    crate::hex(&hash.finalize())
}

/// Seqs after which the prompt is likely to go on unchanged next time, ascending, at most [`BREAKPOINTS_MAX`]: the end
/// the instructions that come first, of all that is kept from before the cut, of the last complete turn, and of the last
/// step whose calls are all answered.
pub(super) fn breakpoints(items: &[Item]) -> Vec<Seq> {
    let kept = items.iter().take_while(|item| item.traits.always_kept()).count();
    let instructions = items
        .iter()
        .take_while(|item| item.traits.role.is_instruction())
        .count();
    let newest_turn = items
        .iter()
        .rposition(|item| item.traits.starts_turn())
        .unwrap_or(0);
    let mut open: HashSet<&str> = HashSet::new();
    let mut settled = newest_turn;
    for (index, item) in items.iter().enumerate().skip(newest_turn) {
        open.extend(item.traits.links.calls.iter().map(String::as_str));
        for result in &item.traits.links.results {
            open.remove(result.as_str());
        }
        // What the model says may become one message with what it says next.
        if open.is_empty() && item.traits.role != Role::Assistant {
            settled = index + 1;
        }
    }
    let mut ends = [instructions, kept, newest_turn, settled];
    ends.sort_unstable();
    let mut seqs: Vec<Seq> = ends
        .iter()
        .filter_map(|end| end.checked_sub(1))
        .filter_map(|last| items.get(last))
        .map(|item| item.seq)
        .collect();
    seqs.dedup();
    seqs
}
