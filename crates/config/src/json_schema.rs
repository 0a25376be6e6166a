//! The schema for editors and other programs.

use std::collections::BTreeSet;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json};

#[cfg(test)]
mod tests;

/// The JSON Schema (2020-12) of a settings type, as strict as the loader: sections take no unknown keys.
///
/// Durations have the format `human-duration`, because the standard's `duration` is ISO 8601 (`PT5M`).
pub fn json_schema<T: JsonSchema>() -> Json {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    let mut open = BTreeSet::new();
    composed(&schema, &mut open);
    tighten(&mut schema, "#", &open);
    schema
}

/// The definitions that are part of a larger section (a variant's fields beside its tag): closing them
/// would reject the rest of that section.
fn composed(schema: &Json, open: &mut BTreeSet<String>) {
    let references = |schema: &Json| schema.get("$ref").and_then(Json::as_str).map(str::to_owned);
    if schema.get("properties").is_some() {
        open.extend(references(schema));
    }
    if let Some(members) = schema.get("allOf").and_then(Json::as_array) {
        open.extend(members.iter().filter_map(references));
    }
    match schema {
        Json::Object(map) => map.values().for_each(|inner| composed(inner, open)),
        Json::Array(items) => items.iter().for_each(|inner| composed(inner, open)),
        _ => {}
    }
}

fn tighten(schema: &mut Json, pointer: &str, open: &BTreeSet<String>) {
    match schema {
        Json::Object(map) => {
            if map.get("format").and_then(Json::as_str) == Some("duration") {
                map.insert("format".to_owned(), Json::from("human-duration"));
            }
            if !open.contains(pointer) {
                close(map);
            }
            for (key, inner) in map.iter_mut() {
                // The values of these are data, whatever they look like.
                if !matches!(key.as_str(), "default" | "const" | "enum" | "examples") {
                    tighten(inner, &format!("{pointer}/{key}"), open);
                }
            }
        }
        Json::Array(items) => {
            for (index, inner) in items.iter_mut().enumerate() {
                tighten(inner, &format!("{pointer}/{index}"), open);
            }
        }
        _ => {}
    }
}

fn close(map: &mut Map<String, Json>) {
    let is_section =
        map.get("properties").is_some_and(Json::is_object) && map.get("type") == Some(&Json::from("object"));
    if !is_section || map.contains_key("additionalProperties") {
        return;
    }
    let is_whole = !["$ref", "allOf", "anyOf", "oneOf"]
        .iter()
        .any(|key| map.contains_key(*key));
    let keyword = if is_whole {
        "additionalProperties"
    } else {
        "unevaluatedProperties"
    };
    map.insert(keyword.to_owned(), Json::Bool(false));
}
