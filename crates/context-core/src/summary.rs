//! Summaries of what is no longer in a window: made here without any model, or supplied by the client, who has one.
//!
//! An *extractive* summary consists of sentences that were said and of names, numbers, dates, paths and addresses that
//! were mentioned; nothing in it is made up. [`extract`] is a pure function:
//!
//! - **X1** The same items, summary to go on from and tokenizer make the same text.
//! - **X2** The text has at most [`TOKENS_MAX`] tokens, however much it covers.
//! - **X3** What the user wanted first and what the user asked last stand in it.
//! - **X4** A summary of `a..c` is made of the one of `a..b` and the items `b + 1..c`: what it costs does not depend on how
//!   much the older one covers.
//! - **X5** Instructions and pinned items are not in it: every window has them.
//!
//! A client that has a model puts its own summary ([`Kind::External`]), which is preferred to ours for its range. A server
//! may have one as well, behind the port [`Summariser`]: it is asked in the background, and what it says is a summary of
//! its own [`Kind::Model`], preferred to the extractive one.

mod draft;
mod mentions;
mod model;
mod sentences;
mod shorten;
#[cfg(test)]
mod tests;
mod text;

use sha2::{Digest, Sha256};

use crate::error::{Error, Invalid, Result};
use crate::store::SeqRange;
use crate::{Context, Item, Timestamp, Tokenizer};

pub use self::draft::Draft;
pub(crate) use self::draft::Drafting;
pub use self::model::{Fault, ModelLimits, Summariser};
pub(crate) use self::shorten::shortened;
pub use self::text::extract;
pub(crate) use self::text::extract_within;

/// Most tokens of an extractive summary.
pub const TOKENS_MAX: u32 = 1000;
/// Largest summary that a client may put, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Most summaries that a context has; the one that was written longest ago makes room.
pub const PER_CONTEXT_MAX: usize = 64;

/// Who made a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Made here, of sentences that were said.
    Extractive,
    /// Written by the model that the server's operator has configured.
    Model,
    /// Supplied by the client.
    External,
}

impl Kind {
    /// All kinds; a later one is preferred to an earlier one.
    pub const ALL: [Self; 3] = [Self::Extractive, Self::Model, Self::External];

    /// Stable name, used on both faces and by the stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Extractive => "extractive",
            Self::Model => "model",
            Self::External => "external",
        }
    }

    /// Reads [`Kind::as_str`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A summary of a range of a context. It stays when its range is truncated, and goes with the context or when all items
/// are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Who made it.
    pub kind: Kind,
    /// What it covers.
    pub range: SeqRange,
    /// The text.
    pub text: String,
    /// Its size in tokens, as the context counts.
    pub tokens: u32,
    /// [`source_hash`] of the items that it was made of; of a client's summary over the text.
    pub source: [u8; 32],
    /// When it was written.
    pub created_at: Timestamp,
}

impl Summary {
    /// [`Summary::source`] in hexadecimal.
    pub fn source_hex(&self) -> String {
        crate::hex(&self.source)
    }
}

/// Asks for a summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct SummaryRequest {
    /// What it has to cover; what the context's own window leaves out if absent.
    pub range: Option<SeqRange>,
}

/// A client's summary of a range.
#[derive(Clone, Debug)]
pub struct PutSummary {
    /// What it covers.
    pub range: SeqRange,
    /// The text.
    pub text: String,
}

impl PutSummary {
    /// Checks the text, and that the range is of items that were there.
    pub(crate) fn validate(&self, context: &Context) -> Result<()> {
        check(self.range, context)?;
        if self.text.trim().is_empty() {
            return Err(Invalid::new("text", "is empty").into());
        }
        if self.text.contains('\0') {
            return Err(Invalid::new("text", "has a NUL character, which no database stores as text").into());
        }
        if self.text.len() > TEXT_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "text in bytes".into(),
                actual: self.text.len() as u64,
                limit: TEXT_BYTES_MAX as u64,
            });
        }
        Ok(())
    }
}

/// Whether a range is one of items that are or were there.
pub(crate) fn check(range: SeqRange, context: &Context) -> Result<()> {
    if range.first == 0 || range.first > range.last {
        let problem = format!(
            "is {}, which is not from 1 to last_seq, {}",
            range.first, range.last
        );
        return Err(Invalid::new("first_seq", problem).into());
    }
    if range.last >= context.next_seq {
        let newest = context.next_seq - 1;
        return Err(Invalid::new(
            "last_seq",
            format!("is {}; the newest item is {newest}", range.last),
        )
        .into());
    }
    Ok(())
}

/// SHA-256, one item after the other: what it is for `a..c` follows from what it was for `a..b`.
pub fn source_hash(before: Option<[u8; 32]>, items: &[Item]) -> [u8; 32] {
    items.iter().fold(before.unwrap_or_default(), |before, item| {
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(item.seq.to_le_bytes());
        hash.update(item.body.as_bytes());
        hash.finalize().into()
    })
}

/// The hash of a client's text.
pub(crate) fn text_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The extractive summary of `range`, of one of its beginning and the items after that.
pub(crate) fn extended(
    range: SeqRange,
    before: Option<&Summary>,
    items: &[Item],
    tokenizer: Tokenizer,
    created_at: Timestamp,
) -> Summary {
    let text = extract(before.map(|before| before.text.as_str()), items, tokenizer);
    Summary {
        kind: Kind::Extractive,
        range,
        tokens: tokenizer.count(&text),
        source: source_hash(before.map(|before| before.source), items),
        text,
        created_at,
    }
}
