use schemars::JsonSchema;
use serde_json::json;

use super::*;

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Inner {
    count: u32,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Arguments {
    /// A name.
    id: String,
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
    #[schemars(length(min = 1, max = 2))]
    labels: Option<Vec<String>>,
    flag: Option<bool>,
    inner: Option<Inner>,
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is not an object"),
    }
}

#[test]
fn a_schema_has_one_type_per_property_and_nothing_to_follow() {
    let schema = Value::Object((*of_arguments::<Arguments>()).clone());
    assert_eq!(
        schema,
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["id"],
            "properties": {
                "id": {"type": "string", "description": "A name."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 50},
                "labels": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
                "flag": {"type": "boolean"},
                "inner": {
                    "type": "object",
                    "properties": {"count": {"type": "integer"}},
                    "required": ["count"],
                },
            },
        })
    );
}

#[test]
fn arguments_that_break_the_schema_name_the_field_and_the_limit() {
    let schema = of_arguments::<Arguments>();
    for (arguments, expected) in [
        (json!({}), "id: is required"),
        (json!({"id": 7}), "id: is not a string"),
        (json!({"id": null}), "id: is null; leave it out instead"),
        (
            json!({"id": "a", "nonsense": 1}),
            "nonsense: is not an argument of this tool",
        ),
        (
            json!({"id": "a", "limit": 0}),
            "limit: is 0; it must be a whole number from 1 to 50",
        ),
        (
            json!({"id": "a", "limit": 51}),
            "limit: is 51; it must be a whole number from 1 to 50",
        ),
        (
            json!({"id": "a", "limit": -1}),
            "limit: is -1; it must be a whole number from 1 to 50",
        ),
        (
            json!({"id": "a", "limit": 1.5}),
            "limit: is 1.5; it must be a whole number from 1 to 50",
        ),
        (json!({"id": "a", "labels": "x"}), "labels: is not an array"),
        (
            json!({"id": "a", "labels": []}),
            "labels: has 0 entries; it must have 1 to 2",
        ),
        (
            json!({"id": "a", "labels": ["x", 1]}),
            "labels[1]: is not a string",
        ),
        (json!({"id": "a", "flag": "yes"}), "flag: is not true or false"),
    ] {
        let problem = check(&schema, &object(arguments.clone()))
            .unwrap_err()
            .to_string();
        assert_eq!(problem, expected, "for {arguments}");
    }
    assert!(
        check(
            &schema,
            &object(json!({"id": "a", "limit": 50, "labels": ["x"], "flag": true}))
        )
        .is_ok()
    );
}

#[test]
fn a_missing_argument_is_explained_by_its_description() {
    let invalid = check(&of_arguments::<Arguments>(), &JsonObject::new()).unwrap_err();
    assert_eq!(invalid.hint.as_deref(), Some("A name"));
}
