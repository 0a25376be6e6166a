//! Estimates for families whose tokenizers are not public: a weighted sum of what a text consists of.
//!
//! One pass, no table beyond the weights, linear in any text. The weights are fitted, not chosen:
//! `calibration/README.md` says on what, with which error, and how to do it again. The walk over the text is the same
//! as in `calibration/calibrate.mjs`; a test holds the two together.

/// What is counted in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feature {
    /// The beginning of a run of letters of scripts that have words.
    Word,
    /// `a` to `z`.
    Lower,
    /// `A` to `Z`.
    Upper,
    /// Latin letters beyond ASCII, and accents.
    Latin,
    /// Greek, Cyrillic, Armenian.
    Greek,
    /// Hebrew, Arabic and their neighbours.
    Arabic,
    /// India's scripts, Thai and other alphabets of three bytes a letter.
    Indic,
    Hangul,
    Kana,
    Han,
    /// `0` to `9`.
    Digit,
    /// The beginning of a run of digits.
    Number,
    /// Each third character of a run of ASCII punctuation, from the first on, repeats aside.
    Mark,
    /// Punctuation or a symbol that is the same as the character before.
    Repeat,
    /// East Asian punctuation and full-width forms.
    Wide,
    /// Typographic punctuation.
    Quote,
    /// Whatever is left, emoji for example.
    Symbol,
    /// Each sixteenth line break of a run, from the first on.
    Lines,
    /// Each sixteenth of a run of other blanks and control characters, from the second on: a single one belongs to the
    /// word that follows.
    Blanks,
}

const FEATURES: usize = Feature::Blanks as usize + 1;

/// How many characters of a run count as one.
const MARKS: usize = 3;
const LINES: usize = 16;
const BLANKS: usize = 16;

/// A family's weights, in thousandths of a token.
pub(super) struct Weights([u16; FEATURES]);

/// Fitted to Anthropic's published tokenizer of Claude 2. What later models use is not public.
pub(super) const CLAUDE: Weights = Weights([
    255,  // Word
    211,  // Lower
    287,  // Upper
    2547, // Latin
    609,  // Greek
    1030, // Arabic
    1529, // Indic
    1398, // Hangul
    910,  // Kana
    1101, // Han
    587,  // Digit
    539,  // Number
    567,  // Mark
    772,  // Repeat
    1019, // Wide
    525,  // Quote
    556,  // Symbol
    917,  // Lines
    687,  // Blanks
]);

/// Fitted to the tokenizer of Gemma 3, which is that of Gemini 2.0 and 2.5 and of the previews of Gemini 3.
pub(super) const GEMINI: Weights = Weights([
    284,  // Word
    183,  // Lower
    234,  // Upper
    508,  // Latin
    258,  // Greek
    339,  // Arabic
    293,  // Indic
    661,  // Hangul
    375,  // Kana
    587,  // Han
    1011, // Digit
    806,  // Number
    700,  // Mark
    521,  // Repeat
    1712, // Wide
    522,  // Quote
    509,  // Symbol
    1095, // Lines
    1121, // Blanks
]);

/// An estimate of a text's tokens.
pub(super) fn count(text: &str, weights: &Weights) -> usize {
    let sum: u64 = features(text)
        .iter()
        .zip(weights.0)
        .map(|(count, weight)| count.saturating_mul(u64::from(weight)))
        .fold(0, u64::saturating_add);
    usize::try_from(sum.div_ceil(1000)).unwrap_or(usize::MAX)
}

fn features(text: &str) -> [u64; FEATURES] {
    use Feature as F;
    let mut counts = [0; FEATURES];
    let mut count = |feature: Feature| counts[feature as usize] += 1;
    let mut before = None;
    // Characters of the same kind so far, this one included, as far as they count.
    let mut run: usize = 0;
    for char in text.chars() {
        let now = kind(char);
        let last = before.map(|(kind, _)| kind);
        let repeats = before == Some((now, char));
        run = if last == Some(now) { run + 1 } else { 1 };
        match now {
            F::Lower | F::Upper | F::Latin | F::Greek | F::Arabic | F::Indic => {
                if !last.is_some_and(in_words) {
                    count(F::Word);
                }
                count(now);
            }
            F::Digit => {
                if run == 1 {
                    count(F::Number);
                }
                count(now);
            }
            F::Mark if repeats => {
                count(F::Repeat);
                run -= 1;
            }
            F::Mark if run % MARKS == 1 => count(now),
            F::Lines if run % LINES == 1 => count(now),
            F::Blanks if run % BLANKS == 2 => count(now),
            F::Mark | F::Lines | F::Blanks => {}
            F::Wide | F::Quote | F::Symbol if repeats => count(F::Repeat),
            _ => count(now),
        }
        before = Some((now, char));
    }
    counts
}

/// Whether its letters are counted by words.
fn in_words(kind: Feature) -> bool {
    use Feature as F;
    matches!(
        kind,
        F::Lower | F::Upper | F::Latin | F::Greek | F::Arabic | F::Indic
    )
}

fn kind(char: char) -> Feature {
    match char {
        'a'..='z' => Feature::Lower,
        'A'..='Z' => Feature::Upper,
        '0'..='9' => Feature::Digit,
        '\n' | '\r' => Feature::Lines,
        '\0'..=' ' => Feature::Blanks,
        '!'..='\u{7f}' => Feature::Mark,
        '\u{c0}'..='\u{36f}' | '\u{1e00}'..='\u{1eff}' => Feature::Latin,
        '\u{370}'..='\u{58f}' => Feature::Greek,
        '\u{590}'..='\u{8ff}' => Feature::Arabic,
        '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7ff}' => Feature::Hangul,
        '\u{900}'..='\u{1cff}' => Feature::Indic,
        '\u{3040}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9f}' => Feature::Kana,
        '\u{2e80}'..='\u{2fff}'
        | '\u{3400}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' => Feature::Han,
        '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff65}' => Feature::Wide,
        '\u{2000}'..='\u{206f}' => Feature::Quote,
        _ => Feature::Symbol,
    }
}
