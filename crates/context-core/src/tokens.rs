//! Token counts: exact for the `OpenAI` families, estimates for the rest, made once at append.

#[cfg(feature = "tokenizers")]
mod classes;
mod estimate;
#[cfg(feature = "tokenizers")]
mod exact;
#[cfg(feature = "tokenizer-json")]
mod json;
mod named;
#[cfg(feature = "tokenizers")]
mod pieces;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};

pub use self::named::Named;

/// What a message costs beyond its text, in tokens: the role and the separators around it.
/// Source: `OpenAI`'s cookbook, "How to count tokens with tiktoken" (3 a message, 1 a name).
pub const TOKENS_PER_ITEM: u32 = 4;

/// What one image, audio clip or file counts as when its real cost is the provider's secret.
/// Source: `OpenAI`'s vision guide, a 1024 × 1024 image at high detail: 85 + 4 × 170.
pub const TOKENS_PER_MEDIA: u32 = 765;

/// How a context's tokens are counted. Fixed when the context is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tokenizer {
    /// GPT-4o and later, o-series: exact text counts.
    #[default]
    O200kBase,
    /// GPT-4 and GPT-3.5: exact text counts.
    Cl100kBase,
    /// Claude: an estimate, fitted to the one tokenizer of the family that was published, Claude 2's. Its error there is
    /// in `calibration/README.md`; for later models it is not known.
    ClaudeEstimate,
    /// Gemini: an estimate, fitted to the tokenizer of Gemma 3, which Gemini 2.0 and 2.5 have. Its error is in
    /// `calibration/README.md`.
    GeminiEstimate,
    /// Any model: four bytes of UTF-8 a token, rounded up. On English and code this is 10 to 15 % high.
    Estimate,
    /// One that the operator has named: a `tokenizer.json`, exact for texts up to 64 KiB.
    Named(Named),
}

impl Tokenizer {
    /// All tokenizers that are built in.
    pub const ALL: [Self; 5] = [
        Self::O200kBase,
        Self::Cl100kBase,
        Self::ClaudeEstimate,
        Self::GeminiEstimate,
        Self::Estimate,
    ];

    /// The name used in requests and in stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::O200kBase => "o200k_base",
            Self::Cl100kBase => "cl100k_base",
            Self::ClaudeEstimate => "claude_estimate",
            Self::GeminiEstimate => "gemini_estimate",
            Self::Estimate => "estimate",
            Self::Named(named) => named.name(),
        }
    }

    /// Reads [`Tokenizer::as_str`] back, if that is one that can be counted with.
    pub fn parse(name: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|tokenizer| tokenizer.as_str() == name);
        known.or_else(|| Named::usable(name).map(Self::Named))
    }

    /// Reads the name that a stored context bears. There may be nothing to count with: see [`Tokenizer::require`].
    #[cfg(any(feature = "cache", feature = "embedded", feature = "postgres"))]
    pub(crate) fn stored(name: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|tokenizer| tokenizer.as_str() == name);
        known.or_else(|| Named::stored(name).map(Self::Named))
    }

    /// Gives a `tokenizer.json` a name, for the life of the process.
    ///
    /// # Errors
    /// `Invalid`: what is wrong with the name or the file. The field is the name.
    pub fn load(name: &str, file: &Path) -> Result<Self> {
        named::load(name, file).map(Self::Named)
    }

    /// Whether a tokenizer of an operator's may have this name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_name(name: &str) -> Result<(), String> {
        named::check(name)
    }

    /// Makes sure that there is something to count with.
    ///
    /// # Errors
    /// `TokenizerMissing`.
    pub(crate) fn require(self) -> Result<()> {
        match self {
            Self::Named(named) if !named.is_there() => Err(Error::TokenizerMissing { name: named.name() }),
            _ => Ok(()),
        }
    }

    /// The tokenizer of a model, by what providers call theirs: `gpt-4o-mini`, `openai/gpt-5`, `o3`, `claude-…`,
    /// `models/gemini-…`. What comes before the last `/`, and the case, do not matter. `None` for a name that says nothing.
    ///
    /// Source of the first two: the table of tiktoken, `tiktoken/model.py`.
    pub fn for_model(model: &str) -> Option<Self> {
        let name = model.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let name = name.strip_prefix("ft:").unwrap_or(&name);
        let family = |family: &str| match name.strip_prefix(family) {
            Some(rest) => rest.is_empty() || rest.starts_with(['-', '.', ':', '@']),
            None => false,
        };
        let any = |families: &[&str]| families.iter().any(|name| family(name));
        if any(&[
            "gpt-4o",
            "gpt-4.1",
            "gpt-4.5",
            "gpt-5",
            "chatgpt-4o",
            "o1",
            "o3",
            "o4",
        ]) {
            Some(Self::O200kBase)
        } else if any(&["gpt-4", "gpt-3.5", "gpt-35"]) {
            Some(Self::Cl100kBase)
        } else if any(&["claude"]) {
            Some(Self::ClaudeEstimate)
        } else if any(&["gemini", "gemma"]) {
            Some(Self::GeminiEstimate)
        } else {
            None
        }
    }

    /// Whether text counts equal the provider's own. Without the `tokenizers` feature nothing is exact.
    pub fn is_exact(self) -> bool {
        match self {
            Self::O200kBase | Self::Cl100kBase => cfg!(feature = "tokenizers"),
            Self::Named(named) => named.is_there(),
            Self::ClaudeEstimate | Self::GeminiEstimate | Self::Estimate => false,
        }
    }

    /// Tokens in a text.
    pub fn count(self, text: &str) -> u32 {
        u32::try_from(self.count_text(text)).unwrap_or(u32::MAX)
    }

    pub(crate) fn count_item(self, text: &str, media: u32) -> u32 {
        self.count(text)
            .saturating_add(TOKENS_PER_ITEM)
            .saturating_add(media.saturating_mul(TOKENS_PER_MEDIA))
    }

    fn count_text(self, text: &str) -> usize {
        match self {
            #[cfg(feature = "tokenizers")]
            Self::O200kBase => exact::count_o200k(text),
            #[cfg(feature = "tokenizers")]
            Self::Cl100kBase => exact::count_cl100k(text),
            Self::ClaudeEstimate => estimate::count(text, &estimate::CLAUDE),
            Self::GeminiEstimate => estimate::count(text, &estimate::GEMINI),
            #[cfg(not(feature = "tokenizers"))]
            Self::O200kBase | Self::Cl100kBase => text.len().div_ceil(4),
            Self::Estimate => text.len().div_ceil(4),
            // What is stored is never counted so: see `require`.
            Self::Named(named) => named.count(text).unwrap_or_else(|| text.len().div_ceil(4)),
        }
    }
}

impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
