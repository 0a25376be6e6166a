use super::*;

#[test]
fn names_read_back() {
    for tokenizer in Tokenizer::ALL {
        assert_eq!(Tokenizer::parse(tokenizer.as_str()), Some(tokenizer));
    }
    assert_eq!(Tokenizer::parse("gpt-9"), None);
}

#[test]
fn models_have_their_familys_tokenizer() {
    for (tokenizer, models) in [
        (
            Some(Tokenizer::O200kBase),
            &[
                "gpt-4o",
                "gpt-4o-mini-2024-07-18",
                "GPT-4.1",
                "gpt-5.1",
                "openai/gpt-5",
                "o1",
                "o3-mini",
                "o4-mini",
                "ft:gpt-4o:acme",
            ][..],
        ),
        (
            Some(Tokenizer::Cl100kBase),
            &["gpt-4", "gpt-4-turbo", "gpt-4-32k-0613", "gpt-3.5-turbo"][..],
        ),
        (
            Some(Tokenizer::ClaudeEstimate),
            &["claude-2.1", "claude-sonnet-4-5", "anthropic/claude-opus-4.1"][..],
        ),
        (
            Some(Tokenizer::GeminiEstimate),
            &[
                "gemini-2.5-pro",
                "models/gemini-2.0-flash",
                "google/gemma-3-27b-it",
            ][..],
        ),
        (
            None,
            &[
                "",
                "/",
                "o",
                "o30",
                "gpt",
                "gpt-40",
                "opus",
                "claudette",
                "llama-3",
                "gpt-4o/llama",
            ][..],
        ),
    ] {
        for model in models {
            assert_eq!(Tokenizer::for_model(model), tokenizer, "{model}");
        }
    }
}

#[test]
fn a_context_is_counted_as_its_model_unless_it_says_otherwise() {
    for (model, said, tokenizer) in [
        (Some("claude-2.1"), None, Tokenizer::ClaudeEstimate),
        (Some("claude-2.1"), Some(Tokenizer::Estimate), Tokenizer::Estimate),
        (Some("ours"), None, Tokenizer::O200kBase),
        (None, None, Tokenizer::O200kBase),
    ] {
        let new = crate::NewContext {
            model_id: model.map(str::to_owned),
            tokenizer: said,
            ..crate::NewContext::of_agent("a")
        };
        let id = crate::ContextId::parse("c").unwrap();
        let context = new.clone().into_context(id, crate::Timestamp::default());
        assert_eq!(context.tokenizer, tokenizer, "{model:?}");
        assert_eq!(
            new.differs_from(&context),
            None,
            "creating it again is no conflict"
        );
    }
}

#[test]
fn estimates_round_up() {
    assert_eq!(Tokenizer::Estimate.count("abcde"), 2);
    assert_eq!(
        Tokenizer::Estimate.count_item("", 2),
        TOKENS_PER_ITEM + 2 * TOKENS_PER_MEDIA
    );
}

/// Texts with counts by public implementations; `calibration/README.md` says which.
mod corpus {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Entry {
        kind: String,
        text: String,
        #[cfg(feature = "tokenizers")]
        o200k: u32,
        #[cfg(feature = "tokenizers")]
        cl100k: u32,
        claude: u32,
        gemini: u32,
    }

    fn entries() -> Vec<Entry> {
        include_str!("../../calibration/corpus.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    #[cfg(feature = "tokenizers")]
    fn exact_counts_are_the_reference_implementations() {
        let entries = entries();
        assert!(entries.len() > 300);
        for entry in entries {
            assert_eq!(
                Tokenizer::O200kBase.count(&entry.text),
                entry.o200k,
                "{:?}",
                entry.text
            );
            assert_eq!(
                Tokenizer::Cl100kBase.count(&entry.text),
                entry.cl100k,
                "{:?}",
                entry.text
            );
        }
    }

    /// Sums over the held-out half, whatever kind they are of: what the script printed, to the token. A walk or a weight
    /// that differs from the script's shows here.
    #[test]
    fn estimates_are_the_calibrations() {
        let mut seen = std::collections::HashMap::new();
        let held_out: Vec<Entry> = entries()
            .into_iter()
            .filter(|entry| entry.kind != "edge")
            .filter(|entry| {
                let seen = seen.entry(entry.kind.clone()).or_insert(0);
                *seen += 1;
                *seen % 2 == 0
            })
            .collect();
        let sum = |count: fn(&Entry) -> u32| held_out.iter().map(count).sum::<u32>();
        assert_eq!(sum(|entry| entry.claude), 14_633);
        assert_eq!(sum(|entry| Tokenizer::ClaudeEstimate.count(&entry.text)), 14_523);
        assert_eq!(sum(|entry| entry.gemini), 15_087);
        assert_eq!(sum(|entry| Tokenizer::GeminiEstimate.count(&entry.text)), 14_912);
    }
}

#[test]
fn estimates_of_hostile_texts_are_never_nothing() {
    for tokenizer in [Tokenizer::ClaudeEstimate, Tokenizer::GeminiEstimate] {
        assert_eq!(tokenizer.count(""), 0);
        for unit in [
            "a", "A", " ", "\n", "!", "!?", "0", "0a", "日", "😀", "\u{301}", "a b", "\0",
        ] {
            let tokens = tokenizer.count(&unit.repeat(100_000));
            assert!(tokens > 100_000 / 64, "{tokenizer} {unit:?} {tokens}");
        }
    }
}

/// Our counts and pieces are the library's.
#[cfg(feature = "tokenizers")]
mod exactness {
    use proptest::prelude::*;

    use super::super::pieces::Pattern;
    use super::*;

    #[track_caller]
    fn assert_exact(text: &str) {
        for (pattern, library, tokenizer) in [
            (Pattern::O200k, bpe_openai::o200k_base(), Tokenizer::O200kBase),
            (Pattern::Cl100k, bpe_openai::cl100k_base(), Tokenizer::Cl100kBase),
        ] {
            let mut at = 0;
            for piece in library.split(text) {
                let end = pattern.piece_end(text, at);
                assert_eq!(text.get(at..end), Some(piece), "{pattern:?} at {at} of {text:?}");
                at = end;
            }
            assert_eq!(at, text.len());
            assert_eq!(
                tokenizer.count(text) as usize,
                library.count(text),
                "{tokenizer} {text:?}"
            );
        }
    }

    /// Whatever an alternative of the expressions, or its backtracking, tells apart.
    const FRAGMENTS: &[&str] = &[
        " ",
        "  ",
        "   ",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\u{b}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{3000}",
        "\0",
        "a",
        "b",
        "the",
        "word",
        "A",
        "B",
        "ABC",
        "Word",
        "camelCase",
        "HTTPServer",
        "x1",
        "snake_case",
        "ß",
        "é",
        "Ä",
        "ÄÖ",
        "σς",
        "Москва",
        "ДА",
        "ǅ",
        "ʰ",
        "ʰʰ",
        "日",
        "日本語",
        "カタカナ",
        "한국어",
        "ไทย",
        "हिन्दी",
        "العربية",
        "עברית",
        "\u{301}",
        "\u{301}\u{302}",
        "\u{345}",
        "\u{20dd}",
        "e\u{301}",
        "0",
        "1",
        "12",
        "123",
        "1234",
        "1234567",
        "²",
        "Ⅷ",
        "٣٤٥",
        "½",
        "'",
        "''",
        "’",
        "'s",
        "'S",
        "'ſ",
        "'t",
        "'T",
        "'re",
        "'RE",
        "'rE",
        "'ve",
        "'m",
        "'ll",
        "'Ll",
        "'LL",
        "'l",
        "'d",
        "'v",
        "'x",
        ".",
        ",",
        "!",
        "?!",
        "...",
        "-",
        "--",
        "_",
        "/",
        "//",
        "/\n",
        "\n/",
        "\\",
        "\"",
        "(",
        "){",
        "};",
        "=>",
        "::",
        "#",
        "$",
        "€",
        "😀",
        "👩‍👩‍👧",
        "🇩🇪",
        "\u{200d}",
        "\u{fe0f}",
        "\u{feff}",
        "\u{ad}",
        "<|endoftext|>",
        "SGVsbG8=",
        "\u{10ffff}",
        "\u{1d400}",
        "ﬁ",
        "ſ",
        "K",
    ];

    fn texts() -> impl Strategy<Value = String> {
        let fragment = prop_oneof![
            8 => prop::sample::select(FRAGMENTS).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
            1 => (0_u8..128).prop_map(|byte| char::from(byte).to_string()),
            1 => (prop::sample::select(FRAGMENTS), 2..20_usize).prop_map(|(fragment, times)| fragment.repeat(times)),
        ];
        prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
    }

    proptest! {
        /// `PROPTEST_CASES=300000` makes it 2.4 million texts.
        #[test]
        fn counts_are_the_librarys(texts in prop::collection::vec(texts(), 8)) {
            for text in texts {
                assert_exact(&text);
            }
        }
    }

    #[test]
    fn every_fragment_beside_every_other_counts_as_the_librarys() {
        for first in FRAGMENTS {
            for second in FRAGMENTS {
                assert_exact(&format!("{first}{second}"));
                assert_exact(&format!("{first}{second}{first}"));
                assert_exact(&format!(" {first}{second} {first}a"));
            }
        }
    }

    /// All characters up to U+33FF, a fifth of the rest; their classes are compared one by one in `classes.rs`.
    #[test]
    fn characters_of_all_kinds_count_as_the_librarys() {
        let mut text = String::new();
        let codes: Vec<u32> = (0..0x3400).chain((0x3400..=0x32000).step_by(5)).collect();
        for block in codes.chunks(64) {
            text.clear();
            for char in block.iter().copied().filter_map(char::from_u32) {
                text.extend(['a', char, 'B', char, ' ', char]);
            }
            assert_exact(&text);
        }
    }

    /// Where one step for each pair of bytes would be a thousand million; the bench does the same with 1 MiB.
    #[test]
    fn hostile_texts_count_as_the_librarys() {
        const LEN: usize = 1 << 15;
        for unit in [
            "a", "A", " ", "\n", " \n", "\t ", "日A", "A日", "\u{301}A", "'", "9", "!", "/", "aA", "Aa", "😀",
        ] {
            let text = unit.repeat(LEN / unit.len());
            assert_exact(&text);
            assert_exact(&format!("{text}x"));
        }
        let mut state = 1_u32;
        let base64: String = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 26) as usize],
            )
        })
        .take(LEN)
        .collect();
        assert_exact(&base64);
        assert_exact(&base64.replace(|char: char| !char.is_ascii_lowercase(), "q"));
    }

    #[test]
    fn counts_match_the_published_examples() {
        // The two encodings' counts in OpenAI's tokenizer example text.
        assert_eq!(Tokenizer::Cl100kBase.count("antidisestablishmentarianism"), 6);
        assert_eq!(Tokenizer::O200kBase.count("2 + 2 = 4"), 7);
        assert_eq!(Tokenizer::O200kBase.count(""), 0);
    }
}
