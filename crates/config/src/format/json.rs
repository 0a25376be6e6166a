//! JSON. `serde_json` gives no positions, but its raw values are slices of the text: where a slice
//! begins is the position. Each level is read again below itself, which the depth limit bounds.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::node::{Data, Entry, Lines, MAX_DEPTH, Node, SyntaxError, narrow};

pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| syntax(&error))?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    Reader {
        text,
        lines: Lines::new(text),
    }
    .node(raw, 0)
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines<'a>,
}

impl<'a> Reader<'a> {
    fn node(&self, raw: &'a RawValue, depth: usize) -> Result<Node, SyntaxError> {
        let offset = (raw.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let line = self.lines.line(offset);
        let error = |message: String| {
            let (line, column) = self.lines.position(offset);
            SyntaxError::new(line, column, message)
        };
        if depth > MAX_DEPTH {
            return Err(error(format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        let inner = |inner: serde_json::Error| error(inner.to_string());
        let data = match raw.get().as_bytes().first() {
            Some(b'{') => {
                let pairs: Pairs<'a> = serde_json::from_str(raw.get()).map_err(inner)?;
                let entry = |(key, raw)| {
                    let value = self.node(raw, depth + 1)?;
                    Ok(Entry {
                        key,
                        line: value.line,
                        value,
                    })
                };
                Data::Map(pairs.0.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
            Some(b'[') => {
                let items: Vec<&'a RawValue> = serde_json::from_str(raw.get()).map_err(inner)?;
                Data::List(
                    items
                        .into_iter()
                        .map(|raw| self.node(raw, depth + 1))
                        .collect::<Result<_, _>>()?,
                )
            }
            _ => scalar(serde_json::from_str(raw.get()).map_err(inner)?),
        };
        Ok(Node { data, line })
    }
}

fn scalar(value: serde_json::Value) -> Data {
    match value {
        serde_json::Value::Bool(bool) => Data::Bool(bool),
        serde_json::Value::String(text) => Data::Text(text),
        serde_json::Value::Number(number) => number
            .as_i128()
            .map(Data::Int)
            .or_else(|| number.as_f64().map(Data::Float))
            .unwrap_or(Data::Null),
        // A list or a map begins with a bracket and does not come here.
        _ => Data::Null,
    }
}

fn syntax(error: &serde_json::Error) -> SyntaxError {
    let text = error.to_string();
    // The position is a field of its own in our report.
    let message = text
        .split_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    SyntaxError::new(narrow(error.line()), narrow(error.column()), message)
}

/// An object as it is written: in order, duplicates included.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(PairsVisitor).map(Self)
    }
}
