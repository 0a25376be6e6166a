use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{Errors, Loader};

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Settings {
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("format" = "duration"))]
    expires: Option<Duration>,
    #[schemars(with = "String", extend("format" = "byte-size"))]
    memory: ByteSize,
    #[schemars(range(min = 0.0, max = 1.0))]
    ratio: f64,
    #[schemars(length(min = 1, max = 3))]
    word: Option<String>,
    #[schemars(length(max = 2))]
    many: Vec<u8>,
    signed: i8,
    huge: u64,
    level: Level,
    rollout: Rollout,
    auth: Auth,
    limiter: Limiter,
    upstreams: BTreeMap<String, Upstream>,
    maybe: Option<Upstream>,
    free: serde_json::Map<String, serde_json::Value>,
}

/// Each variant has its documentation, which changes the schema from `enum` to `oneOf`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// Nothing.
    #[default]
    Off,
    /// Everything.
    Verbose,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Rollout {
    Named(Switch),
    Percent(#[schemars(range(max = 100))] u8),
}

impl Default for Rollout {
    fn default() -> Self {
        Self::Named(Switch::Off)
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Switch {
    Off,
    On,
    Shadow,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Auth {
    Open { note: String },
    Token(TokenAuth),
}

impl Default for Auth {
    fn default() -> Self {
        Self::Open {
            note: "default".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct TokenAuth {
    #[serde(skip_serializing)]
    #[schemars(with = "String")]
    key: SecretString,
    #[serde(default)]
    rounds: u8,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Limiter {
    Off,
    Fixed { rate: u32 },
}

impl Default for Limiter {
    fn default() -> Self {
        Self::Fixed { rate: 10 }
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Upstream {
    url: String,
    weight: u8,
}

fn load(json: &str) -> Result<crate::Loaded<Settings>, Errors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    std::fs::write(&path, json).unwrap();
    let no_variables: [(&str, &str); 0] = [];
    Loader::new()
        .file(path)
        .env_from("APP_", no_variables)
        .load(|_: &Settings, _| {})
}

fn settings(json: &str) -> Settings {
    load(json).unwrap().value
}

/// The problems without their source.
fn problems(json: &str) -> Vec<String> {
    let show = |problem: crate::Problem| {
        let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{}: {}{hint}", problem.path, problem.message)
    };
    load(json).unwrap_err().into_iter().map(show).collect()
}

#[test]
fn optional_durations_are_set_unset_and_refused() {
    assert_eq!(
        settings(r#"{"expires": "1h 30m"}"#).expires,
        Some(Duration::from_mins(90))
    );
    assert_eq!(settings(r#"{"expires": null}"#).expires, None);
    assert_eq!(
        problems(r#"{"expires": "soonish"}"#),
        ["expires: `soonish` is not a duration; write a number and a unit: `100ms`, `90s`, `5m`, `1h`"]
    );
}

#[test]
fn sizes_read_units_and_plain_bytes() {
    assert_eq!(settings(r#"{"memory": "512MiB"}"#).memory, ByteSize::mib(512));
    assert_eq!(settings(r#"{"memory": 4096}"#).memory, ByteSize::b(4096));
    assert_eq!(
        problems(r#"{"memory": "512MiBB"}"#),
        ["memory: `512MiBB` is not a size; did you mean `512MiB`?"]
    );
    assert_eq!(
        problems(r#"{"memory": -1}"#),
        [
            "memory: expected a size, found the number -1; write a number and a unit: `64KiB`, `512MiB`, `1GiB`"
        ]
    );
}

#[test]
fn bounds_of_numbers_texts_and_lists_hold_at_their_ends() {
    let fits = r#"{"ratio": 1, "word": "abc", "many": [1, 2], "signed": -128, "huge": 18446744073709551615}"#;
    assert_eq!(settings(fits).huge, u64::MAX);
    assert_eq!(
        problems(
            r#"{"ratio": 1.01, "word": "abcd", "many": [1, 2, 300], "signed": -129, "huge": 18446744073709551616}"#
        ),
        [
            "huge: expected an integer, found the number 18446744073709552000",
            "many: has 3 elements, at most 2 are allowed",
            "many.2: 300 is out of range; it takes 0 to 255",
            "ratio: 1.01 is out of range; it takes 0 to 1",
            "signed: -129 is out of range; it takes -128 to 127",
            "word: is 4 characters long, at most 3 are allowed",
        ]
    );
    assert_eq!(problems(r#"{"word": ""}"#), ["word: must not be empty"]);
}

#[test]
fn a_fraction_is_no_integer() {
    assert_eq!(
        problems(r#"{"signed": 1.5}"#),
        ["signed: expected an integer, found the number 1.5"]
    );
}

#[test]
fn a_choice_suggests_the_nearest_one() {
    assert!(matches!(
        settings(r#"{"level": "verbose"}"#).level,
        Level::Verbose
    ));
    assert_eq!(
        problems(r#"{"level": "verbos"}"#),
        ["level: `verbos` is not one of the choices; did you mean `verbose`? It is one of off, verbose"]
    );
}

#[test]
fn a_choice_or_a_number_takes_both() {
    assert!(matches!(
        settings(r#"{"rollout": "shadow"}"#).rollout,
        Rollout::Named(Switch::Shadow)
    ));
    assert!(matches!(
        settings(r#"{"rollout": 25}"#).rollout,
        Rollout::Percent(25)
    ));
    assert_eq!(
        problems(r#"{"rollout": 101}"#),
        ["rollout: 101 is out of range; it takes 0 to 100"]
    );
    assert_eq!(
        problems(r#"{"rollout": "shadwo"}"#),
        [
            "rollout: `shadwo` is not one of the choices; did you mean `shadow`? It is one of off, on, shadow or an integer"
        ]
    );
    assert_eq!(
        problems(r#"{"rollout": [1]}"#),
        ["rollout: expected one of off, on, shadow or an integer, found a list"]
    );
}

#[test]
fn a_tagged_section_is_checked_against_the_variant_it_names() {
    let token = settings(r#"{"auth": {"kind": "token", "key": "k", "rounds": 3}}"#).auth;
    assert!(matches!(token, Auth::Token(token) if token.key.expose_secret() == "k" && token.rounds == 3));
    assert_eq!(
        problems(r#"{"auth": {"kind": "token", "key": "k", "round": 3}}"#),
        ["auth.round: unknown key; did you mean `rounds`?"]
    );
    assert_eq!(
        problems(r#"{"auth": {"kind": "token"}}"#),
        ["auth.key: is missing; it takes text"]
    );
    assert_eq!(
        problems(r#"{"auth": {"kind": "tokn"}}"#),
        ["auth.kind: `tokn` is not one of the choices; did you mean `token`? It is one of open, token"]
    );
    assert_eq!(
        problems(r#"{"auth": {}}"#),
        ["auth.kind: is missing; it is one of open, token"]
    );
    assert_eq!(
        problems(r#"{"auth": {"kind": 3}}"#),
        ["auth.kind: expected text, found a number; it is one of open, token"]
    );
}

#[test]
fn a_variant_that_was_given_does_not_inherit_the_default_ones_fields() {
    // The default is `{kind: open, note: default}`.
    assert_eq!(
        problems(r#"{"auth": {"kind": "open"}}"#),
        ["auth.note: is missing; it takes text"]
    );
}

#[test]
fn a_variant_named_by_its_key_is_checked_inside() {
    assert!(matches!(
        settings(r#"{"limiter": {"fixed": {"rate": 3}}}"#).limiter,
        Limiter::Fixed { rate: 3 }
    ));
    assert!(matches!(settings(r#"{"limiter": "off"}"#).limiter, Limiter::Off));
    assert_eq!(
        problems(r#"{"limiter": {"fixed": {"rat": 3, "rate": 1}}}"#),
        ["limiter.fixed.rat: unknown key; did you mean `rate`?"]
    );
}

#[test]
fn maps_take_any_name_and_check_what_is_below() {
    let loaded =
        settings(r#"{"upstreams": {"a.example": {"url": "x"}}, "free": {"any": [1, {"thing": null}]}}"#);
    assert_eq!(loaded.upstreams["a.example"].url, "x");
    assert_eq!(
        problems(r#"{"upstreams": {"a.example": {"ur": "x"}}}"#),
        ["upstreams.\"a.example\".ur: unknown key; did you mean `url`?"]
    );
}

#[test]
fn an_optional_section_is_filled_with_its_own_defaults() {
    assert_eq!(settings(r#"{"maybe": {"weight": 2}}"#).maybe.unwrap().url, "");
    assert!(settings(r#"{"maybe": null}"#).maybe.is_none());
    assert_eq!(
        problems(r#"{"maybe": 3}"#),
        ["maybe: expected a section, found the number 3"]
    );
}

#[test]
fn a_long_text_is_shortened_and_its_control_characters_escaped() {
    let text = format!("\\u001b{}", "x".repeat(100));
    let reported = problems(&format!(r#"{{"signed": "{text}"}}"#));
    assert_eq!(
        reported,
        [format!(
            "signed: expected an integer, found text `\\u{{1b}}{}…`",
            "x".repeat(39)
        )]
    );
}
