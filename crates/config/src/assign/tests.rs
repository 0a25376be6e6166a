use std::collections::BTreeMap;

use figment::value::{Num, Value};
use proptest::prelude::*;
use schemars::{JsonSchema, SchemaGenerator};

use super::list::find;
use super::*;

#[derive(JsonSchema)]
#[expect(dead_code, reason = "read through its schema only")]
struct Settings {
    text: String,
    number: u32,
    ratio: f64,
    flag: bool,
    maybe: Option<u32>,
    list: Vec<u32>,
    words: Vec<String>,
    map: BTreeMap<String, Inner>,
    level: Level,
    rollout: Rollout,
    free: serde_json::Value,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "read through its schema only")]
struct Inner {
    size: u32,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "read through its schema only")]
enum Level {
    On,
    Off,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "read through its schema only")]
enum Rollout {
    Named(Level),
    Percent(u8),
}

fn layer_of(variables: &[(&str, &str)]) -> (Dict, Vec<String>) {
    let schema = SchemaGenerator::default()
        .into_root_schema_for::<Settings>()
        .to_value();
    let assignment = |(name, text): &(&str, &str)| Assignment {
        prefix: "P_".to_owned(),
        segments: name.split("__").map(str::to_owned).collect(),
        text: (*text).to_owned(),
        source: Source::Environment {
            variable: format!("P_{name}"),
        },
    };
    let mut stack = Stack::new();
    let mut problems = Vec::new();
    let assignments = variables.iter().map(assignment).collect();
    push(
        &mut stack,
        &Dict::new(),
        Schema::new(&schema),
        assignments,
        &mut problems,
    );
    (stack.dict(), problems.iter().map(Problem::to_string).collect())
}

fn value_of(name: &str, text: &str) -> Value {
    let (dict, problems) = layer_of(&[(name, text)]);
    assert_eq!(problems, Vec::<String>::new());
    dict[&name.to_lowercase()].clone()
}

#[test]
fn the_schema_decides_the_type_of_a_text() {
    assert_eq!(value_of("TEXT", "42"), Value::from("42"));
    assert_eq!(value_of("NUMBER", " 42 "), Value::from(42_u64));
    assert_eq!(value_of("RATIO", "0.5"), Value::from(0.5));
    assert_eq!(value_of("FLAG", "1"), Value::from(true));
    assert_eq!(value_of("FLAG", "false"), Value::from(false));
    assert!(matches!(value_of("MAYBE", "null"), Value::Empty(..)));
    assert_eq!(value_of("LEVEL", "on"), Value::from("on"));
    assert_eq!(value_of("ROLLOUT", "off"), Value::from("off"));
    assert!(matches!(value_of("ROLLOUT", "25"), Value::Num(_, Num::U64(25))));
}

#[test]
fn what_does_not_fit_stays_text_for_the_check() {
    assert_eq!(value_of("NUMBER", "many"), Value::from("many"));
    assert_eq!(value_of("NUMBER", ""), Value::from(""));
    assert_eq!(value_of("FLAG", "yes"), Value::from("yes"));
    assert_eq!(value_of("NUMBER", "null"), Value::from("null"));
}

#[test]
fn lists_read_commas_or_json() {
    let numbers = Value::from(vec![1_u64, 2]);
    assert_eq!(value_of("LIST", "1, 2"), numbers);
    assert_eq!(value_of("LIST", "[1, 2]"), numbers);
    assert_eq!(value_of("LIST", ""), Value::from(Vec::<u64>::new()));
    assert_eq!(value_of("WORDS", "1,a b"), Value::from(vec!["1", "a b"]));
}

#[test]
fn keys_of_maps_are_lower_case_and_their_values_checked_names() {
    let (dict, problems) = layer_of(&[("MAP__EAST__SIZE", "3"), ("MAP__WEST__SISE", "3")]);
    assert_eq!(
        problems,
        ["P_MAP__WEST__SISE: map.west.sise: unknown key; did you mean `P_MAP__WEST__SIZE`?"]
    );
    assert_eq!(
        find(&Value::from(dict), &KeyPath::from("map.east.size")),
        Some(&Value::from(3_u64))
    );
}

#[test]
fn a_value_without_schema_takes_any_key_below_it() {
    let (dict, problems) = layer_of(&[("FREE__A__B", "x")]);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        find(&Value::from(dict), &KeyPath::from("free.a.b")),
        Some(&Value::from("x"))
    );
}

#[test]
fn a_list_has_no_named_elements() {
    let (_, problems) = layer_of(&[("LIST__FIRST", "1")]);
    assert_eq!(
        problems,
        ["P_LIST__FIRST: list.FIRST: a list has no keys; name an element by its index, from 0"]
    );
}

#[test]
fn a_key_of_a_scalar_is_unknown() {
    let (_, problems) = layer_of(&[("NUMBER__X", "1")]);
    assert_eq!(problems, ["P_NUMBER__X: number.x: unknown key"]);
}

#[test]
fn two_spellings_of_one_key_are_a_conflict() {
    let (_, problems) = layer_of(&[("NUMBER", "1"), ("Number", "2")]);
    assert_eq!(
        problems,
        ["P_Number: number: P_NUMBER sets the same key; remove one of the two"]
    );
}

#[test]
fn elements_are_set_in_the_order_of_their_indices() {
    let many: Vec<_> = (0..12)
        .map(|index| (format!("LIST__{index}"), index.to_string()))
        .collect();
    let many: Vec<_> = many
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let (dict, problems) = layer_of(&many);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        dict.get("list"),
        Some(&Value::from((0..12_u64).collect::<Vec<_>>()))
    );
}

proptest! {
    /// A text key holds exactly what its variable holds.
    #[test]
    fn text_is_kept_as_it_is(text in ".*") {
        prop_assert_eq!(value_of("TEXT", &text), Value::from(text));
    }
}
