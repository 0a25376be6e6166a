//! JSON schemas that every client understands, and the check of arguments against them (M2).
//!
//! Clients differ in what they take: some drop a property whose type is a union, some print a warning for
//! each integer format they do not know, some do not follow `$ref`. So a schema of ours has an object at its
//! root, one `type` per property, nothing to follow and no integer formats. That leaves a subset so small that
//! checking it is one short function.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use contextkeep_core::error::Invalid;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::Value;

/// The schema of arguments.
pub(super) fn of_arguments<T: JsonSchema>() -> Arc<JsonObject> {
    generate::<T>(Contract::Deserialize)
}

/// The schema of a result.
pub(super) fn of_result<T: JsonSchema>() -> Arc<JsonObject> {
    generate::<T>(Contract::Serialize)
}

fn generate<T: JsonSchema>(contract: Contract) -> Arc<JsonObject> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.contract = contract;
    });
    match settings.into_generator().into_root_schema_for::<T>().to_value() {
        Value::Object(mut schema) => {
            simplify(&mut schema);
            // The name and the description of a tool say it better.
            schema.remove("description");
            Arc::new(schema)
        }
        other => unreachable!("invariant: the schema of a struct is an object, not {other}"),
    }
}

fn simplify(schema: &mut JsonObject) {
    schema.remove("title");
    schema.remove("format");
    // What is true without saying.
    schema.retain(|key, value| !(key == "additionalProperties" && *value == true));
    schema.retain(|key, value| !(key == "minimum" && *value == 0));
    if let Some(Value::String(text)) = schema.get_mut("description") {
        // Line ends of the source.
        *text = text.replace('\n', " ");
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    unwrap_optional(schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties
            .values_mut()
            .filter_map(Value::as_object_mut)
            .for_each(simplify);
    }
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        simplify(items);
    }
}

/// `anyOf: [X, null]`, which is how an optional struct comes out, becomes `X`.
fn unwrap_optional(schema: &mut JsonObject) {
    let Some(Value::Array(alternatives)) = schema.get_mut("anyOf") else {
        return;
    };
    alternatives.retain(|alternative| alternative.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(only)] = alternatives.as_mut_slice() {
        let only = std::mem::take(only);
        schema.remove("anyOf");
        for (key, value) in only {
            schema.entry(key).or_insert(value);
        }
    }
}

/// Checks arguments against the schema that the client was given.
///
/// # Errors
/// The first field that is not as promised, with the limit that it breaks.
pub(super) fn check(schema: &JsonObject, arguments: &JsonObject) -> Result<(), Invalid> {
    let empty = JsonObject::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    for field in arguments.keys() {
        if !properties.contains_key(field) {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            return Err(Invalid::new(field.clone(), "is not an argument of this tool")
                .hint(format!("use only {}", known.join(", "))));
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for field in required.into_iter().flatten().filter_map(Value::as_str) {
        if !arguments.contains_key(field) {
            return Err(Invalid::new(field.to_owned(), "is required").hint(hint_for(properties.get(field))));
        }
    }
    for (field, value) in arguments {
        if let Some(schema) = properties.get(field) {
            check_value(schema, value, field)?;
        }
    }
    Ok(())
}

fn hint_for(schema: Option<&Value>) -> String {
    schema
        .and_then(|schema| schema.get("description"))
        .and_then(Value::as_str)
        .unwrap_or("send it")
        .trim_end_matches('.')
        .to_owned()
}

fn check_value(schema: &Value, value: &Value, field: &str) -> Result<(), Invalid> {
    let fail = |problem: String| Err(Invalid::new(field.to_owned(), problem).hint(hint_for(Some(schema))));
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if value.is_null() {
        return fail("is null; leave it out instead".to_owned());
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return fail(format!("is {value}; it must be one of {}", names.join(", ")));
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if !value.is_string() => fail("is not a string".to_owned()),
        Some("boolean") if !value.is_boolean() => fail("is not true or false".to_owned()),
        Some("object") if !value.is_object() => fail("is not a JSON object".to_owned()),
        Some("integer") => {
            let (least, most) = (
                bound("minimum").unwrap_or(0),
                bound("maximum").unwrap_or(u64::MAX),
            );
            match value.as_u64() {
                Some(number) if (least..=most).contains(&number) => Ok(()),
                _ if most == u64::MAX => fail(format!(
                    "is {value}; it must be a whole number of at least {least}"
                )),
                _ => fail(format!(
                    "is {value}; it must be a whole number from {least} to {most}"
                )),
            }
        }
        Some("array") => {
            let Some(elements) = value.as_array() else {
                return fail("is not an array".to_owned());
            };
            let (least, most) = (
                bound("minItems").unwrap_or(0),
                bound("maxItems").unwrap_or(u64::MAX),
            );
            let count = elements.len() as u64;
            if !(least..=most).contains(&count) {
                return fail(format!("has {count} entries; it must have {least} to {most}"));
            }
            elements.iter().enumerate().try_for_each(|(index, element)| {
                check_value(
                    schema.get("items").unwrap_or(&Value::Null),
                    element,
                    &format!("{field}[{index}]"),
                )
            })
        }
        _ => Ok(()),
    }
}
