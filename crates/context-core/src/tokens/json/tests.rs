//! Against files that are made here, with counts that follow from how they are made.

use serde_json::{Value, json};

use super::*;

/// A file whose words are those of `words`; everything else is unknown. Words are what blanks part.
fn by_words(words: &[&str]) -> Value {
    let mut vocabulary: serde_json::Map<String, Value> = serde_json::Map::new();
    for word in std::iter::once(&"[UNK]").chain(words) {
        vocabulary.insert((*word).to_owned(), vocabulary.len().into());
    }
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[UNK]"},
        "added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}

/// The character that stands for a byte in a byte-level vocabulary: itself if it prints, else one from 256 on, in order.
fn stands_for(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !prints(*other)).count();
    char::from_u32(256 + u32::try_from(before).unwrap()).unwrap()
}

/// Bytes, and what these merges make of them.
fn by_bytes(merges: &[(&str, &str)], split: bool) -> Value {
    let mut vocabulary: serde_json::Map<String, Value> = serde_json::Map::new();
    let bytes = (0..=255).map(|byte| stands_for(byte).to_string());
    for token in bytes.chain(merges.iter().map(|(a, b)| format!("{a}{b}"))) {
        vocabulary.insert(token, vocabulary.len().into());
    }
    let merges: Vec<Value> = merges.iter().map(|(a, b)| json!([a, b])).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": split},
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges},
    })
}

fn parsed(file: &Value) -> Json {
    Json::parse(file.to_string().as_bytes()).unwrap()
}

#[test]
fn words_are_counted_whatever_the_file_says_of_truncation_and_padding() {
    let json = parsed(&by_words(&["the", "cat"]));
    for (text, tokens) in [("", 0), ("the", 1), ("The CAT  sat\non the mat", 6), ("猫 🙂", 2)] {
        assert_eq!(json.count(text), tokens, "{text:?}");
    }
    assert_eq!(
        json.count(&"the ".repeat(100_000)),
        100_000,
        "cuts are where words end"
    );
}

#[test]
fn merges_are_made_in_their_order_and_not_across_words() {
    let merges = [
        ("t", "h"),
        ("th", "e"),
        ("\u{120}", "the"),
        ("a", "a"),
        ("aa", "aa"),
    ];
    let json = parsed(&by_bytes(&merges, true));
    // `the`, ` the`, `t` `e`, the two bytes of ö, eight a as two of four, and three as two and one.
    for (text, tokens) in [
        ("the", 1),
        ("the the", 2),
        ("te", 2),
        ("ö", 2),
        ("aaaaaaaa", 2),
        ("aaa", 2),
        ("the\nthe", 3),
        ("xthe", 2),
    ] {
        assert_eq!(json.count(text), tokens, "{text:?}");
    }
}

#[test]
fn a_file_that_is_none_is_refused() {
    for wrong in ["", "{}", "[1]", r#"{"version":"1.0","model":{"type":"Nothing"}}"#] {
        assert!(Json::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

// What is worse than linear here takes long, and fails by the time limit of whoever runs the tests.
#[test]
fn hostile_texts_are_counted_piece_by_piece() {
    let merges = [("a", "a"), ("aa", "aa"), ("\u{120}", "\u{120}")];
    for split in [true, false] {
        let json = parsed(&by_bytes(&merges, split));
        // Several pieces; the library is slow without optimization.
        let bytes = 1 << 18;
        assert_eq!(json.count(&"a".repeat(bytes)), bytes / 4);
        for (unit, least) in [
            (" ", bytes / 2),
            ("\n", bytes),
            ("QmFzZTY0", bytes),
            (" \n", bytes / 2),
            ("=!", bytes),
        ] {
            let text: String = unit.chars().cycle().take(bytes).collect();
            let tokens = json.count(&text);
            assert!((least..=bytes).contains(&tokens), "{unit:?}: {tokens}");
        }
    }
}

#[test]
fn pieces_end_where_lines_or_words_do() {
    let line = format!("{}\n", "x".repeat(99));
    let text = line.repeat(2000);
    assert_eq!(piece_end(&text) % 100, 0);
    let words = "word ".repeat(40_000);
    assert_eq!(words.get(piece_end(&words)..).unwrap().chars().next(), Some(' '));
    for text in ["é".repeat(100_000), "🙂".repeat(50_000)] {
        let end = piece_end(&text);
        assert!(end <= PIECE_BYTES && end > PIECE_BYTES - 4 && text.is_char_boundary(end));
    }
    assert_eq!(piece_end("short"), 5);
}
