//! Token counts: exact for the `OpenAI` families, an estimate for the rest, made once at append.

#[cfg(feature = "tokenizers")]
mod classes;
#[cfg(feature = "tokenizers")]
mod exact;
#[cfg(feature = "tokenizers")]
mod pieces;
#[cfg(test)]
mod tests;

use std::fmt;

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
    /// Any model: four bytes of UTF-8 a token, rounded up. On English and code this is 10 to 15 % high.
    Estimate,
}

impl Tokenizer {
    /// All tokenizers.
    pub const ALL: [Self; 3] = [Self::O200kBase, Self::Cl100kBase, Self::Estimate];

    /// The name used in requests and in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::O200kBase => "o200k_base",
            Self::Cl100kBase => "cl100k_base",
            Self::Estimate => "estimate",
        }
    }

    /// Reads [`Tokenizer::as_str`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tokenizer| tokenizer.as_str() == name)
    }

    /// Whether text counts equal the provider's own. Without the `tokenizers` feature nothing is exact.
    pub const fn is_exact(self) -> bool {
        cfg!(feature = "tokenizers") && !matches!(self, Self::Estimate)
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

    #[cfg(feature = "tokenizers")]
    fn count_text(self, text: &str) -> usize {
        match self {
            Self::O200kBase => exact::count_o200k(text),
            Self::Cl100kBase => exact::count_cl100k(text),
            Self::Estimate => text.len().div_ceil(4),
        }
    }

    #[cfg(not(feature = "tokenizers"))]
    #[expect(
        clippy::unused_self,
        reason = "without exact counts all tokenizers count alike"
    )]
    fn count_text(self, text: &str) -> usize {
        text.len().div_ceil(4)
    }
}

impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
