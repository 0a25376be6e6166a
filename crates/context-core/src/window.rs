//! The window: the part of a context that fits a model's token budget. A pure function over what the store
//! read; no I/O, no clock.
//!
//! - **W1** Instructions (system, developer) and pinned items are always in.
//! - **W2** The rest is the newest run of items that fits, begun where a turn begins. If not even the newest
//!   turn fits, the run begins at a step inside it that W3 allows.
//! - **W3** A tool result is in only with its call, a call with all its results that are there, and
//!   reasoning only with what follows it.
//! - **W4** The tokens of the window never exceed the budget.
//! - **W5** Items keep their order.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::item::Kind;
use crate::store::{Tail, TailQuery};
use crate::{Context, Item, Seq, Version};

/// Most items that a window has, whatever the budget.
pub const ITEMS_MAX: u32 = 20_000;
/// Most bytes of bodies that a window has, whatever the budget.
pub const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowRequest {
    /// The budget in tokens; the context's own if absent.
    pub max_tokens: Option<u64>,
    /// Tokens of the budget that the answer will need.
    pub reserve: u64,
}

impl WindowRequest {
    /// What is left for items.
    pub fn budget(&self, context: &Context) -> u64 {
        self.max_tokens
            .unwrap_or(context.max_tokens)
            .saturating_sub(self.reserve)
    }

    /// What to read from a store so that [`assemble`] can decide.
    pub const fn tail_query(&self) -> TailQuery {
        TailQuery {
            max_tokens: self.max_tokens,
            reserve: self.reserve,
            items_max: ITEMS_MAX,
            bytes_max: BYTES_MAX,
        }
    }
}

/// Why the window is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Everything that is there fits.
    Everything,
    /// Older turns did not fit.
    CutAtTurn,
    /// The newest turn did not fit, so the cut is inside it.
    CutInsideTurn,
    /// Instructions or pinned items older than the cut are in.
    KeptPinned,
    /// The counts are estimates.
    EstimatedTokens,
}

impl Reason {
    /// Stable name, used on both faces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything_fits",
            Self::CutAtTurn => "cut_at_turn",
            Self::CutInsideTurn => "cut_inside_turn",
            Self::KeptPinned => "kept_pinned",
            Self::EstimatedTokens => "estimated_tokens",
        }
    }
}

/// The items that are not in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Omitted {
    /// The oldest of them.
    pub first_seq: Seq,
    /// The newest of them.
    pub last_seq: Seq,
    /// How many they are.
    pub items: u64,
    /// Their tokens.
    pub tokens: u64,
}

/// What a model should see.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// In order.
    pub items: Vec<Item>,
    /// Their tokens.
    pub tokens: u64,
    /// What is not in it.
    pub omitted: Option<Omitted>,
    /// SHA-256, in hexadecimal, over the bodies of all items but the newest: equal hashes mean that a
    /// provider's prompt cache can hit.
    pub prefix_hash: String,
    /// The context's version.
    pub version: Version,
    /// Why it is what it is.
    pub reasons: Vec<Reason>,
}

/// Cuts a window out of what was read.
///
/// # Errors
/// [`Error::BudgetTooSmall`] if instructions, pinned items and the smallest step at the end do not fit.
pub fn assemble(tail: Tail, budget: u64) -> Result<Window> {
    let Tail {
        context,
        kept,
        run,
        before,
    } = tail;
    // Whether everything older than the run is in anyway, so that the run may begin with its first item.
    let reaches_start = (kept.len() + run.len()) as u64 == context.item_count;
    let cuts = legal_cuts(&run, before, reaches_start);
    let cut = choose(&kept, &run, &cuts, reaches_start, budget)?;

    let older = kept.into_iter().chain(
        run.iter()
            .take(cut)
            .filter(|item| item.traits.always_kept())
            .cloned(),
    );
    let mut items: Vec<Item> = older.collect();
    let kept_count = items.len();
    items.extend(run.into_iter().skip(cut));
    let tokens = items.iter().map(|item| u64::from(item.tokens)).sum();

    let omitted = omitted(&context, &items, tokens);
    let inside_turn = items
        .get(kept_count)
        .is_some_and(|item| !item.traits.starts_turn());
    let mut reasons = Vec::new();
    match omitted {
        None => reasons.push(Reason::Everything),
        Some(_) if inside_turn => reasons.push(Reason::CutInsideTurn),
        Some(_) => reasons.push(Reason::CutAtTurn),
    }
    if omitted.is_some() && kept_count > 0 {
        reasons.push(Reason::KeptPinned);
    }
    if !context.tokenizer.is_exact() {
        reasons.push(Reason::EstimatedTokens);
    }
    Ok(Window {
        prefix_hash: prefix_hash(&items),
        items,
        tokens,
        omitted,
        version: context.version,
        reasons,
    })
}

/// Places in `run` where it may be cut: `cuts[i]` says whether the run may begin with item `i` (W3), and
/// whether a turn begins there.
fn legal_cuts(run: &[Item], before: Option<Kind>, reaches_start: bool) -> Vec<Option<Cut>> {
    let made: HashSet<&str> = run
        .iter()
        .flat_map(|item| &item.traits.links.calls)
        .map(String::as_str)
        .collect();
    // Results whose call is older than the run cannot be in it. If the run is all there is, the call does
    // not exist, and the result is the client's own doing: it stays.
    let mut waiting: HashSet<&str> = HashSet::new();
    let mut closed = false;
    let mut cuts = vec![None; run.len()];
    for (index, item) in run.iter().enumerate().rev() {
        for result in &item.traits.links.results {
            if made.contains(result.as_str()) {
                waiting.insert(result);
            } else if !reaches_start {
                closed = true;
            }
        }
        if closed {
            break;
        }
        for call in &item.traits.links.calls {
            waiting.remove(call.as_str());
        }
        let before = if index > 0 {
            Some(run[index - 1].traits.kind)
        } else {
            before
        };
        let starts_run = index == 0 && reaches_start;
        if starts_run || (waiting.is_empty() && item.traits.starts_turn()) {
            cuts[index] = Some(Cut::Turn);
        } else if waiting.is_empty() && before != Some(Kind::Reasoning) {
            cuts[index] = Some(Cut::Step);
        }
    }
    cuts
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Turn,
    Step,
}

/// The oldest turn that fits, else the oldest step that fits.
fn choose(
    kept: &[Item],
    run: &[Item],
    cuts: &[Option<Cut>],
    everything_kept: bool,
    budget: u64,
) -> Result<usize> {
    let tokens = |item: &Item| u64::from(item.tokens);
    let kept_tokens: u64 = kept.iter().map(tokens).sum();
    let always: u64 = kept_tokens
        + run
            .iter()
            .filter(|item| item.traits.always_kept())
            .map(tokens)
            .sum::<u64>();
    // Going back from the end, each item adds its tokens unless it is in anyway.
    let mut needed = always;
    let mut best: [Option<usize>; 2] = [None, None];
    let mut minimum = None;
    for (index, item) in run.iter().enumerate().rev() {
        if !item.traits.always_kept() {
            needed += tokens(item);
        }
        let Some(cut) = cuts[index] else { continue };
        if minimum.is_none() {
            minimum = Some(needed);
        }
        if needed <= budget {
            best[usize::from(cut == Cut::Step)] = Some(index);
        }
    }
    if let Some(index) = best[0].or(best[1]) {
        return Ok(index);
    }
    if run.is_empty() && everything_kept && always <= budget {
        return Ok(0);
    }
    // Without a legal cut in what was read, all that is known is that more is needed than there is.
    let minimum = minimum
        .unwrap_or(needed)
        .max(always)
        .max(budget.saturating_add(1));
    Err(Error::BudgetTooSmall { budget, minimum })
}

fn omitted(context: &Context, items: &[Item], tokens: u64) -> Option<Omitted> {
    let missing = context.item_count.saturating_sub(items.len() as u64);
    if missing == 0 {
        return None;
    }
    let mut first_seq = context.first_seq;
    for item in items {
        if item.seq != first_seq {
            break;
        }
        first_seq += 1;
    }
    let mut last_seq = context.next_seq.saturating_sub(1);
    for item in items.iter().rev() {
        if item.seq != last_seq {
            break;
        }
        last_seq = last_seq.saturating_sub(1);
    }
    Some(Omitted {
        first_seq,
        last_seq,
        items: missing,
        tokens: context.tokens.saturating_sub(tokens),
    })
}

fn prefix_hash(items: &[Item]) -> String {
    let mut hash = Sha256::new();
    for item in items.iter().take(items.len().saturating_sub(1)) {
        hash.update((item.body.len() as u64).to_le_bytes());
        hash.update(item.body.as_bytes());
    }
    crate::hex(&hash.finalize())
}
