//! A layer: what one source says, as a figment provider with the place of every value.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Empty, Map, Num, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::node::{Data, Node};
use crate::problem::{Problem, ProblemKind};
use crate::schema::Shape;
use crate::source::Sources;
use crate::{KeyPath, Source};

/// What one source says.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) dict: Dict,
    pub(crate) places: BTreeMap<KeyPath, Source>,
}

/// The layers merged so far. Later ones win key by key; lists are replaced as a whole.
#[derive(Debug)]
pub(crate) struct Stack {
    figment: Figment,
    places: Vec<BTreeMap<KeyPath, Source>>,
}

struct Named<'a> {
    index: usize,
    dict: &'a Dict,
}

impl Provider for Named<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.index.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

impl Stack {
    pub(crate) fn new() -> Self {
        Self {
            figment: Figment::new(),
            places: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, layer: Layer) {
        let named = Named {
            index: self.places.len(),
            dict: &layer.dict,
        };
        self.figment = std::mem::take(&mut self.figment).merge(named);
        self.places.push(layer.places);
    }

    /// The merged value.
    pub(crate) fn dict(&self) -> Dict {
        // The layers are data already: none of them can fail.
        self.figment
            .data()
            .ok()
            .and_then(|mut profiles| profiles.remove(&Profile::Default))
            .unwrap_or_default()
    }

    /// Where every merged value came from.
    pub(crate) fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        for (key, value) in &self.dict() {
            self.walk(value, &KeyPath::root().child(key), &mut sources);
        }
        sources
    }

    fn walk(&self, value: &Value, path: &KeyPath, sources: &mut Sources) {
        if let Some(source) = self.place(value.tag(), path) {
            let scalar = !matches!(value, Value::Dict(..) | Value::Array(..));
            sources.insert(path.clone(), source, scalar);
        }
        each_child(value, |key, child| self.walk(child, &path.child(key), sources));
    }

    fn place(&self, tag: Tag, path: &KeyPath) -> Option<Source> {
        let index: usize = self.figment.get_metadata(tag)?.name.parse().ok()?;
        let places = self.places.get(index)?;
        let mut at = Some(path.clone());
        while let Some(path) = at {
            if let Some(source) = places.get(&path) {
                return Some(source.clone());
            }
            at = path.parent();
        }
        None
    }

    /// Keys that hold a section in one layer and a value in another: the lower one would vanish
    /// without a word.
    pub(crate) fn clashes(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, upper) in self.places.iter().enumerate() {
            for lower in self.places.iter().take(index) {
                problems.extend(
                    lower
                        .iter()
                        .filter_map(|(path, source)| clash(path, source, lower, upper)),
                );
            }
        }
        problems
    }
}

/// `path` is a value in `lower`, and `upper` sets a key below it that is no list element.
fn clash(
    path: &KeyPath,
    source: &Source,
    lower: &BTreeMap<KeyPath, Source>,
    upper: &BTreeMap<KeyPath, Source>,
) -> Option<Problem> {
    let below = |places: &BTreeMap<KeyPath, Source>| {
        let (child, source) = places.range(path.child("")..).next()?;
        (child.starts_with(path) && child != path).then(|| (child.clone(), source.clone()))
    };
    if below(lower).is_some() {
        return None;
    }
    let (child, other) = below(upper)?;
    child
        .segments()
        .get(path.segments().len())?
        .parse::<usize>()
        .err()?;
    let message = format!("is a value here, but a section in {other}");
    Some(
        Problem::new(ProblemKind::Conflict, path.clone(), source.clone(), message)
            .hint("set the keys under it, or remove one of the two"),
    )
}

/// Builds a layer from a parsed file. Duplicates are reported; a section without content
/// (`redis:` with everything below it commented out) says nothing and is left out.
pub(crate) fn from_file(node: Node, file: &Path, shape: &Shape<'_>, problems: &mut Vec<Problem>) -> Layer {
    let mut reader = Reader {
        file,
        places: BTreeMap::new(),
        problems,
    };
    let line = node.line;
    let dict = match reader.value(node, Some(shape), &KeyPath::root()) {
        Value::Dict(_, dict) => dict,
        Value::Empty(..) => Dict::new(),
        _ => {
            let source = Source::file(file, line);
            let problem = Problem::new(
                ProblemKind::WrongType,
                KeyPath::root(),
                source,
                "the file must hold a section",
            );
            reader.problems.push(problem.hint("write `key: value` pairs"));
            Dict::new()
        }
    };
    Layer {
        dict,
        places: reader.places,
    }
}

struct Reader<'a> {
    file: &'a Path,
    places: BTreeMap<KeyPath, Source>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn value(&mut self, node: Node, shape: Option<&Shape<'_>>, path: &KeyPath) -> Value {
        match node.data {
            Data::List(items) => {
                let inner = shape.and_then(|shape| Some(shape.schema.shape(shape.items()?)));
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = path.child(index.to_string());
                    self.places
                        .insert(path.clone(), Source::file(self.file, item.line));
                    self.value(item, inner.as_ref(), &path)
                });
                Value::from(items.collect::<Vec<_>>())
            }
            Data::Map(entries) => {
                let mut dict = Dict::new();
                let mut lines = BTreeMap::new();
                for entry in entries {
                    let path = path.child(&entry.key);
                    let source = Source::file(self.file, entry.line);
                    if let Some(first) = lines.insert(entry.key.clone(), entry.line) {
                        let message = format!("this key is already set on line {first}");
                        let problem = Problem::new(ProblemKind::DuplicateKey, path, source, message);
                        self.problems.push(problem.hint("keep one of the two"));
                        continue;
                    }
                    let inner = shape.and_then(|shape| {
                        let (_, schema) = shape.lookup(&entry.key)?;
                        Some(shape.schema.shape(schema))
                    });
                    let section = inner.as_ref().filter(|inner| inner.is_section());
                    match section.filter(|_| entry.value.data == Data::Null) {
                        Some(section) if !section.nullable => continue,
                        // Nothing that a key from another layer below it would clash with.
                        Some(_) => {}
                        None => drop(self.places.insert(path.clone(), source)),
                    }
                    let value = self.value(entry.value, inner.as_ref(), &path);
                    dict.insert(entry.key, value);
                }
                Value::from(dict)
            }
            scalar => scalar_value(scalar),
        }
    }
}

/// A scalar as figment holds it; integers as `u64` or `i64` where they fit, so that they deserialise.
fn scalar_value(data: Data) -> Value {
    match data {
        Data::Bool(bool) => Value::from(bool),
        Data::Int(int) => match (u64::try_from(int), i64::try_from(int)) {
            (Ok(unsigned), _) => Value::from(unsigned),
            (_, Ok(signed)) => Value::from(signed),
            _ => Value::Num(Tag::Default, Num::I128(int)),
        },
        Data::Float(float) => Value::from(float),
        Data::Text(text) => Value::from(text),
        _ => Value::Empty(Tag::Default, Empty::Unit),
    }
}

/// Calls `each` for the entries of a section or the elements of a list.
pub(crate) fn each_child(value: &Value, mut each: impl FnMut(&str, &Value)) {
    match value {
        Value::Dict(_, dict) => dict.iter().for_each(|(key, value)| each(key, value)),
        Value::Array(_, items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| each(&index.to_string(), item));
        }
        _ => {}
    }
}

/// Puts defaults under what was given. Only structs are filled key by key: a map, a list or an enum
/// that was given replaces its default, else `{kind: b}` would inherit the fields of a default `{kind: a}`.
pub(crate) fn fill(given: &mut Dict, defaults: Dict, shape: &Shape<'_>) {
    for (key, default) in defaults {
        let inner = shape.property(&key).map(|schema| shape.schema.shape(schema));
        match (given.get_mut(&key), default) {
            (None, default) => drop(given.insert(key, default)),
            (Some(Value::Dict(_, given)), Value::Dict(_, default)) => {
                if let Some(inner) = inner.filter(Shape::is_struct) {
                    fill(given, default, &inner);
                }
            }
            _ => {}
        }
    }
}
