use schemars::JsonSchema;
use serde_json::json;

use super::*;

#[derive(JsonSchema)]
#[expect(dead_code, reason = "read through its schema only")]
struct Settings {
    inner: Inner,
    tagged: Tagged,
    #[schemars(with = "String", extend("format" = "duration"))]
    wait: u64,
    map: std::collections::BTreeMap<String, u8>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "read through its schema only")]
struct Inner {
    size: u8,
}

#[derive(JsonSchema)]
#[serde(tag = "kind")]
#[expect(dead_code, reason = "read through its schema only")]
enum Tagged {
    Part(Part),
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "read through its schema only")]
struct Part {
    size: u8,
}

#[test]
fn sections_are_closed_and_maps_stay_open() {
    let schema = json_schema::<Settings>();
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["$defs"]["Inner"]["additionalProperties"], json!(false));
    assert!(schema["properties"]["map"]["additionalProperties"].is_object());
}

#[test]
fn the_fields_of_a_tagged_variant_are_closed_together_with_the_tag() {
    let schema = json_schema::<Settings>();
    assert_eq!(
        schema["$defs"]["Tagged"]["oneOf"][0]["unevaluatedProperties"],
        json!(false)
    );
    assert_eq!(schema["$defs"]["Part"].get("additionalProperties"), None);
}

#[test]
fn durations_are_not_declared_as_iso_8601() {
    assert_eq!(
        json_schema::<Settings>()["properties"]["wait"]["format"],
        json!("human-duration")
    );
}
