//! A text as the schema wants it.

use figment::value::{Dict, Empty, Tag, Value};
use serde_json::Value as Json;

use crate::schema::Shape;

/// What does not fit stays text, and the check says what is wrong.
pub(super) fn typed(shape: &Shape<'_>, text: String) -> Value {
    let trimmed = text.trim();
    if shape.is_enum() {
        if shape.choices().contains(&trimmed) {
            return Value::from(trimmed);
        }
        return json(trimmed).unwrap_or_else(|| Value::from(text));
    }
    if shape.allows("string") {
        return Value::from(text);
    }
    let parsed = if shape.allows("boolean") {
        match trimmed {
            "true" | "1" => Some(Value::from(true)),
            "false" | "0" => Some(Value::from(false)),
            _ => None,
        }
    } else if shape.allows("array") && !trimmed.starts_with('[') {
        Some(split_list(shape, trimmed))
    } else {
        json(trimmed)
    };
    match parsed {
        Some(Value::Empty(..)) if !shape.nullable => Value::from(text),
        Some(value) => value,
        None => Value::from(text),
    }
}

fn split_list(shape: &Shape<'_>, text: &str) -> Value {
    let items = shape.items().map(|items| shape.schema.shape(items));
    let item = |part: &str| match &items {
        Some(items) => typed(items, part.trim().to_owned()),
        None => Value::from(part.trim()),
    };
    Value::from(
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(item)
            .collect::<Vec<_>>(),
    )
}

fn json(text: &str) -> Option<Value> {
    fn convert(json: Json) -> Value {
        match json {
            Json::Null => Value::Empty(Tag::Default, Empty::Unit),
            Json::Bool(bool) => Value::from(bool),
            Json::String(text) => Value::from(text),
            Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(unsigned), _, _) => Value::from(unsigned),
                (_, Some(signed), _) => Value::from(signed),
                (_, _, float) => Value::from(float.unwrap_or(f64::NAN)),
            },
            Json::Array(items) => Value::from(items.into_iter().map(convert).collect::<Vec<_>>()),
            Json::Object(entries) => Value::from(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, convert(value)))
                    .collect::<Dict>(),
            ),
        }
    }
    serde_json::from_str(text).ok().map(convert)
}
