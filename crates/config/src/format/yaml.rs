//! YAML 1.2 with the core schema: built from parser events, so that positions and duplicates are
//! kept and nothing recurses.
//!
//! Bounds: depth ([`MAX_DEPTH`]) and values after alias expansion ([`MAX_NODES`]), both checked
//! before memory is taken. Not supported, and said so: several documents, application tags, keys
//! that are not scalars. Merge keys (`<<`) left YAML with version 1.2; they are unknown keys here.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::node::{Data, Entry, MAX_DEPTH, Node, SyntaxError, narrow};

/// How many keys and values a file may hold, aliases counted as often as they are used.
const MAX_NODES: usize = 100_000;

pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        builder.event(event, Position::of(&span))?;
    }
    Ok(builder.root.unwrap_or(Node {
        data: Data::Null,
        line: 1,
    }))
}

impl SyntaxError {
    fn hint(self, hint: &'static str) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }
}

#[derive(Clone, Copy)]
struct Position {
    line: u32,
    column: u32,
}

impl Position {
    fn of(span: &Span) -> Self {
        Self {
            line: narrow(span.start.line()),
            column: narrow(span.start.col() + 1),
        }
    }

    fn error(self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.line, self.column, message)
    }
}

/// A list or a map whose end was not seen yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value; maps only.
    key: Option<(String, u32)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.awaits_key() {
                    return self.take_key(text.into_owned(), at);
                }
                let node = Node {
                    data: scalar(&text, style, tag.as_deref(), at)?,
                    line: at.line,
                };
                self.close(node, anchor, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(Data::List(Vec::new()), anchor, tag.as_deref(), at)
            }
            Event::MappingStart(anchor, tag) => self.start(Data::Map(Vec::new()), anchor, tag.as_deref(), at),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.close(open.node, open.anchor, at),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                if self.awaits_key() {
                    return Err(at.error("an alias can't be a key"));
                }
                // Counted before it is copied.
                self.count(self.anchors.get(&anchor).map_or(0, size), at)?;
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| at.error("an alias inside its own anchor"))?;
                self.attach(Node {
                    line: at.line,
                    ..node
                });
                Ok(())
            }
            Event::DocumentStart(_) if self.root.is_some() => Err(at
                .error("a second document begins here")
                .hint("keep one document per file")),
            _ => Ok(()),
        }
    }

    fn start(
        &mut self,
        data: Data,
        anchor: usize,
        tag: Option<&Tag>,
        at: Position,
    ) -> Result<(), SyntaxError> {
        if self.awaits_key() {
            return Err(at
                .error("a key must be a single word or text")
                .hint("quote it if it starts with a bracket"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(at.error(format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema()) {
            return Err(unsupported_tag(at));
        }
        self.open.push(Open {
            node: Node { data, line: at.line },
            anchor,
            key: None,
        });
        Ok(())
    }

    /// Finishes a node: counts it, remembers it for aliases, hangs it where it belongs.
    fn close(&mut self, node: Node, anchor: usize, at: Position) -> Result<(), SyntaxError> {
        self.count(1, at)?;
        if anchor > 0 {
            // The copy is memory too.
            self.count(size(&node), at)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.attach(node);
        Ok(())
    }

    fn attach(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open {
                node:
                    Node {
                        data: Data::List(items),
                        ..
                    },
                ..
            }) => items.push(node),
            Some(Open {
                node:
                    Node {
                        data: Data::Map(entries),
                        ..
                    },
                key,
                ..
            }) => {
                if let Some((key, line)) = key.take() {
                    entries.push(Entry {
                        key,
                        line,
                        value: node,
                    });
                }
            }
            Some(_) => {}
        }
    }

    fn awaits_key(&self) -> bool {
        self.open
            .last()
            .is_some_and(|open| matches!(open.node.data, Data::Map(_)) && open.key.is_none())
    }

    fn take_key(&mut self, key: String, at: Position) -> Result<(), SyntaxError> {
        self.count(1, at)?;
        if let Some(open) = self.open.last_mut() {
            open.key = Some((key, at.line));
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(at.error(format!(
                "the file holds more than {MAX_NODES} values, aliases expanded"
            )));
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.data {
        Data::List(items) => items.iter().map(size).sum(),
        Data::Map(entries) => entries.iter().map(|entry| 1 + size(&entry.value)).sum(),
        _ => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Data, SyntaxError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => Err(unsupported_tag(at)),
        Some(tag) if tag.suffix == "str" => Ok(Data::Text(text.to_owned())),
        _ if !matches!(style, ScalarStyle::Plain) => Ok(Data::Text(text.to_owned())),
        _ => Ok(plain(text)),
    }
}

/// A plain scalar by the core schema: <https://yaml.org/spec/1.2.2/#103-core-schema>.
fn plain(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Data::Float(f64::NAN),
        _ => {}
    }
    integer(text)
        .map(Data::Int)
        .or_else(|| float(text).map(Data::Float))
        .unwrap_or_else(|| Data::Text(text.to_owned()))
}

fn integer(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return digits
            .starts_with(|c: char| c.is_ascii_hexdigit())
            .then(|| i128::from_str_radix(digits, 16).ok())?;
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return digits
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| i128::from_str_radix(digits, 8).ok())?;
    }
    text.parse().ok()
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(if text.starts_with('-') {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        });
    }
    // Rust also reads `inf`, `nan` and `infinity`, which are text in YAML.
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    numeric.then(|| text.parse().ok())?
}

fn unsupported_tag(at: Position) -> SyntaxError {
    at.error("application tags (`!name`) are not supported")
        .hint("remove the tag; quote the text if it begins with `!`")
}

fn scan_error(error: &ScanError) -> SyntaxError {
    let marker = error.marker();
    let found = SyntaxError::new(narrow(marker.line()), narrow(marker.col() + 1), error.info());
    if error.info().contains("tab") {
        found.hint("indent with spaces, YAML forbids tabs")
    } else {
        found
    }
}
