//! Just enough JSON to take an object apart and put it together again without touching what is in between: bodies are kept
//! byte for byte, so that what a provider cached stays what it was.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of an object in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// None if the text is not an object.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.get()).filter(|text| *text != "null")
    }

    /// The field if it is a string.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|raw| serde_json::from_str(raw).ok())
    }

    /// The same object without these fields.
    pub(super) fn without(&self, names: &[&str]) -> String {
        let kept = self.0.iter().filter(|(key, _)| !names.contains(&key.as_str()));
        kept.fold(Object::new(), |object, (key, value)| object.raw(key, value.get()))
            .end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The elements of an array; none if the text is not one.
pub(super) fn elements(text: &str) -> Vec<&str> {
    let parsed: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    parsed.into_iter().map(RawValue::get).collect()
}

/// Writes an object field by field.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    /// Starts with `"type": kind`.
    pub(super) fn of_type(kind: &str) -> Self {
        Self::new().text("type", kind)
    }

    pub(super) fn raw(mut self, name: &str, value: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    pub(super) fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

pub(super) fn array<T: AsRef<str>>(elements: &[T]) -> String {
    let mut out = String::from("[");
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(element.as_ref());
    }
    out.push(']');
    out
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
