use std::path::Path;

use crate::node::{Data, Entry, MAX_DEPTH, Node, SyntaxError};

fn parse(name: &str, text: &str) -> Result<Node, SyntaxError> {
    super::for_path(Path::new(name)).unwrap()(text)
}

/// `key@line=value`, sections in braces.
fn outline(node: &Node) -> String {
    match &node.data {
        Data::Null => "null".to_owned(),
        Data::Bool(bool) => bool.to_string(),
        Data::Int(int) => int.to_string(),
        Data::Float(float) => format!("{float:?}"),
        Data::Text(text) => format!("{text:?}"),
        Data::List(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|item| format!("@{}={}", item.line, outline(item)))
                .collect();
            format!("[{}]", items.join(" "))
        }
        Data::Map(entries) => {
            let entry = |entry: &Entry| format!("{}@{}={}", entry.key, entry.line, outline(&entry.value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
        }
    }
}

fn read(name: &str, text: &str) -> String {
    outline(&parse(name, text).unwrap())
}

#[cfg(all(feature = "yaml", feature = "toml"))]
#[test]
fn the_three_formats_give_the_same_tree() {
    let yaml = read("a.yaml", "a: 1\nb:\n  c: [x, 2.5]\n  d: true\n");
    let toml = read("a.TOML", "a = 1\n[b]\nc = ['x', 2.5]\nd = true\n");
    let json = read(
        "a.json",
        "{\"a\": 1,\n\"b\": {\n\"c\": [\"x\", 2.5],\n\"d\": true}}",
    );
    assert_eq!(yaml, "{a@1=1 b@2={c@3=[@3=\"x\" @3=2.5] d@4=true}}");
    assert_eq!(toml, yaml);
    assert_eq!(json, yaml);
}

#[cfg(feature = "yaml")]
mod yaml {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let text = "[~, null, '', true, \"true\", 007, 0x1F, 0o17, -3, +3, 1e3, .5, .inf, no, on, 5m, 1.2.3, inf, 0xzz]";
        let expected = "[@1=null @1=null @1=\"\" @1=true @1=\"true\" @1=7 @1=31 @1=15 @1=-3 @1=3 @1=1000.0 @1=0.5 @1=inf \
                        @1=\"no\" @1=\"on\" @1=\"5m\" @1=\"1.2.3\" @1=\"inf\" @1=\"0xzz\"]";
        assert_eq!(read("a.yaml", text), expected);
    }

    #[test]
    fn aliases_are_expanded_and_placed_where_they_are_used() {
        let text = "a: &x {s: 1}\nb: *x\n";
        assert_eq!(read("a.yaml", text), "{a@1={s@1=1} b@2={s@1=1}}");
    }

    #[test]
    fn an_alias_bomb_is_stopped_before_it_is_built() {
        let mut lines = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x, x]".to_owned()];
        for level in 1..20 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            lines.push(format!("a{level}: &a{level} [{below}]"));
        }
        let error = parse("a.yaml", &lines.join("\n")).unwrap_err();
        assert!(error.message.contains("aliases expanded"), "{error:?}");
    }

    #[test]
    fn duplicates_are_kept_for_the_layer_to_report() {
        assert_eq!(read("a.yaml", "a: 1\na: 2\n"), "{a@1=1 a@2=2}");
    }

    #[test]
    fn a_tab_in_the_indentation_is_named() {
        let error = parse("a.yaml", "a:\n\tb: 1\n").unwrap_err();
        assert_eq!(
            (error.line, error.hint),
            (2, Some("indent with spaces, YAML forbids tabs")),
            "{error:?}"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        // The scanner has a limit of its own, before it hands out an event.
        assert!(parse("a.yaml", &"[".repeat(100_000)).is_err());
        let deep: Vec<_> = (0..=MAX_DEPTH)
            .map(|level| format!("{}a:", " ".repeat(level)))
            .collect();
        let error = parse("a.yaml", &deep.join("\n")).unwrap_err();
        assert_eq!(
            error.message,
            format!("values nest deeper than {MAX_DEPTH} levels")
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_place() {
        let refused = |text: &str| {
            let error = parse("a.yaml", text).unwrap_err();
            format!("{}:{} {}", error.line, error.column, error.message)
        };
        assert_eq!(refused("a: 1\n---\nb: 2\n"), "2:1 a second document begins here");
        assert_eq!(
            refused("a: !secret x\n"),
            "1:4 application tags (`!name`) are not supported"
        );
        assert_eq!(refused("[a, b]: 1\n"), "1:1 a key must be a single word or text");
        assert_eq!(refused("a: &x [*x]\n"), "1:8 an alias inside its own anchor");
    }

    #[test]
    fn an_unclosed_list_gives_the_place_where_it_was_noticed() {
        let error = parse("a.yaml", "a: [1, 2\nb: 3\n").unwrap_err();
        assert!(
            error.line >= 1 && error.column >= 1 && !error.message.is_empty(),
            "{error:?}"
        );
    }
}

#[test]
fn json_syntax_errors_give_line_column_and_what_was_expected() {
    let error = parse("a.json", "{\n  \"a\": 1,\n}").unwrap_err();
    assert_eq!(
        (error.line, error.column, error.message.as_str()),
        (3, 1, "key must be a string")
    );
    let error = parse("a.json", "{\"a\" 1}").unwrap_err();
    assert_eq!((error.line, error.message.as_str()), (1, "expected `:`"));
}

#[test]
fn json_keeps_duplicates_escapes_and_large_integers() {
    let text = "{\"\\u0061\": 18446744073709551615,\n\"a\": \"\\ud83d\\ude00\"}";
    assert_eq!(read("a.json", text), "{a@1=18446744073709551615 a@2=\"😀\"}");
}

#[test]
fn json_nesting_is_bounded() {
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 2), "]".repeat(MAX_DEPTH + 2));
    assert_eq!(
        parse("a.json", &deep).unwrap_err().message,
        format!("values nest deeper than {MAX_DEPTH} levels")
    );
    assert!(parse("a.json", &"[".repeat(10_000)).is_err());
}

#[cfg(feature = "toml")]
mod toml {
    use super::*;

    #[test]
    fn dotted_keys_tables_and_lists_of_tables_have_their_lines() {
        let text = "a.b = 1\n[[c]]\nd = 0x10\n[[c]]\nd = 1_000\n";
        assert_eq!(
            read("a.toml", text),
            "{a@1={b@1=1} c@2=[@2={d@3=16} @4={d@5=1000}]}"
        );
    }

    #[test]
    fn a_duplicate_key_is_a_syntax_error_with_its_place() {
        let error = parse("a.toml", "a = 1\na = 2\n").unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (2, "duplicate key"));
    }

    #[test]
    fn a_missing_value_gives_its_place() {
        let error = parse("a.toml", "a = 1\nb = \n").unwrap_err();
        assert_eq!(error.line, 2, "{error:?}");
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(parse("a.toml", &format!("a = {}", "[".repeat(10_000))).is_err());
    }
}

proptest::proptest! {
    /// No text makes a parser panic.
    #[test]
    fn any_text_is_a_tree_or_an_error(text in ".{0,64}|[\\[\\]{}:,\"'&*!|>a0 \n\t#=-]{0,64}") {
        for name in ["a.yaml", "a.json", "a.toml"] {
            if let Ok(parse) = super::for_path(Path::new(name)) {
                drop(parse(&text));
            }
        }
    }
}
