//! The window: the part of a context that fits a model's token budget. A pure function over what the store
//! read; no I/O, no clock, nothing stored.
//!
//! - **W1** Instructions (system, developer) and pinned items are always in.
//! - **W2** The rest is a run of the newest items without a gap. A tight cut begins it at the oldest turn that fits, or, if
//!   not even the newest turn fits, at the oldest step inside it that W3 allows. A sticky cut begins it at the first turn
//!   of a grid cell, or, if no turn begins in the cell, at the first step there.
//! - **W3** A tool result is in only with its call, a call with all its results that are there, and
//!   reasoning only with what follows it.
//! - **W4** The tokens of the window never exceed the budget.
//! - **W5** Items keep their order.
//! - **W6** A sticky cut stays put: as a context grows, its window for one budget keeps its beginning byte for byte and
//!   only gets longer, until the tokens that have to go pass the next line of a grid; then the cut jumps by about one
//!   step of that grid, and again stays. A step is the largest power of two that is at most half of the budget (less
//!   what W1 keeps), so the cut moves once in a quarter to a half of a budget of new tokens. Two things move it earlier: a
//!   late result of a call before the cut (W3 goes first), and a step longer than a grid cell (W4 goes first).
//! - **W7** A larger budget never shows less. Where the step doubles, the window is the larger of what both steps give.
//! - **W8** The window depends on the context and the request alone: not on the node, on earlier reads, or on how much
//!   more than needed was read.
//! - **W9** If a summary is asked for, one of exactly what is left out stands, as a message of the user, where the newest
//!   item that is left out was: after what is kept from before it, before what follows. For it a quarter of the budget is
//!   set aside before the cut is chosen, at most as much as an extractive one needs, so that W4 holds with it. It is the
//!   same, byte for byte, until the cut moves or a better one takes its place, a model's or a client's; the name of the
//!   prefix says so.
//!
//! See `docs/adr/0008-cut-on-a-grid.md` for why the cut is computed and not stored.

mod cut;
mod prefix;
pub mod render;
#[cfg(any(test, feature = "test-util"))]
pub mod rules;
mod summarised;
#[cfg(test)]
mod tests;
mod written;

use crate::error::Result;
use crate::store::{Tail, TailQuery};
use crate::{Context, Item, Seq, Version};

pub use prefix::BREAKPOINTS_MAX;
pub use render::{Format, Rendered};
pub use summarised::Placed;
pub(crate) use summarised::{allotment, item as summary_item};
pub use written::Written;

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
    /// Where to begin.
    pub cut: Cut,
    /// Whether a summary of what is left out is to stand in its place (W9).
    pub summary: bool,
}

/// How the beginning of a window is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Where it stays while the context grows, so that a provider's prompt cache keeps hitting (W6).
    #[default]
    Sticky,
    /// Where the window is fullest; it moves with nearly every turn.
    Tight,
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
    /// More would fit; the cut stays where it is so that the prefix stays the same.
    CutKept,
    /// The counts are estimates.
    EstimatedTokens,
    /// A provider's reasoning means nothing to the provider of the format, or nothing follows it.
    ReasoningDropped,
    /// A call was not answered before somebody else spoke.
    UnansweredCallDropped,
    /// A result answers no call.
    OrphanResultDropped,
    /// Something that the format can't say: a file, a provider's own tool, an image where there can't be one.
    OpaqueDropped,
    /// The format can't say that a result is an error.
    ErrorFlagDropped,
    /// There is more to summarise than a read takes upon itself, or it can't be read now: the summary is there later.
    SummaryPending,
    /// The budget leaves no room for a summary, or there is nothing to say.
    SummaryLeftOut,
    /// The window begins with the model, so a message of the user was put before it.
    OpeningAdded,
}

impl Reason {
    /// Stable name, used on both faces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything_fits",
            Self::CutAtTurn => "cut_at_turn",
            Self::CutInsideTurn => "cut_inside_turn",
            Self::KeptPinned => "kept_pinned",
            Self::CutKept => "cut_kept",
            Self::EstimatedTokens => "estimated_tokens",
            Self::ReasoningDropped => "reasoning_dropped",
            Self::UnansweredCallDropped => "unanswered_call_dropped",
            Self::OrphanResultDropped => "result_without_call_dropped",
            Self::OpaqueDropped => "opaque_dropped",
            Self::ErrorFlagDropped => "error_flag_dropped",
            Self::SummaryPending => "summary_pending",
            Self::SummaryLeftOut => "summary_left_out",
            Self::OpeningAdded => "opening_added",
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
    /// The summary of that, which is one of the items, if one was asked for.
    pub summary: Option<Placed>,
    /// Names the window's beginning (SHA-256 in hexadecimal): of two windows of one context with the same name the older
    /// is a prefix of the newer, byte for byte, so that a provider's prompt cache hits for all of it.
    pub prefix_hash: String,
    /// The oldest item that is in for its place; `None` if all are instructions or pinned.
    pub cut_seq: Option<Seq>,
    /// Seqs after which a provider's cache breakpoint is best put, ascending, at most [`BREAKPOINTS_MAX`].
    pub cache_breakpoints: Vec<Seq>,
    /// The context's version.
    pub version: Version,
    /// Why it is what it is.
    pub reasons: Vec<Reason>,
    /// What a face has made of it.
    pub written: Written,
}

impl Window {
    /// Where the summary is: among the rendered messages, or among the items if there are none.
    pub fn summary_index(&self, rendered: Option<&Rendered>) -> Option<usize> {
        self.index(self.summary?.seq, rendered)
    }

    fn index(&self, seq: Seq, rendered: Option<&Rendered>) -> Option<usize> {
        match rendered {
            Some(rendered) => rendered.message_of(seq),
            None => self.items.iter().position(|item| item.seq == seq),
        }
    }

    /// [`cache_breakpoints`](Window::cache_breakpoints) with their indexes: among the rendered messages, or among the
    /// items if there are none. No index means the end of Anthropic's `system`.
    pub fn breakpoints(&self, rendered: Option<&Rendered>) -> Vec<(Seq, Option<usize>)> {
        let seqs = self.cache_breakpoints.iter();
        seqs.map(|seq| (*seq, self.index(*seq, rendered))).collect()
    }
}

/// Cuts a window out of what was read.
///
/// # Errors
/// [`BudgetTooSmall`](crate::Error::BudgetTooSmall) if instructions, pinned items and the smallest step at the end do not
/// fit, with the smallest budget that does; if the tail ends before that step, with a lower bound of it.
pub fn assemble(tail: Tail, budget: u64, cut: Cut) -> Result<Window> {
    let choice = cut::choose(&tail, budget, cut)?;
    let Tail {
        context, kept, run, ..
    } = tail;
    let mut items = kept;
    let older = run.iter().take(choice.index);
    items.extend(older.filter(|item| item.traits.always_kept()).cloned());
    let kept_count = items.len();
    items.extend(run.into_iter().skip(choice.index));
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
    if choice.kept_put {
        reasons.push(Reason::CutKept);
    }
    if !context.tokenizer.is_exact() {
        reasons.push(Reason::EstimatedTokens);
    }
    Ok(Window {
        prefix_hash: prefix::hash(&context, &items),
        cut_seq: cut::cut_seq(&items),
        cache_breakpoints: prefix::breakpoints(&items),
        items,
        tokens,
        omitted,
        summary: None,
        version: context.version,
        reasons,
        written: Written::default(),
    })
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
